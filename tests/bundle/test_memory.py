"""The estimate of memory beside what the shipped model really takes."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ursa_core.bundle.folder import shipped_models
from ursa_core.bundle.memory import Sizes, sampling_memory
from ursa_core.bundle.summary import summary
from ursa_core.grids import LatentGrid, PixelShape

ROOT = Path(__file__).parents[2]
LARGE = Sizes(
    transformer_parameters=2_000_000_000,
    tokenizer_parameters=100_000_000,
    num_codes=64_000,
    code_width=6,
    prompt_length=320,
    hidden=2048,
    intermediate=6144,
    attention=4096,
    decoder_width=256,
    patch_volume=64,
    temporal_stride=4,
    levels=(8, 8, 8, 5, 5, 5),
)
GRID, SHAPE = LatentGrid(13, 40, 64), PixelShape(49, 320, 512)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_nano_takes_about_what_is_told(tmp_path):
    told = summary(shipped_models()["nano"]).memory(4).total
    code = (
        "import sys; from ursa_cli.main import main; assert main(sys.argv[1:]) == 0;"
        "sys.path.append('benchmarks'); from peak_memory import peak_memory; print(peak_memory())"
    )
    words = ["sample", "a red circle", "-o", str(tmp_path / "a.mp4"), "--steps", "1", "--quiet"]
    command = [sys.executable, "-c", code, *words, "--device", "cpu", "--dtype", "float32"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    measured = int(done.stdout.splitlines()[-1])
    assert told / 1.5 < measured < told * 1.5


def test_the_parts_follow_the_stated_formula():
    memory = sampling_memory(LARGE, GRID, SHAPE, 2)
    assert (memory.transformer, memory.tokenizer) == (4_000_000_000, 400_000_000)
    assert LARGE.table_entries == 1_200 * 64_000
    assert memory.codebook == 3 * 64_000 * 6 * 4 + 6 * LARGE.table_entries
    tokens = 320 + 1 + 33_280
    layer, mlp = 2 * tokens * (4 * 2048 + 2 * 4096), 4096 * 3 * 6144
    assert memory.activations == 2 * (layer + mlp) + 33_280 * 2048 * 8
    assert memory.decoding == (1 << 21) * 4 * (6 * 256 // 64 + 24) + 6 * 49 * 320 * 512
    stays = memory.process + memory.transformer + memory.tokenizer + memory.codebook
    assert memory.total == stays + memory.activations + memory.logits
    assert memory.to_json()["total"] == memory.total
    thin = replace(LARGE, hidden=16, intermediate=32, attention=32)
    small = sampling_memory(thin, GRID, SHAPE, 2)
    assert small.total == stays + small.decoding


def test_networks_that_take_turns_need_the_larger_of_their_peaks():
    memory = sampling_memory(LARGE, GRID, SHAPE, 2, "cuda", offload=True)
    assert memory.activations < sampling_memory(LARGE, GRID, SHAPE, 2, "cuda").activations
    sampling = memory.transformer + memory.activations + memory.logits
    assert memory.total == memory.process + memory.codebook + sampling
    assert memory.total < 8e9  # the published 1.7B at 49×320×512
    # A CPU has but one memory, so both networks' weights stay in it.
    on_cpu = sampling_memory(LARGE, GRID, SHAPE, 2, offload=True)
    assert on_cpu.total > on_cpu.transformer + on_cpu.tokenizer + on_cpu.activations
    decoding = replace(memory, transformer=0, activations=0)
    assert decoding.total == memory.process + memory.codebook + memory.tokenizer + memory.decoding


def test_the_dtype_and_the_device_count():
    half, full = (sampling_memory(LARGE, GRID, SHAPE, size) for size in (2, 4))
    assert full.transformer - half.transformer == 2 * LARGE.transformer_parameters
    assert sampling_memory(LARGE, GRID, SHAPE, 2, "cuda").logits > half.logits


def test_learned_codebooks_have_a_table_while_they_are_small():
    assert replace(LARGE, num_codes=4_096, levels=()).table_entries == 4_096**2
    assert replace(LARGE, num_codes=131_072, levels=()).table_entries == 0
