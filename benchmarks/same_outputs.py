"""Compare what two checkouts compute, command by command, in one run on one machine.

    git worktree add ../before COMMIT
    python benchmarks/same_outputs.py ../before .

Runs the commands below in both, with `nano` in float32 on one CPU thread and all options
explicit, and compares every file that they leave: codes, token shards, verdicts, manifests,
reports, recipes, frames and the metadata inside them. Keys renamed between the two stand in
``RENAMED``; times and versions are left out. Prints one line per file and exits with 1 if any
differs.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from safetensors import safe_open

from ursa_core.media import read_media

RENAMED: dict[str, str] = {}
"""Old keys of manifests, reports and metadata, and what they are called now."""
VOLATILE = ("seconds", "time", "started", "date", "version", "ursa", "mtime_ns", "peak_bytes")
TOKENIZE = "--model nano --device cpu"
HOW = (
    "--model nano --device cpu --dtype float32 --steps 6 --guidance 2 --guidance-interval 0:1"
    " --solver integrated --shift 3 --temperature 1 --top-p 1 --fps 8 --seed 11"
)
PROMPT = '"a red circle moves right on a navy background"'
OTHER = '"a blue square spins on a brown background"'
COMMANDS = [
    f"sample {PROMPT} -o text.mkv {HOW} --frames 9 --size 64x64 --save-tokens text.safetensors",
    f"sample {OTHER} -o still.png {HOW} --frames 1 --size 64x64",
    *(
        f"sample {OTHER} -o image_{cond}.mkv {HOW} --frames 9 --size 64x64 --image still.png"
        f" --cond {cond} --cond-noise {noise} --save-tokens image_{cond}.safetensors"
        for cond, noise in (("lock", 0), ("soft", 0.1))
    ),
    f"sample {OTHER} -o edit.mkv {HOW} --video text.mkv --frames 9 --strength 0.6",
    f"sample {PROMPT} -o several {HOW} --frames 5 --num 2 --force",
    *(
        f"extend text.mkv {OTHER} -o longer_{cond}.mkv {HOW} --frames 21 --overlap 5"
        f" --cond {cond} --cond-noise {noise}"
        for cond, noise in (("lock", 0), ("soft", 0.1))
    ),
    *(
        f"interpolate {OTHER} -o between_{cond}.mkv {HOW} --first still.png --last still.png"
        f" --frames 9 --size 64x64 --cond {cond} --cond-noise {noise}"
        for cond, noise in (("lock", 0), ("soft", 0.1))
    ),
    "sample --replay text.mkv -o again.mkv --device cpu --dtype float32",
    f"sample --from-file prompts.txt -o batch {HOW} --frames 5 --size 64x64 --batch-size 2",
    f"tokenize clips -o shards {TOKENIZE} --clips chunk --frames 5 --size 64x64 --fps 8",
    f"tokenize shapes:train --num 3 --seed 1 -o shapes {TOKENIZE}",
    f"tokenize text.mkv -o film.safetensors {TOKENIZE} --frames 9",
    "tokenize --decode film.safetensors -o back.mkv --model nano --device cpu",
    f"eval shapes -o scores --limit 4 {HOW} --frames 9 --batch-size 2",
    "eval reconstruction text.mkv -o reconstruction --model nano --device cpu",
    "calibrate-path --tokenizer nano -o calibration --alpha 0.5:1:2 --c 2:4:2",
    "models show nano --json",
]


def run(checkout: Path, folder: Path) -> None:
    """Run all commands of a checkout in a folder; what they print to stdout is left there, too."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(checkout.resolve()),
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
    }
    for number, line in enumerate(COMMANDS):
        command = [sys.executable, "-m", "ursa_cli", *shlex.split(line)]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            sys.exit(f"{checkout}: ursa {line}\n{done.stderr}")
        (folder / f"stdout_{number:02d}.txt").write_text(done.stdout, encoding="utf-8")


