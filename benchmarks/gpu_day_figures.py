"""One measurement of `gpu_day.py` on a device: speed and peak memory at the published sizes.

    RESULT=out.json python benchmarks/gpu_day_figures.py sampling [--rehearse]

Weights are random. `--rehearse` takes tiny sizes and the CPU, so that the same lines run anywhere.
"""

import argparse
import itertools
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from peak_memory import peak_memory

import ursa_core
from ursa_core.bundle.bundle import Bundle
from ursa_core.bundle.settings import BundleSettings
from ursa_core.devices import matmul_rates, total_memory_bytes
from ursa_core.grids import LatentGrid, PixelShape
from ursa_core.models.presets import PRESETS
from ursa_core.models.transformer import Transformer, TransformerConfig
from ursa_core.path.metric import MetricPath
from ursa_core.path.schedules import PowerSchedule
from ursa_core.sampling.generate import Request, decode, generate
from ursa_core.sampling.posterior import draw_codes
from ursa_core.tokenizers.text import TextTokenizer
from ursa_core.tokenizers.video_fsq import VideoTokenizer, VideoTokenizerConfig

TEXT_IDS, PROMPT_LENGTH = 151_936, 320
SAMPLED, TRAINED = PixelShape(49, 320, 512), PixelShape(25, 384, 240)
STEPS = 3
"""Steps of a measured loop; the first one, which sets up, isn't counted."""


class Sizes:
    """What is measured: the published sizes, or tiny ones for a rehearsal on a CPU."""

    def __init__(self, *, rehearse: bool) -> None:
        self.device = torch.device("cpu" if rehearse else "cuda")
        self.dtype = torch.bfloat16
        self.text_ids, self.prompt_length = (50, 8) if rehearse else (TEXT_IDS, PROMPT_LENGTH)
        self.sampled = PixelShape(5, 16, 16) if rehearse else SAMPLED
        self.trained = PixelShape(5, 16, 16) if rehearse else TRAINED
        tiny = VideoTokenizerConfig(
            block_out_channels=(8, 8, 8), layers_per_block=1, latent_channels=4, levels=(4, 4)
        )
        self.tokenizer = tiny if rehearse else VideoTokenizerConfig()
        size = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2}
        heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
        self._preset = (lambda name: replace(PRESETS[name], **size, **heads)) if rehearse else None

    def transformer(self, name: str, codebook: torch.Tensor, dtype: torch.dtype) -> Transformer:
        """A network of a preset's size with random weights, on the device."""
        size = self._preset(name) if self._preset else PRESETS[name]
        config = TransformerConfig.from_size(size, self.text_ids, len(codebook), 2)
        with torch.device(self.device):
            model = Transformer(config)
            for parameter in model.parameters():
                torch.nn.init.normal_(parameter, std=0.02)
        return model.to(dtype)

    def bundle(self, *, offload: bool = False) -> Bundle:
        """The 1.7B video model with random weights."""
        tokenizer = VideoTokenizer(self.tokenizer).eval()
        codebook = tokenizer.codebook
        home = torch.device("cpu") if offload else self.device
        transformer = self.transformer("1.7B", codebook, self.dtype).eval().to(home)
        path = MetricPath(codebook, PowerSchedule(1.0, 5.0)).to(self.device)
        words = TextTokenizer.from_words(["a bear"], self.prompt_length)
        shape = self.sampled
        settings = BundleSettings(
            max_prompt_length=self.prompt_length,
            frames=shape.frames,
            height=shape.height,
            width=shape.width,
        )
        parts = transformer, tokenizer.to(home), words, path, settings, self.device
        return Bundle(Path(), *parts, offload=offload)


