"""How much longer sampling takes where other processes want the cores too.

    python benchmarks/busy_machine.py [--model nano] [--items 4] [--steps 25] [--repeats 3]

Samples a batch three ways, by the command itself: one process; two shards of it at once, which take
no longer where threads that wait sleep; and one process beside a busy loop of usual priority on one
core. Prints the seconds, each the fastest of the repeats, and their ratios to the first way. The
exit code is 1 where a ratio is above its goal. The machine must be quiet otherwise.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ursa_core.parts import num_cores

PROMPT = "a red circle moves right on a navy background"
GOALS = {"two_shards": 1.2, "busy_core": 2.0}


def started(source: Path, out: Path, given: argparse.Namespace, *more: str) -> subprocess.Popen:
    """A process that samples the list, or a part of it."""
    command = [sys.executable, "-m", "ursa_cli", "sample", "--from-file", str(source), "-o"]
    options = [str(out), "--model", given.model, "--steps", str(given.steps), "--seed", "0"]
    return subprocess.Popen([*command, *options, *more, "--quiet"], stdout=subprocess.DEVNULL)


def ended(*processes: subprocess.Popen) -> None:
    """Wait for processes, which must not fail."""
    for process in processes:
        if process.wait():
            raise RuntimeError(f"{process.args} ended with {process.returncode}")


@contextmanager
def busy_core() -> Iterator[None]:
    """A process that never rests, meanwhile."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def seconds_of(source: Path, given: argparse.Namespace) -> dict[str, float]:
    """The fastest time of each way; the ways take turns."""

    def alone(out: Path) -> None:
        ended(started(source, out, given))

    def two_shards(out: Path) -> None:
        ended(*(started(source, out, given, "--shard", f"{k}/2") for k in (1, 2)))

    def beside(out: Path) -> None:
        with busy_core():
            alone(out)

    ways: dict[str, Callable[[Path], None]] = {
        "one_process": alone,
        "two_shards": two_shards,
        "busy_core": beside,
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(given.repeats):
        for name, way in ways.items():
            with tempfile.TemporaryDirectory() as folder:
                begun = time.perf_counter()
                way(Path(folder) / "out")
                times[name].append(time.perf_counter() - begun)
    return {name: min(each) for name, each in times.items()}


def main() -> int:
    """Print the figures as JSON, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="nano", help="name or folder of a model")
    parser.add_argument("--items", type=int, default=4, help="videos of the batch, an even number")
    parser.add_argument("--steps", type=int, default=25, help="of each video")
    parser.add_argument("--repeats", type=int, default=3, help="of each way")
    given = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "prompts.txt"
        source.write_text(f"{PROMPT}\n" * given.items, encoding="utf-8")
        seconds = seconds_of(source, given)
    ratios = {name: seconds[name] / seconds["one_process"] for name in GOALS}
    figures = {
        "seconds": {name: round(each, 2) for name, each in seconds.items()},
        "ratios": {name: round(each, 2) for name, each in ratios.items()},
        "goals": GOALS,
        "items": given.items,
        "cores": num_cores(),
        "load_before": round(load, 2),
        "machine": platform.platform(),
        "environment": {
            k: v for k, v in os.environ.items() if k.startswith(("OMP_", "GOMP_", "KMP_"))
        },
    }
    print(json.dumps(figures, indent=2))
    return int(any(ratios[name] > goal for name, goal in GOALS.items()))


if __name__ == "__main__":
    sys.exit(main())
