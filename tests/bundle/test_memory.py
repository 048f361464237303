"""The estimate of memory beside what the shipped model really takes."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ursa_core.bundle.folder import PartSize, shipped_models
from ursa_core.bundle.summary import TokenizerSizes, TransformerSizes, summary
from ursa_core.grids import PixelShape
from ursa_core.models.presets import PRESETS
from ursa_core.models.transformer import Transformer, TransformerConfig

ROOT = Path(__file__).parents[2]
NANO = summary(shipped_models()["nano"])
LARGE = replace(
    NANO,
    settings=replace(NANO.settings, max_prompt_length=320),
    transformer=TransformerSizes(2048, 6144, 28, 16, 8, lm_head_size=64_000),
    tokenizer=TokenizerSizes(4, 8, 64_000, 6, (256,)),
    parts={"transformer": PartSize(0, 2_000_000_000), "vae": PartSize(0, 100_000_000)},
)
SHAPE = PixelShape(49, 320, 512)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_nano_takes_about_what_is_told(tmp_path):
    estimated = NANO.memory(4).total
    code = (
        "import sys; from ursa_cli.main import main; assert main(sys.argv[1:]) == 0;"
        "sys.path.append('benchmarks'); from peak_memory import peak_memory; print(peak_memory())"
    )
    words = ["sample", "a red circle", "-o", str(tmp_path / "a.mp4"), "--steps", "1", "--quiet"]
    command = [sys.executable, "-c", code, *words, "--device", "cpu", "--dtype", "float32"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    measured = int(done.stdout.splitlines()[-1])
    assert estimated / 1.5 < measured < estimated * 1.5


def test_the_parts_follow_the_stated_formula():
    memory = LARGE.memory(2, SHAPE)
    assert (memory.transformer, memory.tokenizer) == (4_000_000_000, 400_000_000)
    assert LARGE.table_entries == 1_200 * 64_000
    assert memory.codebook == 3 * 64_000 * 6 * 4 + 3 * LARGE.table_entries
    tokens = 320 + 1 + 33_280
    assert memory.activations == 2 * 2 * tokens * (2 * 2048 + 4 * 2048 + 2 * 1024)
    assert memory.logits == 4 * 33_280 * 2048 + 32_000_000 + 3 * LARGE.table_entries
    past = 2 * 4 * 320 * 512 * 34  # 8.5 · 256 / 64
    assert memory.decoding == 4 * ((1 << 21) * (5 * 256 // 64 + 20) + past) + 6 * 49 * 320 * 512
    stays = memory.process + memory.transformer + memory.tokenizer + memory.codebook
    assert memory.total == stays + memory.activations
    assert memory.to_json()["total"] == memory.total
    thin = replace(LARGE, transformer=TransformerSizes(16, 32, 28, 2, 1, 8, lm_head_size=64_000))
    small = thin.memory(2, SHAPE)
    assert small.total == stays + small.decoding


def test_without_guidance_a_pass_has_half_the_tokens():
    guided, alone = LARGE.memory(2, SHAPE), LARGE.memory(2, SHAPE, guided=False)
    assert 2 * alone.activations == guided.activations
    assert replace(alone, activations=guided.activations) == guided
    turns = LARGE.memory(2, SHAPE, "cuda", guided=False, offload=True)
    assert turns.activations == alone.activations  # no half waits for the other


def test_networks_that_take_turns_need_the_larger_of_their_peaks():
    memory = LARGE.memory(2, SHAPE, "cuda", offload=True)
    assert memory.activations < LARGE.memory(2, SHAPE, "cuda").activations
    sampling = memory.transformer + memory.activations
    assert memory.total == memory.process + memory.codebook + sampling
    assert memory.total < 8e9  # the published 1.7B at 49×320×512
    # A CPU has but one memory, so both networks' weights stay in it.
    on_cpu = LARGE.memory(2, SHAPE, offload=True)
    assert on_cpu.total > on_cpu.transformer + on_cpu.tokenizer + on_cpu.activations
    decoding = replace(memory, transformer=0, activations=0)
    assert decoding.total == memory.process + memory.codebook + memory.tokenizer + memory.decoding


def of_size(name):
    """A published video model of a preset's size."""
    size = PRESETS[name]
    with torch.device("meta"):
        config = TransformerConfig.from_size(size, 151_669, 64_000, 151_652)
        count = sum(weight.numel() for weight in Transformer(config).parameters())
    parts = {**LARGE.parts, "transformer": PartSize(0, count)}
    return replace(LARGE, transformer=TransformerSizes(**vars(size), lm_head_size=64_000),
                   parts=parts)  # fmt: skip


@pytest.mark.parametrize(("name", "most"), [("1.7B", 4e9), ("4B", 8e9)])
def test_layers_that_take_turns_fit_small_gpus(name, most):
    model = of_size(name)
    memory = model.memory(2, SHAPE, "cuda", offload_blocks=2)
    assert memory.offload
    assert memory.total <= most
    turns = model.memory(2, SHAPE, "cuda", offload=True)
    assert replace(memory, transformer=turns.transformer) == turns
    everything = model.memory(2, SHAPE, "cuda", offload_blocks=1000)
    embeddings = 2 * (151_669 + 64_000) * model.transformer.hidden_size
    assert everything.transformer == turns.transformer - embeddings
    # A CPU has but one memory.
    on_cpu = model.memory(2, SHAPE, offload_blocks=2)
    assert on_cpu.transformer == turns.transformer


def test_the_dtype_and_the_device_count():
    half, full = (LARGE.memory(size, SHAPE) for size in (2, 4))
    assert full.transformer - half.transformer == 2 * 2_000_000_000
    # Larger chunks, but the table of distances is made on the CPU.
    assert LARGE.memory(2, SHAPE, "cuda").logits == 4 * 33_280 * 2048 + 256_000_000


def test_an_image_is_decoded_as_one_frame():
    tokenizer = replace(LARGE.tokenizer, temporal_stride=1, spatial_stride=16)
    decoding = replace(LARGE, is_image=True, tokenizer=tokenizer).memory(2, PixelShape(1, 512, 512))
    assert decoding.decoding == 512**2 * (4 * (5 * 256 + 20) + 6)


def test_learned_codebooks_have_a_table_while_they_are_small():
    def entries(num_codes):
        tokenizer = replace(LARGE.tokenizer, num_vq_embeddings=num_codes)
        return replace(LARGE, is_image=True, tokenizer=tokenizer).table_entries

    assert entries(4_096) == 4_096**2
    assert entries(131_072) == 0
