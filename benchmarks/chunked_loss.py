"""The chunked cross-entropy beside the plain one: loss, gradients, time and peak memory.

    .venv/bin/python benchmarks/chunked_loss.py [--tokens 2048] [--codes 64000] [--width 256]

Random hidden states and head, forward and backward, float32 on the CPU. Times are the least CPU
seconds of several runs in turn, so that other work on the machine counts little. Memory is the
growth of the peak of a process of its own. ``--tokens 2560 --codes 1000`` is a step of nano: 32
clips of 80 positions.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from peak_memory import peak_memory
from torch import Tensor

from ursa_core.training.generator.chunked_loss import chunked_cross_entropy


def plain(hidden: Tensor, head: Tensor, x_1: Tensor) -> Tensor:
    """As PyTorch has it, on all logits."""
    return F.cross_entropy(hidden @ head.T, x_1, reduction="none").mean()


def chunked(hidden: Tensor, head: Tensor, x_1: Tensor) -> Tensor:
    """Ours."""
    return chunked_cross_entropy(hidden, head, x_1)[0]


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"plain": plain, "chunked": chunked}


def inputs(tokens: int, codes: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, head and codes."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, width, generator=generator)
    head = torch.randn(codes, width, generator=generator) * width**-0.5
    x_1 = torch.randint(codes, (tokens,), generator=generator)
    return hidden.requires_grad_(), head.requires_grad_(), x_1


def main() -> None:
    """Print the figures, the last line as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--codes", type=int, default=64_000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peak-of", choices=list(LOSSES), help="print one's peak, in a process")
    wanted = parser.parse_args()
    hidden, head, x_1 = inputs(wanted.tokens, wanted.codes, wanted.width)
    if wanted.peak_of:
        LOSSES[wanted.peak_of](hidden[:8], head[:8], x_1[:8] % 8).backward()  # libraries set up
        hidden.grad = head.grad = None
        before = peak_memory(since_now=True)
        LOSSES[wanted.peak_of](hidden, head, x_1).backward()
        print(peak_memory() - before)
        return
    results, gradients, seconds = {}, {}, {}
    for _ in range(wanted.rounds):
        for name, loss_of in LOSSES.items():
            hidden.grad = head.grad = None
            start = time.process_time()
            loss = loss_of(hidden, head, x_1)
            loss.backward()
            seconds[name] = min(seconds.get(name, 1e9), time.process_time() - start)
            results[name] = loss.item()
            gradients[name] = (hidden.grad, head.grad)
    differences = [
        float((ours - theirs).abs().max() / theirs.abs().max())
        for ours, theirs in zip(gradients["chunked"], gradients["plain"], strict=True)
    ]
    command = [sys.executable, __file__, *sys.argv[1:], "--peak-of"]
    peaks = {name: int(subprocess.check_output([*command, name])) for name in LOSSES}
    for name in LOSSES:
        print(
            f"{name:8} loss {results[name]:.7f}, {seconds[name] * 1e3:8.1f} ms,"
            f" peak {peaks[name] / 1e6:8.1f} MB"
        )
    figures = {
        "tokens": wanted.tokens,
        "codes": wanted.codes,
        "width": wanted.width,
        "loss_difference": abs(results["plain"] - results["chunked"]),
        "largest_gradient_difference": max(differences),
        "time_ratio": round(seconds["chunked"] / seconds["plain"], 3),
        "peak_ratio": round(peaks["chunked"] / peaks["plain"], 3),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
