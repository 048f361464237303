"""Our scheduler step and training corruption beside a direct implementation of the same formulas.

At the published video model's codebook (64,000 codes), on some hundred positions:

    .venv/bin/python benchmarks/scheduler_step.py --positions 512

The direct implementation holds (positions × codes) tensors of distances, probabilities and rates,
as the reference does. Times are medians in one process, memory is the growth of the peak of a
process of its own beyond what was there before the call (the logits among it).

``--full-grid 1024`` measures ours alone over a whole clip of the published 0.6B model: a head of
that width, the draw and the step for 13×40×64 positions.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from peak_memory import peak_memory
from torch import Tensor

from ursa_core.configs import PUBLISHED_LEVELS
from ursa_core.path.metric import MetricPath
from ursa_core.path.schedules import PowerSchedule
from ursa_core.sampling.posterior import draw_codes
from ursa_core.tokenizers.quantizers import FiniteScalarQuantizer

T, T_NEXT = 0.40, 0.42
ALPHA, C = 1.0, 5.0
GRID_CODES = 13 * 40 * 64
PARTS = ("rates", "step", "corrupt")


class Direct:
    """The formulas, written down as they are."""

    def __init__(self, codebook: Tensor) -> None:
        self.vectors = torch.nn.functional.normalize(codebook, dim=1, eps=1e-5)

    def distances(self, x_1: Tensor) -> Tensor:
        """(n, K) squared distances."""
        return torch.cdist(self.vectors[x_1], self.vectors).square()

    def corrupt(self, x_1: Tensor, t: float) -> Tensor:
        """x_t drawn from p_t(x | x_1)."""
        beta = C * (t / (1 - t)) ** ALPHA
        return torch.softmax(-beta * self.distances(x_1), dim=-1).multinomial(1).squeeze(1)

    def jump(self, x_t: Tensor, x_1: Tensor) -> Tensor:
        """An Euler step towards x_1."""
        beta = C * (T / (1 - T)) ** ALPHA
        dbeta = C * ALPHA * T ** (ALPHA - 1) / (1 - T) ** (ALPHA + 1)
        distance = self.distances(x_1)
        gap = torch.relu(distance.gather(1, x_t[:, None]) - distance)
        rates = torch.softmax(-beta * distance, dim=-1) * dbeta * gap
        rates.scatter_(1, x_t[:, None], 0.0)
        total = rates.sum(-1)
        jumps = torch.rand_like(total) < -torch.expm1(-(T_NEXT - T) * total)
        to = rates.clamp(min=1e-20).multinomial(1).squeeze(1)
        return torch.where(jumps, to, x_t)

    def step(self, x_t: Tensor, logits: Tensor) -> Tensor:
        """The same with a draw of x_1 from logits."""
        return self.jump(x_t, torch.softmax(logits, dim=-1).multinomial(1).squeeze(1))


def workloads(positions: int, part: str) -> tuple[Callable[[], object], Callable[[], object]]:
    """The direct and our own way to do a part, ready to call."""
    codebook = FiniteScalarQuantizer(list(PUBLISHED_LEVELS)).codebook
    draws = torch.Generator().manual_seed(0)
    x_1 = torch.randint(len(codebook), (1, positions), generator=draws)
    x_t = torch.randint(len(codebook), (1, positions), generator=draws)
    direct, path = Direct(codebook), MetricPath(codebook, PowerSchedule(ALPHA, C))
    path.corrupt(x_1[:, :1], 0.5, draws)  # makes the table, once a process
    if part == "corrupt":
        return lambda: direct.corrupt(x_1[0], T), lambda: path.corrupt(x_1, T, draws)
    if part == "rates":
        return (
            lambda: direct.jump(x_t[0], x_1[0]),
            lambda: path.step(x_t, x_1, T, T_NEXT, draws, "euler"),
        )
    logits = torch.randn(positions, len(codebook), generator=draws)

    def own_step() -> Tensor:
        # The head is what turns a row's number into its logits here.
        rows = torch.arange(positions, dtype=torch.float32).view(1, -1, 1)
        drawn = draw_codes(lambda h: logits[h[:, 0].long()], rows, len(codebook), draws)
        return path.step(x_t, drawn, T, T_NEXT, draws, "euler")

    return lambda: direct.step(x_t[0], logits), own_step


def median_seconds(work: Callable[[], object], repeats: int) -> float:
    """Median time of a call, the first one left out."""
    work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def peak_growth_bytes(positions: int, part: str, which: int) -> int:
    """How much a call raises the peak of a fresh process."""
    command = [sys.executable, __file__, "--positions", str(positions), "--peak", part, str(which)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout)


def print_peak(positions: int, part: str, which: int) -> None:
    """Print the growth of this process's peak over one call."""
    work = workloads(positions, part)[which]
    before = peak_memory(since_now=True)
    work()
    print(peak_memory() - before)


