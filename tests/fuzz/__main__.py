"""``make fuzz``: 10,000 cases a reader (1,000 of films), with coverage and planted faults."""

import argparse
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.fuzz.engine import PlantedError, SlowError, coverage_of, fuzz, planted
from tests.fuzz.readers import readers


def main() -> int:
    """Fuzz the readers asked for; 1 if any failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("readers", nargs="*", help="names; all if none")
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="ursa-fuzz-"))
    table = readers(work)
    failed = []
    for name in given.readers or table:
        reader = table[name]
        cases, began = max(1, given.cases // reader.slower), time.monotonic()
        folder = work / "cases" / name
        folder.mkdir(parents=True)
        try:
            covered = coverage_of(reader, lambda: fuzz(reader, folder, cases, given.seed))  # noqa: B023
        except (Exception, SlowError, PlantedError):
            traceback.print_exc()
            print(f"{name}: FAILED, seed {given.seed}; its input is in {folder}")
            failed.append(name)
            continue
        told = ", ".join(f"{file} {share:.0%}" for file, share in covered.items())
        found = "found" if finds_planted(reader, folder, cases, given.seed) else "NOT FOUND"
        failed += [] if found == "found" else [name]
        print(
            f"{name}: {cases} cases, no fault, {time.monotonic() - began:.0f} s; lines: {told};"
            f" planted fault: {found}",
            flush=True,
        )
    return 1 if failed else 0


def finds_planted(reader, folder, cases, seed):
    """Whether the fuzz of a reader finds the fault planted in it."""
    with planted(reader):
        try:
            fuzz(reader, folder, cases, seed, shrink=False)
        except PlantedError:
            return True
    return False


if __name__ == "__main__":
    sys.exit(main())
