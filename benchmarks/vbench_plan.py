"""Does a whole VBench plan come out whole: in four shards, killed at random, and resumed?

Samples the 6,220 files of ``ursa eval vbench`` with few steps and frames, four shards at once.
Each shard is killed again and again at a random time until all of it is there:

    .venv/bin/python benchmarks/vbench_plan.py

``--limit`` takes fewer prompts. Afterwards every name is there once, no other is, every file has
the length and size asked for, none was made twice, and the bytes of some are those of a run that
nothing disturbed. Prints one JSON object; exits with 1 if anything is off.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ursa_core
from ursa_core.evaluation.suites import vbench
from ursa_core.evaluation.suites.completeness import check
from ursa_core.grids import PixelShape

SHARDS = 4
FRAMES, STEPS, SIZE = 5, 2, (64, 64)


def command(out: Path, given: argparse.Namespace, *more: str) -> list[str]:
    """A sampling run."""
    limit = [] if given.limit is None else ["--limit", str(given.limit)]
    size = f"{SIZE[0]}x{SIZE[1]}"
    return [
        sys.executable, "-m", "ursa_cli", "eval", "vbench", "--only", "sample", "-o", str(out),
        "--model", given.model, "--frames", str(FRAMES), "--steps", str(STEPS), "--size", size,
        "--batch-size", "8", "--guidance", "1", *limit, *more,
    ]  # fmt: skip


def times_made(records: Path) -> dict[str, int]:
    """How often each file was finished, by the manifests of all shards."""
    counts: dict[str, int] = {}
    for path in records.glob("manifest*.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if row.get("status") == "done":
                counts[row["item"]] = counts.get(row["item"], 0) + 1
    return counts


def kill_and_resume(out: Path, given: argparse.Namespace) -> int:
    """Run all shards, killing each now and then, until all have ended by themselves; the kills."""
    draws, kills = random.Random(given.seed), 0
    waiting = list(range(1, SHARDS + 1))
    left = dict.fromkeys(waiting, given.kills)
    running: dict[int, tuple[subprocess.Popen[bytes], float]] = {}
    while waiting or running:
        for shard in waiting:
            process = subprocess.Popen(
                command(out, given, "--shard", f"{shard}/{SHARDS}"), stdout=subprocess.DEVNULL
            )
            seconds = draws.uniform(*given.between) if left[shard] else float("inf")
            running[shard] = (process, time.monotonic() + seconds)
        waiting = []
        time.sleep(0.05)
        for shard, (process, until) in list(running.items()):
            if process.poll() is not None:
                assert process.returncode == 0, f"shard {shard} failed"
                del running[shard]
            elif time.monotonic() > until:
                process.kill()
                process.wait()
                kills, left[shard] = kills + 1, left[shard] - 1
                del running[shard]
                waiting.append(shard)
    return kills


def main() -> None:
    """Run, compare, print, and exit with 1 if anything is off."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="nano", help="name or folder of a bundle")
    parser.add_argument("--limit", type=int, help="prompts; the whole suite without it")
    parser.add_argument("--kills", type=int, default=3, help="of each shard")
    parser.add_argument(
        "--between", type=float, nargs=2, default=(20.0, 90.0), help="seconds from kill to kill"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the kills")
    given = parser.parse_args()
    suite = vbench.plan(limit=given.limit)
    with tempfile.TemporaryDirectory() as folder:
        out, alone = Path(folder) / "killed", Path(folder) / "alone"
        begun = time.monotonic()
        kills = kill_and_resume(out, given)
        seconds = time.monotonic() - begun
        expected = {file.name: PixelShape(FRAMES, *SIZE) for file in suite.files}
        faults = check(suite, out / "samples", expected)
        counts = times_made(out / "records")
        # A twentieth of the plan, sampled by one process that nobody disturbs.
        part = argparse.Namespace(**{**vars(given), "limit": max(1, (given.limit or 944) // 20)})
        subprocess.run(command(alone, part), check=True, stdout=subprocess.DEVNULL)
        compared = list((alone / "samples").iterdir())
        same = sum(
            path.read_bytes() == (out / "samples" / path.name).read_bytes() for path in compared
        )
        figures = {
            "files": len(suite.files),
            "of_whole": suite.num_full,
            "shards": SHARDS,
            "kills": kills,
            "lost": sum(fault.kind == "missing" for fault in faults),
            "misnamed_or_foreign": sum(fault.kind in ("foreign", "case") for fault in faults),
            "damaged": len(faults),
            "made_twice": sum(count > 1 for count in counts.values()),
            "same_as_undisturbed": same,
            "compared": len(compared),
            "seconds": round(seconds, 1),
            "ursa": ursa_core.__version__,
        }
        shutil.rmtree(out)
    print(json.dumps(figures))
    sys.exit(not (not faults and same == len(compared) and figures["made_twice"] == 0))


if __name__ == "__main__":
    main()
