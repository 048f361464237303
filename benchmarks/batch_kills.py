"""A batch killed at random moments and restarted: is anything lost, torn or made twice?

    python benchmarks/batch_kills.py [--items 1000] [--kills 10] [--batch-size 8] [--seed 0]

Runs ``ursa sample --from-file`` over short prompts (one frame, two steps each) once undisturbed,
and once killed with SIGKILL as often as asked for, each time at a random moment after a random
number of new items, and restarted. Then it checks that the killed batch has as many results, each
of which can be read and shows something else, the same to the byte as the undisturbed ones; that
none was made twice (its file never changed once it was there) and that nothing else is left.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ursa_core
from ursa_core.media import read_media
from ursa_core.worlds.shapes import BACKGROUNDS, COLOURS, SHAPES

FAST = ["--steps", "2", "--frames", "1", "--device", "cpu", "--dtype", "float32"]


def versions(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of each output: another pair is another making."""
    stats = {path.name: path.stat() for path in folder.glob("[!.]*.mp4")}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in stats.items()}


def main() -> None:
    """Run both batches, print the figures as JSON, and exit with 1 if a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    draws = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "prompts.txt"
        words = [[draws.choice(list(kind)) for kind in (COLOURS, SHAPES, BACKGROUNDS)]
                 for _ in range(given.items)]  # fmt: skip
        source.write_text("".join(f"a {c} {s} on a {b} background\n" for c, s, b in words))

        def command(out: str) -> list[str]:
            return [sys.executable, "-m", "ursa_cli", "sample", "--from-file", str(source),
                    "-o", str(folder / out), "--model", "nano", "--seed", "1", "--quiet",
                    "--batch-size", str(given.batch_size), *FAST]  # fmt: skip

        begun = time.monotonic()
        subprocess.run(command("whole"), check=True, stdout=subprocess.DEVNULL)
        whole_seconds = time.monotonic() - begun
        whole, killed = folder / "whole", folder / "killed"
        seen: dict[str, tuple[int, int]] = {}
        remade = kills = 0
        for kill in range(given.kills):
            process = subprocess.Popen(command("killed"), stdout=subprocess.DEVNULL)
            # Somewhere in an equal share of what is left, so that every run is killed at work.
            share = (given.items - len(seen)) / (given.kills - kill + 1)
            enough = len(seen) + draws.uniform(0.2, 1.0) * share
            while process.poll() is None and len(versions(killed)) < enough:
                time.sleep(0.01)
            time.sleep(draws.uniform(0, 0.3))
            kills += process.poll() is None
            process.kill()
            process.wait()
            now = versions(killed)
            remade += sum(now.get(item) != version for item, version in seen.items())
            seen = now
        subprocess.run(command("killed"), check=True, stdout=subprocess.DEVNULL)
        last = versions(killed)
        remade += sum(last.get(item) != version for item, version in seen.items())
        readable = [read_media(path).frames for path in sorted(killed.glob("*.mp4"))]
        contents = {path.name: path.read_bytes() for path in killed.glob("*.mp4")}
        figures = {
            "items": given.items,
            "kills": kills,
            "results": len(contents),
            "readable": len(readable),
            "distinct": len({frames.tobytes() for frames in readable}),
            "made_twice": remade,
            "same_as_undisturbed": sum(
                content == (whole / file).read_bytes() for file, content in contents.items()
            ),
            "left_over": len(list(killed.iterdir())) - len(contents) - 1,
            "undisturbed_seconds": round(whole_seconds, 1),
            "ursa": ursa_core.__version__,
        }
        print(json.dumps(figures))
        counts = ("results", "readable", "distinct", "same_as_undisturbed")
        is_kept = all(figures[count] == given.items for count in counts)
        sys.exit(not (is_kept and kills == given.kills and remade == figures["left_over"] == 0))


if __name__ == "__main__":
    main()
