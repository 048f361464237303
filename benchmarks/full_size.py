"""The shipped commands on checkpoints of the published sizes, with random weights, on a CPU.

    python benchmarks/full_size.py                             # all phases
    python benchmarks/full_size.py --models video --phases show,sample --frames 5

Writes models in the published layout (float16, sharded, a Qwen text tokenizer of the full
vocabulary), runs commands as a user would, and prints per phase its seconds and the growth of the
process's peak, next to what the formula of memory says. Within a command, passes of the network,
draws and decoding are measured apart: their growth is what is held beyond weights. `--resume`
leaves out phases that the record in the folder has. The models are deleted at the end of each.

Memory counts pages: `MALLOC_MMAP_THRESHOLD_` gives each larger tensor its own, as tensors of the
published sizes have anyway, so that what is freed doesn't count.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TEXT_IDS, BOV = 151_669, 151_652
PAD, PROMPT = "<|endoftext|>", "a lone grizzly bear walks through a misty forest"
SHARD_BYTES = 1 << 30
MODELS = {
    "video": ("0.6B", "fsq"),
    "video-1.7B": ("1.7B", "fsq"),
    "image": ("0.6B", "ibq"),
}
"""Models by name: size of the network, kind of tokenizer."""
TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}  # fmt: skip
# The image tokenizer's are assumed: those of the IBQ tokenizers that its authors followed.
VIDEO_WIDTHS, IMAGE_WIDTHS = (128, 256, 512, 512), (128, 128, 256, 256, 512)
IMAGE_CODES, IMAGE_CHANNELS = 131_072, 256


@dataclass(frozen=True)
class Scale:
    """What is made smaller to rehearse the rehearsal."""

    tiny: bool = False
    frames: int = 5
    height: int = 320
    width: int = 512
    image: int = 256

    @property
    def size(self) -> str:
        """Height and width of a video as ``--size`` takes them."""
        return f"{self.height}x{self.width}"


def text_tokenizer(folder: Path, tiny: bool) -> None:
    """Write a byte-level BPE with the ids of Qwen3: all words are made up, the layout is real."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab, merges = {letter: i for i, letter in enumerate(letters)}, []
    wanted = 300 if tiny else BOV - 9
    for pair in ((a, b) for n in range(1, 10) for a in list(vocab) for b in letters if len(a) == n):
        if len(vocab) >= wanted:
            break
        vocab.setdefault("".join(pair), len(vocab))
        merges.append(pair)
    backend = Tokenizer(models.BPE(vocab, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([PAD])
    last, bov = (304, 303) if tiny else (TEXT_IDS, BOV)
    others = range(len(vocab) + 1, last)
    backend.add_special_tokens(["<|vision_start|>" if i == bov else f"<|{i}|>" for i in others])
    folder.mkdir(parents=True)
    backend.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "Qwen2Tokenizer", "pad_token": PAD, "model_max_length": 131_072}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


def write_weights(folder: Path, network: Any, config: dict[str, Any], shard_bytes: int) -> None:
    """Write random float16 weights of a network on the meta device, in shards with an index."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    torch.manual_seed(0)
    shards: list[dict[str, torch.Tensor]] = [{}]
    name, size, index = "diffusion_pytorch_model", 0, {}
    groups = []
    for key, weight in network.state_dict().items():
        if size + 2 * weight.numel() > shard_bytes and shards[-1]:
            groups.append(shards.pop())
            shards.append({})
            size = 0
        shards[-1][key] = weight
        size += 2 * weight.numel()
    groups += shards
    for number, group in enumerate(groups, 1):
        file = f"{name}-{number:05}-of-{len(groups):05}" if len(groups) > 1 else name
        made = {}
        for key, weight in group.items():
            fan_in = max(1, weight[0].numel()) if weight.ndim > 1 else 1
            made[key] = torch.empty(weight.shape, dtype=torch.float16)
            if weight.ndim > 1:
                made[key].normal_(0, fan_in**-0.5)
            else:
                made[key].fill_(0.0 if key.endswith("bias") else 1.0)
        save_file(made, folder / f"{file}.safetensors", {"format": "pt"})
        index |= dict.fromkeys(made, f"{file}.safetensors")
    if len(groups) > 1:
        listed = {"metadata": {"total_size": 0}, "weight_map": index}
        path = folder / f"{name}.safetensors.index.json"
        path.write_text(json.dumps(listed), encoding="utf-8")


def write_model(folder: Path, name: str, scale: Scale) -> None:
    """Write a model of a published size."""
    import torch

    from ursa_core.models.presets import PRESETS, Size
    from ursa_core.models.transformer import Transformer, TransformerConfig
    from ursa_core.tokenizers.video_fsq import VideoTokenizerConfig
    from ursa_core.tokenizers.visual import build_visual_tokenizer

    preset, kind = MODELS[name]
    size = Size(**TINY) if scale.tiny else PRESETS[preset]
    if kind == "fsq":
        widths = (8, 8, 8, 8) if scale.tiny else VIDEO_WIDTHS
        vae = VideoTokenizerConfig(block_out_channels=widths).to_json()
        del vae["levels"], vae["causal"]  # which the published config has no field for
        path = {"alpha": 1.0, "c": 5.0, "shift": 3.0}
        part = "autoencoder_vq_cosmos3d"
    else:
        widths = (32, 32, 32, 32, 32) if scale.tiny else IMAGE_WIDTHS
        codes, channels = (512, 8) if scale.tiny else (IMAGE_CODES, IMAGE_CHANNELS)
        vae = {
            "_class_name": "AutoencoderVQ",
            "_quantizer_name": "VQuantizer",
            "block_out_channels": widths,
            "layers_per_block": 2 if scale.tiny else 4,
            "latent_channels": channels,
            "num_vq_embeddings": codes,
            "vq_embed_dim": channels,
            "attn_down_block": True,
            "attn_up_block": True,
            "spatial_stride": 16,
            "temporal_stride": 1,
        }
        path = {"alpha": 0.5, "c": 6.0, "shift": 2.0}
        part = "autoencoder_vq"
    ids, bov = (304, 303) if scale.tiny else (TEXT_IDS, BOV)
    config = TransformerConfig.from_size(size, ids, vae["num_vq_embeddings"], bov)
    shard_bytes = 1 << 14 if scale.tiny else SHARD_BYTES
    with torch.device("meta"):
        network, tokenizer = Transformer(config), build_visual_tokenizer(vae)
    write_weights(folder / "transformer", network, config.to_json(), shard_bytes)
    write_weights(folder / "vae", tokenizer, vae, SHARD_BYTES)
    text_tokenizer(folder / "tokenizer", scale.tiny)
    (folder / "scheduler").mkdir()
    scheduler = {"_class_name": "KineticOptimalScheduler", "eps": 1e-5, **path}
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(scheduler))
    if kind == "ibq":
        from safetensors.torch import load_file

        vectors = load_file(folder / "vae/diffusion_pytorch_model.safetensors")
        codebook = vectors["quantizer.embedding.weight"].float()
    else:
        from ursa_core.tokenizers.quantizers import FiniteScalarQuantizer

        codebook = FiniteScalarQuantizer([8, 8, 8, 5, 5, 5]).codebook
    torch.save({"path.emb": codebook}, folder / "scheduler/scheduler_model.pth")
    modules = "diffnext.models"
    index = {
        "_class_name": "URSAPipeline",
        "scheduler": ["diffnext.schedulers.scheduling_dfm", "KineticOptimalScheduler"],
        "tokenizer": ["transformers", "Qwen2Tokenizer"],
        "transformer": [f"{modules}.transformers.transformer_ursa", "URSATransformer3DModel"],
        "vae": [f"{modules}.autoencoders.{part}", vae["_class_name"]],
    }
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")


class Probes:
    """Growth of the process's peak within parts of a command, and the plan's own estimate.

    Args:
        patched: Replaces an attribute of an object, by name, until the command is over.
    """

    def __init__(self, patched: Callable[[Any, str, Any], None]) -> None:
        from peak_memory import peak_memory

        from ursa_core.clips.plan import Plan
        from ursa_core.sampling import denoise
        from ursa_core.tokenizers import image_vq, video_fsq, visual

        self._peak_memory, self.peak = peak_memory, 0
        self.grown: dict[str, int] = {}
        self.seconds: dict[str, float] = {}
        self.estimate: dict[str, int] = {}
        for owner, name, part in (
            (denoise, "guided_hidden", "activations"),
            (denoise, "draw_codes", "logits"),
            (denoise, "_moved", "logits"),
            (visual, "_decode", "decoding"),
            (image_vq.ImageTokenizer, "encode", "encoding"),
            (video_fsq.VideoTokenizer, "encode", "encoding"),
        ):
            patched(owner, name, self._measured(getattr(owner, name), part))
        check = Plan.check_memory

        def checked(plan: Plan, *args: int) -> None:
            found, entries = plan.memory.to_json(), plan.model.found.table_entries
            # The table of distances is made, and stays, if a step moves along the path.
            found["logits"] += (1 if plan.num_steps > 1 else -1) * 3 * entries
            self.estimate = max(found, self.estimate, key=lambda each: each.get("total", 0))
            check(plan, *args)

        patched(Plan, "check_memory", checked)

    def _measured(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        import torch

        def run(*args: Any, **named: Any) -> Any:
            self.peak = max(self.peak, self._peak_memory())
            # Hidden states in float32 (B, L, D), which the draws begin with, count as theirs.
            hidden = [a for a in args if isinstance(a, torch.Tensor) and a.is_floating_point()]
            held = hidden[0].nbytes if function.__name__ == "draw_codes" else 0
            before, began = self._peak_memory(since_now=True), time.perf_counter()
            result = function(*args, **named)
            self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - began
            grown = self._peak_memory() - before + held
            self.grown[part] = max(self.grown.get(part, 0), grown)
            return result

        return run

    def result(self) -> dict[str, Any]:
        """What was measured, and what was estimated."""
        peak = max(self.peak, self._peak_memory())
        return {"peak": peak, "grown": self.grown, "part_seconds": self.seconds,
                "estimate": self.estimate}  # fmt: skip


def run_measured(words: list[str]) -> dict[str, Any]:
    """Run `ursa` with some words in this process; what it took."""
    from contextlib import ExitStack
    from unittest.mock import patch

    from ursa_cli.main import main as ursa

    with ExitStack() as stack:
        probes = Probes(lambda *given: stack.enter_context(patch.object(*given)))
        began = time.perf_counter()
        code = ursa(words)
        seconds = time.perf_counter() - began
    if code:
        raise SystemExit(f"ursa {' '.join(words)} ended with {code}")
    return {"words": words, "seconds": seconds, **probes.result()}


def run_apart(words: list[str]) -> dict[str, Any]:
    """The same in a process of its own."""
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
    command = [sys.executable, str(HERE / "full_size.py"), "--child", *words]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"ursa {' '.join(words)} ended with {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def film(folder: Path, scale: Scale) -> Path:
    """A film of smooth random colours as PNG frames, written by hand."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    first, last = random.integers(0, 256, (2, 4, 4, 3))
    folder.mkdir(parents=True, exist_ok=True)
    for i, share in enumerate(np.linspace(0, 1, scale.frames)):
        picture = Image.fromarray((first + share * (last - first)).astype(np.uint8))
        picture.resize((scale.width, scale.height), Image.Resampling.BICUBIC).save(
            folder / f"{i:04}.png"
        )
    (folder.parent / "captions.jsonl").write_text(
        "\n".join(json.dumps({"file": folder.name, "caption": PROMPT}) for _ in range(2))
    )
    return folder


RECIPE = """
kind: generator
name: rehearsal
seed: 1
init: {model}
tokenizer: {model}
model: {{preset: {preset}, max_prompt_length: 320}}
lora: {{rank: 4, alpha: 4}}
data: {{shards: {shards}, motion_prefix: true}}
path: {{kind: metric, alpha: 1.0, c: 5.0}}
objective: {{caption_dropout: 0.1, async_probability: 0.3, image_probability: 0.0}}
optimizer: {{kind: adamw, learning_rate: 1.0e-4, weight_decay: 0.0, warmup_steps: 1}}
train: {{steps: 3, batch_size: 1, log_every: 1, checkpoint_every: 3, sample_every: 3}}
sampling: {{steps: 1, guidance: 1.0}}
samples: {{prompts: [{prompt}]}}
"""


def phases(model: Path, name: str, work: Path, scale: Scale) -> Iterator[tuple[str, list[str]]]:
    """Phases of a model by name, with the words of their command."""
    placed = [
        "--model",
        str(model),
        "--device",
        "cpu",
        "--dtype",
        "float32",
        "--force",
        "--seed",
        "1",
    ]
    # Both halves of guidance at once, then one; a step along the path, then the last.
    steps = ["--steps", "2", "--guidance-interval", "0:0.1"]
    yield "show", ["models", "show", str(model)]
    if MODELS[name][1] == "ibq":
        size = ["--size", f"{scale.image}x{scale.image}", *steps, *placed]
        yield "sample", ["sample", PROMPT, "-o", str(work / "image.png"), *size]
        calibrate = ["--alpha", "0.4:0.6:3", "--c", "5:7:3", "--force", "-o", str(work / "report")]
        yield "calibrate-path", ["calibrate-path", "--tokenizer", str(model), *calibrate]
        return
    frames = film(work / "film", scale)
    size = ["--size", scale.size, "--frames", str(scale.frames)]
    video = ["sample", PROMPT, *size, *placed, "-o"]
    out, tokens, still = work / "out.mkv", work / "film.safetensors", str(frames / "0000.png")
    yield "sample", [*video, str(out), *steps]
    yield "single", [*video, str(work / "single.mkv"), "--steps", "1", "--guidance", "1"]
    yield "offload", [*video, str(work / "b.mkv"), "--steps", "1", "--offload"]
    yield "blocks", [*video, str(work / "c.mkv"), "--steps", "1", "--offload-blocks", "2"]
    image = ["--image", still, "--fit", "--guidance", "1", "--steps", "1"]
    yield "image", [*video, str(work / "d.mkv"), *image]
    more = ["--frames", str(2 * scale.frames - 1), "--size", scale.size, "--guidance", "1"]
    more += ["--overlap", "1", "--steps", "1", "-o", str(work / "e.mkv")]
    yield "extend", ["extend", str(frames), PROMPT, *placed, *more]
    ends = ["--first", still, "--last", str(frames / f"{scale.frames - 1:04}.png"), "--fit"]
    between = ["interpolate", PROMPT, *ends, "--size", scale.size, *placed, "--guidance", "1"]
    between += ["--frames", str(scale.frames + 4), "--steps", "1"]
    yield "interpolate", [*between, "-o", str(work / "f.mkv")]
    cut = ["--frames", str(scale.frames), "--size", scale.size, "--fps", "12"]
    cut += ["--source-fps", "12", "--model", str(model), "--device", "cpu", "--force"]
    yield "tokenize", ["tokenize", str(frames), *cut, "-o", str(tokens)]
    back = ["--model", str(model), "--device", "cpu", "--force", "-o", str(work / "back.mkv")]
    yield "decode", ["tokenize", "--decode", str(tokens), *back]
    shards, recipe, run = work / "shards", work / "lora.yaml", str(work / "run")
    yield "shards", ["tokenize", str(work / "captions.jsonl"), *cut, "-o", str(shards)]
    preset = MODELS[name][0]
    recipe.write_text(RECIPE.format(model=model, preset=preset, shards=shards, prompt=PROMPT))
    own = [f"model.{key}={value}" for key, value in TINY.items()] if scale.tiny else []
    yield "train-plan", ["train", str(recipe), *own, "-o", run, "--dry-run"]
    yield "train", ["train", str(recipe), *own, "-o", run]
    yield "sample-lora", [*video, str(work / "g.mkv"), "--steps", "1", "--lora", run]
    calibrate = ["--alpha", "0.8:1.2:3", "--c", "4:6:3", "--force", "-o", str(work / "report")]
    yield "calibrate-path", ["calibrate-path", "--tokenizer", str(model), *calibrate]


def decoding_bytes(model: Path, scale: Scale) -> int:
    """What the formula says of decoding a clip."""
    from ursa_core.bundle.summary import summary
    from ursa_core.grids import PixelShape

    return summary(model).memory(4, PixelShape(scale.frames, scale.height, scale.width)).decoding


def line(name: str, phase: str, found: dict[str, Any]) -> str:
    """A phase as people read it: measured and estimated megabytes."""
    parts = [f"{name} {phase}: {found['seconds']:.0f} s, peak {found['peak'] / 1e6:.0f} MB"]
    estimate = found["estimate"]
    if "total" in estimate:
        parts[0] += f" of {estimate['total'] / 1e6:.0f}"
    for part, grown in found["grown"].items():
        told = f"{part} {found['part_seconds'][part]:.0f} s, {grown / 1e6:.0f} MB"
        parts.append(told + (f" of {estimate[part] / 1e6:.0f}" if part in estimate else ""))
    return "; ".join(parts)


def rehearse(
    work: Path,
    names: list[str],
    wanted: set[str],
    scale: Scale,
    run: Callable[[list[str]], dict[str, Any]] = run_apart,
) -> dict[str, dict[str, Any]]:
    """Run phases of models and print each; what was measured, by model and phase.

    The record in the folder has the phases done, which aren't run again.
    """
    record = work / "record.json"
    done = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    for name in names:
        model, files = work / name / "model", work / name / "files"
        files.mkdir(parents=True, exist_ok=True)
        if not model.exists():
            part = model.with_name("part")
            shutil.rmtree(part, ignore_errors=True)
            write_model(part, name, scale)
            part.rename(model)
        for phase, words in phases(model, name, files, scale):
            key = f"{name} {phase}"
            if (wanted and phase not in wanted) or key in done:
                continue
            done[key] = {**run(words), "scale": asdict(scale)}
            if "decoding" in done[key]["grown"] and not done[key]["estimate"]:
                done[key]["estimate"] = {"decoding": decoding_bytes(model, scale)}
            print(line(name, phase, done[key]), flush=True)
            record.write_text(json.dumps(done, indent=1), encoding="utf-8")
    return done


def main(given: list[str]) -> None:
    """Write the models, run the phases, and delete what was written."""
    if given[:1] == ["--child"]:
        print(json.dumps(run_measured(given[1:])))
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--phases", default="", help="names of phases; all by default")
    parser.add_argument("--folder", type=Path, default=Path("full_size"))
    parser.add_argument("--keep", action="store_true", help="keep the folder, to go on later")
    parser.add_argument("--tiny", action="store_true", help="tiny networks")
    for key in ("frames", "height", "width", "image"):
        parser.add_argument(f"--{key}", type=int, default=getattr(Scale, key))
    wanted = parser.parse_args(given)
    scale = Scale(wanted.tiny, wanted.frames, wanted.height, wanted.width, wanted.image)
    try:
        names = wanted.models.split(",")
        rehearse(wanted.folder, names, set(filter(None, wanted.phases.split(","))), scale)
    finally:
        if not wanted.keep:
            shutil.rmtree(wanted.folder)


if __name__ == "__main__":
    main(sys.argv[1:])