def prepare(folder: Path) -> None:
    """Write what the commands read."""
    folder.joinpath("prompts.txt").write_text("\n".join(shlex.split(f"{PROMPT} {OTHER}")))
    clips = folder / "clips"
    clips.mkdir()
    columns, rows = np.meshgrid(np.arange(80), np.arange(72))
    frames = [
        Image.fromarray(
            np.stack([(columns * 3 + 7 * t) % 256, rows * 3, columns + rows], -1).astype("u1")
        )
        for t in range(12)
    ]
    for name, kept in (("a.gif", frames), ("b.gif", frames[5:])):
        kept[0].save(clips / name, save_all=True, append_images=kept[1:], duration=125)
        clips.joinpath(name).with_suffix(".txt").write_text(f"stripes {name}")


def plain(value: Any, folder: Path) -> Any:
    """A value of JSON with today's keys, without what changes from run to run."""
    if isinstance(value, dict):
        kept = {RENAMED.get(key, key): each for key, each in value.items()}
        return {
            key: plain(each, folder)
            for key, each in sorted(kept.items())
            if not any(word in key for word in VOLATILE)
        }
    if isinstance(value, list):
        return [plain(each, folder) for each in value]
    return value.replace(str(folder), "") if isinstance(value, str) else value


def content(file: Path, folder: Path) -> Any:
    """What a file holds, in a form that can be compared."""
    if file.suffix == ".safetensors":
        with safe_open(file, "np") as opened:
            header = {key: _parsed(text) for key, text in (opened.metadata() or {}).items()}
            arrays = {key: opened.get_tensor(key).tobytes() for key in opened.keys()}  # noqa: SIM118
        return plain(header, folder), arrays
    if file.suffix == ".parquet":
        return plain(pq.read_table(file).to_pylist(), folder)
    if file.suffix == ".json":
        return plain(json.loads(file.read_text()), folder)
    if file.suffix == ".jsonl":
        return [plain(json.loads(line), folder) for line in file.read_text().splitlines()]
    if file.suffix in (".mkv", ".mp4", ".gif", ".png"):
        clip = read_media(file)
        return clip.frames.shape, clip.frames.tobytes(), plain(dict(clip.metadata), folder)
    if file.suffix in (".html", ".svg"):
        return None  # drawn from the report beside it, with versions inside
    return file.read_text(encoding="utf-8", errors="replace").replace(str(folder), "")


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def difference(old: Any, new: Any, place: str = "") -> str:
    """The first place where two contents differ; empty where they are equal."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            if key not in old or key not in new:
                return f"{place}.{key} is only in the {'old' if key in old else 'new'}"
            found = difference(old[key], new[key], f"{place}.{key}")
            if found:
                return found
        return ""
    if isinstance(old, list | tuple) and isinstance(new, list | tuple) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return next((d for k, (a, b) in pairs if (d := difference(a, b, f"{place}[{k}]"))), "")
    return "" if old == new else f"{place}: {str(old)[:80]!r} became {str(new)[:80]!r}"


def main() -> None:
    """Compare two checkouts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    wanted = parser.parse_args()
    folders = [Path(tempfile.mkdtemp(prefix=f"ursa-{name}-")) for name in ("old", "new")]
    for checkout, folder in zip((wanted.old, wanted.new), folders, strict=True):
        prepare(folder)
        run(checkout, folder)
    names = [
        {f.relative_to(at) for at in [folder] for f in at.rglob("*") if f.is_file()}
        for folder in folders
    ]
    num_different = 0
    for name in sorted(names[0] | names[1]):
        if name not in names[0] or name not in names[1]:
            found = f"is only in the {'old' if name in names[0] else 'new'}"
        else:
            found = difference(*(content(folder / name, folder) for folder in folders))
        num_different += bool(found)
        print(f"{'DIFFERENT' if found else 'equal':10}{name}  {found}")
    print(f"{num_different} of {len(names[0] | names[1])} files differ")
    sys.exit(bool(num_different))


if __name__ == "__main__":
    main()