def print_full_grid(width: int) -> None:
    """Print the peak and the time of head, draw and step over the published grid, from scratch.

    Head and hidden states are there before and don't count; the table of distances is made within.
    """
    codebook = FiniteScalarQuantizer(list(PUBLISHED_LEVELS)).codebook
    draws = torch.Generator().manual_seed(0)
    path = MetricPath(codebook, PowerSchedule(ALPHA, C))
    head = torch.randn(len(codebook), width, generator=draws).mul_(width**-0.5)
    hidden = torch.randn(1, GRID_CODES, width, generator=draws)
    x_t = torch.randint(len(codebook), (1, GRID_CODES), generator=draws)
    with torch.inference_mode():
        _ = hidden[0, :64] @ head.T  # what the matrix library sets up
        before = peak_memory(since_now=True)
        start = time.perf_counter()
        drawn = draw_codes(lambda h: h @ head.T, hidden, len(codebook), draws)
        middle = time.perf_counter()
        path.step(x_t, drawn, T, T_NEXT, draws)
        table = time.perf_counter()
        path.step(x_t, drawn, T, T_NEXT, draws)
        end = time.perf_counter()
    print(
        f"{GRID_CODES} positions, width {width}: head and draw {middle - start:.1f} s,"
        f" first step with the table's making {table - middle:.2f} s, a step {end - table:.2f} s;"
        f" peak {(peak_memory() - before) / 1e6:.0f} MB"
    )


def main() -> None:
    """Measure all parts and print a table and one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--positions", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--full-grid", type=int, metavar="WIDTH")
    parser.add_argument("--peak", nargs=2, metavar=("PART", "WHICH"))
    wanted = parser.parse_args()
    if wanted.peak:
        print_peak(wanted.positions, wanted.peak[0], int(wanted.peak[1]))
        return
    if wanted.full_grid:
        print_full_grid(wanted.full_grid)
        return
    figures = {}
    for part in PARTS:
        direct, own = workloads(wanted.positions, part)
        seconds = median_seconds(direct, wanted.repeats), median_seconds(own, 5 * wanted.repeats)
        peaks = [peak_growth_bytes(wanted.positions, part, which) for which in (0, 1)]
        figures[part] = {
            "direct_seconds": seconds[0],
            "own_seconds": seconds[1],
            "faster": seconds[0] / seconds[1],
            "direct_bytes": peaks[0],
            "own_bytes": peaks[1],
            "smaller": peaks[0] / max(peaks[1], 1),
        }
        print(
            f"{part:8} direct {seconds[0] * 1e3:8.1f} ms, ours {seconds[1] * 1e3:7.1f} ms:"
            f" {seconds[0] / seconds[1]:6.1f} times faster;"
            f" direct {peaks[0] / 1e6:7.1f} MB, ours {peaks[1] / 1e6:6.1f} MB"
        )
    about = {
        "positions": wanted.positions,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    print(json.dumps({**about, **figures}))


if __name__ == "__main__":
    main()
