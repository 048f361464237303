"""Processor time of `ursa --help`, as a multiple of that of an empty Python process.

    python benchmarks/quick_start.py [--runs 15]

Commands take turns with `python -c pass`; each is compared with the pass of its own turn. Times are
user and system time of the whole process. Also compared is what Typer alone takes to import.
"""

import argparse
import os
import statistics
import subprocess
import sys

URSA = [sys.executable, "-m", "ursa_cli"]
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import typer": [sys.executable, "-c", "import typer"],
    "ursa --help": [*URSA, "--help"],
    "ursa eval --help": [*URSA, "eval", "--help"],
    "ursa sample --help": [*URSA, "sample", "--help"],
}


def seconds(command: list[str]) -> float:
    """User and system time of a command, in seconds."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} fails")
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    turns = [{name: seconds(command) for name, command in COMMANDS.items()} for _ in range(runs)]
    for name in COMMANDS:
        times = statistics.median(turn[name] for turn in turns)
        ratio = statistics.median(turn[name] / turn["python -c pass"] for turn in turns)
        print(f"{name:20} {times:.3f} s  {ratio:.1f} x")


if __name__ == "__main__":
    main()
