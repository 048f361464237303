"""What data and corruption cost a training step: waiting for batches, and draws along the path.

    .venv/bin/python benchmarks/training_data.py [--steps 30] [--clips 30000] [--shuffle-mb 256 2]

Trains the network of recipes/nano.yaml on shards of random codes, of the size and number that this
recipe trains on, and tells the share of step time in which it waited for data (`data_wait` of
metrics.jsonl). A small `--shuffle-mb` reads as a set does that is far larger than memory. Before
it, memory and time of reading `--large-clips` of 25x240x384 pixels within 32 MB. Then the
time of one corruption along the metric path: of nano's batch beside its measured step, and of one
clip of 25x240x384 pixels with the 64,000 codes of the published video models, beside the
operations of its step with the 0.6B network at the machine's measured matrix rate. CPU only.
"""

import argparse
import contextlib
import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from peak_memory import peak_memory

from ursa_core.bundle.bundle import load_bundle, load_tokenizer
from ursa_core.configs import PUBLISHED_LEVELS
from ursa_core.devices import matmul_rates
from ursa_core.encoding.encode import token_identity
from ursa_core.grids import LatentGrid
from ursa_core.models.presets import PRESETS
from ursa_core.models.transformer import TransformerConfig
from ursa_core.path.metric import MetricPath
from ursa_core.path.schedules import PowerSchedule
from ursa_core.recipe.loading import load_recipe
from ursa_core.sampling.time_grid import frame_times
from ursa_core.tokenizers.quantizers import FiniteScalarQuantizer
from ursa_core.tokens.order import Bucket, ClipOrder
from ursa_core.tokens.shards import TokenIdentity, read_shards
from ursa_core.tokens.writer import ShardWriter, TokenRow
from ursa_core.training.generator.estimates import UTILISATION, pass_operations
from ursa_core.training.run import train_recipe
from ursa_core.worlds.shapes import training_clip

RECIPE = Path(__file__).parents[1] / "recipes" / "nano.yaml"
COSMOS_GRID, COSMOS_PROMPT = LatentGrid(7, 30, 48), 320
"""25x240x384 pixels at strides of 4 and 8."""


def write_shards(folder: Path, clips: int) -> LatentGrid:
    """Random codes on the grid of nano's clips, with captions of its world."""
    tokenizer, settings, digest = load_tokenizer("nano")
    grid = tokenizer.strides.grid(settings.shape)
    rng = np.random.default_rng(0)
    captions = [training_clip(0, k, "train", 1, 8, 8)[1] for k in range(500)]
    with ShardWriter(folder, token_identity(tokenizer, digest)) as writer:
        for k in range(clips):
            shape = (grid.frames, grid.rows, grid.columns)
            codes = torch.from_numpy(rng.integers(0, len(tokenizer.codebook), shape))
            writer.add(TokenRow(codes, (captions[k % 500],), 8.0, 0.0, str(k)))
    return grid