def wait(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def start_memory(device: torch.device) -> None:
    """Begin to measure a peak of memory."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int:
    """Peak of the device's memory since `start_memory`; on a CPU that of the process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return peak_memory()


def matrix_rate(sizes: Sizes) -> float:
    """Operations per second of a large bfloat16 product, measured here."""
    seconds = 0.02 if sizes.device.type == "cpu" else 1.0
    return matmul_rates(sizes.device, seconds)["bfloat16"]


def median_seconds(device: torch.device, work: Callable[[], object], repeats: int = 3) -> float:
    """Median time of some repeats after one that sets up."""
    times = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        work()
        wait(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def pass_operations(model: Transformer, tokens: int) -> float:
    """Multiply-adds, counted as two, of a pass of one sequence, without the head."""
    config = model.config
    matrices = sum(p.numel() for name, p in model.named_parameters() if "proj" in name)
    width = config.num_attention_heads * config.head_dim
    return 2.0 * tokens * matrices + 4.0 * config.num_hidden_layers * tokens**2 * width


def environment(sizes: Sizes) -> dict[str, object]:
    """Device, versions, and the matrix rate."""
    device = sizes.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    return {
        "device": name or platform.machine(),
        "memory_bytes": total_memory_bytes(device),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "ursa": ursa_core.__version__,
        "matrix_operations_per_second": matrix_rate(sizes),
    }


def sampling(
    sizes: Sizes, *, guided: bool = True, compiled: bool = False, offload: bool = False
) -> dict[str, object]:
    """Seconds per sampling step, its share of the matrix rate, and the peak of memory."""
    device = sizes.device
    start_memory(device)
    bundle = sizes.bundle(offload=offload)
    if compiled:
        bundle.transformer.model.compile()
    times: list[float] = []

    def on_step(step: int, _: torch.Tensor) -> None:
        wait(device)
        times.append(time.perf_counter())

    options = replace(
        bundle.settings.defaults,
        steps=STEPS + 1,
        guidance=7.0 if guided else 1.0,
        guidance_interval=(0.0, 1.0),
    )
    generate(bundle, Request("a bear", options=options), on_step)
    seconds = statistics.median(b - a for a, b in itertools.pairwise(times))
    tokens = bundle.grid(sizes.sampled).num_codes + sizes.prompt_length + 1
    operations = (2 if guided else 1) * pass_operations(bundle.transformer, tokens)
    rate = matrix_rate(sizes)
    return {
        "seconds_per_step": seconds,
        "first_step_seconds": None if len(times) < 2 else times[1] - times[0],
        "share_of_matrix_rate": operations / seconds / rate,
        "peak_bytes": peak_bytes(device),
    }


def solver_step(sizes: Sizes) -> dict[str, object]:
    """Seconds of the draw of x_1 and of the path's step for all positions of a clip."""
    device = sizes.device
    codebook = VideoTokenizer(sizes.tokenizer).codebook
    path = MetricPath(codebook, PowerSchedule(1.0, 5.0)).to(device)
    strides = VideoTokenizer(sizes.tokenizer).strides
    num, width = strides.grid(sizes.sampled).num_codes, 64
    generator = torch.Generator().manual_seed(0)
    codes = [path.initial((1, num), generator, device) for _ in range(2)]
    hidden = torch.randn(1, num, width, device=device)
    head = torch.randn(width, len(codebook), device=device) / width
    t, t_next = torch.tensor(0.4, device=device), torch.tensor(0.42, device=device)
    start_memory(device)

    def step() -> object:
        return path.step(codes[0], codes[1], t, t_next, generator)

    def draw() -> object:
        return draw_codes(lambda x: x @ head, hidden, len(codebook), generator)

    return {
        "step_seconds": median_seconds(device, step),
        "draw_seconds": median_seconds(device, draw),
        "peak_bytes": peak_bytes(device),
    }


def decoder(sizes: Sizes) -> dict[str, object]:
    """Seconds of decoding a clip, and the peak of memory."""
    bundle = sizes.bundle()
    grid = bundle.grid(sizes.sampled)
    codes = torch.zeros(grid.frames, grid.rows, grid.columns, dtype=torch.int64)
    start_memory(sizes.device)
    seconds = median_seconds(sizes.device, lambda: decode(bundle, codes.to(sizes.device)), 2)
    return {"seconds": seconds, "peak_bytes": peak_bytes(sizes.device)}


def training(sizes: Sizes, name: str) -> dict[str, object]:
    """Tokens per second of training steps, their share of the matrix rate, and peak memory."""
    from ursa_core.recipe.fields import OptimizerSettings
    from ursa_core.training.distributed import recompute_
    from ursa_core.training.generator.objective import DenoisingObjective
    from ursa_core.training.optimizer import Ema, build_optimizer, trained

    device = sizes.device
    tokenizer = VideoTokenizer(sizes.tokenizer)
    grid: LatentGrid = tokenizer.strides.grid(sizes.trained)
    start_memory(device)
    model = sizes.transformer(name, tokenizer.codebook, torch.float32)
    recompute_(list(model.model.layers))
    path = MetricPath(tokenizer.codebook.to(device), PowerSchedule(1.0, 5.0))
    objective = DenoisingObjective(model, path).train()
    optimizer = build_optimizer(model, OptimizerSettings(learning_rate=1e-5, warmup_steps=1))
    average = Ema(model, 0.99)
    ids = torch.zeros(1, sizes.prompt_length, dtype=torch.int64, device=device)
    codes = torch.zeros(1, grid.num_codes, dtype=torch.int64, device=device)
    times = torch.full((1, grid.num_codes), 0.5, device=device)
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            loss, _ = objective(ids, codes, times, grid, generator)
        loss.backward()
        optimizer.step()
        average.update_(trained(model), 1)
        optimizer.zero_grad(set_to_none=True)

    seconds = median_seconds(device, step)
    tokens = grid.num_codes + sizes.prompt_length + 1
    head = 2.0 * grid.num_codes * model.lm_head.weight.numel()
    operations = 4 * pass_operations(model, tokens) + 3 * head  # layers run again for the gradient
    return {
        "tokens_per_second": tokens / seconds,
        "share_of_matrix_rate": operations / seconds / matrix_rate(sizes),
        "peak_bytes": peak_bytes(device),
    }


FIGURES: dict[str, Callable[[Sizes], dict[str, object]]] = {
    "environment": environment,
    "sampling": sampling,
    "sampling_unguided": lambda sizes: sampling(sizes, guided=False),
    "sampling_compiled": lambda sizes: sampling(sizes, compiled=True),
    "sampling_offloaded": lambda sizes: sampling(sizes, offload=True),
    "solver_step": solver_step,
    "decoder": decoder,
    "training_0.6B": lambda sizes: training(sizes, "0.6B"),
    "training_1.7B": lambda sizes: training(sizes, "1.7B"),
}


def main() -> None:
    """Measure one figure and write it to `$RESULT`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("figure", choices=FIGURES)
    parser.add_argument("--rehearse", action="store_true")
    args = parser.parse_args()
    found = FIGURES[args.figure](Sizes(rehearse=args.rehearse))
    Path(os.environ["RESULT"]).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