def reading(folder: Path, clips: int, shuffle_mb: int, batches: int) -> dict[str, float]:
    """Memory and time that batches of two take, of large clips far beyond ``shuffle_mb``."""
    rng, grid = np.random.default_rng(0), COSMOS_GRID
    shape = (64, grid.frames, grid.rows, grid.columns)
    codes = torch.from_numpy(rng.integers(0, 64_000, shape))
    with ShardWriter(folder, TokenIdentity("random", 64_000, (), 4, 8)) as writer:
        for k in range(clips):
            writer.add(TokenRow(codes[k % 64], ("a caption of some length",), 12.0, 0.1, str(k)))
    before = peak_memory(since_now=True)
    table = read_shards(folder)
    table.cache_bytes = 2 * shuffle_mb << 20
    rows, found = table.rows(grid), {"MB of codes": clips * grid.num_codes * 4 / 1e6}
    bucket = Bucket(grid, 2, rows, len(rows) * grid.num_codes, table.group_starts)
    for lanes in (1, 8):
        order = ClipOrder([bucket], 1, lanes, (shuffle_mb << 20) // 4)
        start = time.perf_counter()
        for index in range(batches):
            for row in order.batch(index)[1]:
                table.row_codes(row), table.captions(row)
        elapsed = time.perf_counter() - start
        found[f"ms a batch, {lanes} lanes"] = elapsed / batches * 1e3
    return {**found, "MB of memory": (peak_memory() - before) / 1e6}


def waiting(folder: Path, steps: int, shuffle_mb: int) -> dict[str, float]:
    """Seconds of a step, and shares of the time in which training waited for data.

    On a machine with other work, compare the milliseconds with the least step.
    """
    overrides = [
        "tokenizer=nano",
        f"data.shards={folder / 'shards'}",
        f"data.shuffle_mb={shuffle_mb}",
        f"train.steps={max(steps, 61)}",  # warm-up has 60
        "train.log_every=1",
        "train.max_hours=10",
        "samples.prompts=[]",
    ]
    recipe = load_recipe(RECIPE, overrides)
    run = folder / f"run-{shuffle_mb}"

    class Enough(Exception):  # noqa: N818
        pass

    def stop(now) -> None:
        if now.step == steps:
            raise Enough

    with contextlib.suppress(Enough):
        train_recipe(recipe, run, False, lambda _: None, stop)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    waits = np.array([line["data_wait"] for line in lines])
    seconds = np.diff([0.0, *(line["seconds"] for line in lines)])
    return {
        "least_step_seconds": float(seconds.min()),
        "median_step_seconds": float(np.median(seconds)),
        "ms_waited_a_step": float((waits * seconds)[1:].mean() * 1e3),
        "waiting": float((waits * seconds).sum() / seconds.sum()),
        "waiting_after_the_first": float((waits * seconds)[1:].sum() / seconds[1:].sum()),
        "longest_wait_of_a_step": float(waits[1:].max()),
    }


def least(function: Callable[[], object], rounds: int) -> float:
    """Least seconds of several calls."""
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        found.append(time.perf_counter() - start)
    return min(found)


def corruption(path: MetricPath, grid: LatentGrid, clips: int, rounds: int) -> dict[str, float]:
    """Seconds to corrupt a batch, with a time a clip and with a time a frame."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(path.num_codes, (clips, grid.num_codes), generator=generator)
    found = {}
    for name, count in (("a time a clip", 1), ("a time a frame", grid.frames)):
        drawn = torch.rand(clips, count, generator=generator).expand(clips, grid.frames)
        times = frame_times(drawn, grid)
        path.corrupt(codes, times, generator)  # makes the tables
        found[name] = least(lambda t=times: path.corrupt(codes, t, generator), rounds)
    return found


def main() -> None:
    """Print the figures, the last line as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--clips", type=int, default=30_000)
    parser.add_argument("--shuffle-mb", type=int, nargs="+", default=[256, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--large-clips", type=int, default=8000)
    wanted = parser.parse_args()
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        found = reading(folder / "large", wanted.large_clips, 32, 400)
        figures["reading within shuffle_mb 32"] = found
        print("shuffle_mb 32: " + ", ".join(f"{k} {v:.3g}" for k, v in found.items()))
        grid = write_shards(folder / "shards", wanted.clips)
        for megabytes in wanted.shuffle_mb:
            found = waiting(folder, wanted.steps, megabytes)
            figures[f"shuffle_mb {megabytes}"] = found
            print(f"shuffle_mb {megabytes}: " + ", ".join(f"{k} {v:.5g}" for k, v in found.items()))
        step = found["least_step_seconds"]
    batch = load_recipe(RECIPE, []).train.batch_size
    path = load_bundle("nano").path
    for name, seconds in corruption(path, grid, batch, wanted.rounds).items():
        figures[f"nano, {name}"] = [seconds, seconds / step]
        print(
            f"nano, {name}: {seconds * 1e3:.1f} ms, {seconds / step:.2%} of a step of {step:.3g} s"
        )
    codebook = FiniteScalarQuantizer(list(PUBLISHED_LEVELS)).codebook
    cosmos = MetricPath(codebook, PowerSchedule(1.0, 5.0))
    config = TransformerConfig.from_size(PRESETS["0.6B"], 151_669, len(codebook), 0)
    operations = pass_operations(config, COSMOS_GRID, COSMOS_PROMPT, recompute=False)
    rates = matmul_rates(torch.device("cpu"), seconds=2.0)
    for name, seconds in corruption(cosmos, COSMOS_GRID, 1, wanted.rounds).items():
        shares = {kind: seconds * UTILISATION * rate / operations for kind, rate in rates.items()}
        figures[f"cosmos, {name}"] = [seconds, shares]
        told = ", ".join(f"{share:.3%} in {kind}" for kind, share in shares.items())
        print(f"64,000 codes, {name}: {seconds:.3f} s; of {operations:.3g} operations {told}")
    about = {
        "rates": rates,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    print(json.dumps({**figures, **about}))


if __name__ == "__main__":
    main()
