"""Whether two checkouts of this project write and print the same.

    python benchmarks/same_outputs.py OLD NEW [--keep FOLDER]

Runs the same commands in both, with `nano`, on films and lists that it makes itself, and compares
all that they print to stdout and every file that they leave: codes, pixels, metadata, shards,
manifests and reports, each read without the project's own code. Keys are compared by name, whatever
their order. `extend` and `interpolate` save no codes, so the frames decoded from them are compared,
in a lossless file. Not compared are stderr, `report.html` and the bytes of files.

Where NEW has other names on purpose, state them in `RENAMED` and `RENAMED_OPTIONS`. Prints a line a
thing, with its first difference. The exit code is 1 if anything differs or a command of OLD fails.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageSequence
from safetensors import safe_open

RENAMED: dict[str, str] = {}
"""Name in OLD -> name in NEW: of keys of JSON and metadata, of columns, of files and folders."""

RENAMED_OPTIONS: dict[str, str] = {}
"""Word of a command below -> what NEW is given instead."""

DROPPED = {
    *("time", "seconds"),
    *("ursa", "python", "platform"),
    *("flops", "float32", "bfloat16", "bfloat16_faster"),  # what `info` measures
    "samples",  # in scores.json a digest of sizes, which the length of metadata changes
}
"""Keys whose numbers and texts aren't compared; objects and lists of these names are."""

SAMPLING = (
    "--model nano --device cpu --dtype float32 --seed 3 --size 64x64 --fps 8 --crf 18 --steps 3"
    " --guidance 2 --guidance-interval 0:0.9 --solver integrated --shift 1.5 --temperature 0.9"
    " --top-p 0.95 --json"
)
LOCK, SOFT = "--cond lock --cond-noise 0.1 --fit", "--cond soft --cond-noise 0.3 --fit"

COMMANDS = {
    "sample text": "sample PROMPT -o text.mp4 --frames 9 --save-tokens text.safetensors",
    "sample image, lock": "sample PROMPT --image given/first.png -o lock.gif --frames 9"
    f" --save-tokens lock.safetensors {LOCK}",
    "sample image, soft": "sample PROMPT --image given/first.png -o soft.webp --frames 9"
    f" --save-tokens soft.safetensors {SOFT}",
    "sample video": "sample PROMPT --video given/red.mp4 --strength 0.6 --source-fps 8 -o video.mkv"
    " --frames 9 --save-tokens video.safetensors --fit",
    "sample batch": "sample --from-file prompts.jsonl -o batch --frames 9 --batch-size 2"
    " --save-tokens batch_codes",
    "sample images": "sample OTHER -o image.png --frames 1 --num 2",
    "sample replay": "sample --replay lock.gif -o replay.mp4 --save-tokens replay.safetensors"
    " --json",
    "extend lock": "extend given/red.mp4 PROMPT -o longer_lock.mkv --frames 23 --overlap 5"
    f" --chain tokens --schedule diagonal {LOCK}",
    "extend soft": "extend text.safetensors PROMPT OTHER -o longer_soft.mkv --frames 33 --overlap 5"
    f" --chain pixels --schedule together {SOFT}",
    "extend batch": "extend --from-file clips.jsonl -o longer",
    "interpolate lock": "interpolate PROMPT --first given/first.png --last given/last.png"
    f" -o between_lock.mkv --frames 9 {LOCK}",
    "interpolate soft": "interpolate PROMPT --first given/first.png --keyframe given/last.png@4"
    f" --loop -o between_soft.mkv --frames 9 {SOFT}",
    "interpolate batch": "interpolate --from-file pairs.jsonl -o between --frames 9",
    "tokenize": "tokenize given -o shards --model nano --device cpu --fps 8 --size 64x64"
    " --clips full --check 4 --json",
    "tokenize shapes": "tokenize shapes:train --num 3 --seed 1 -o drawn --model nano --device cpu"
    " --frames 9 --check 1 --json",
    "tokenize film": "tokenize given/red.mp4 -o film.safetensors --model nano --device cpu --fps 8"
    " --frames 9 --size 64x64 --refine 1 --json",
    "tokenize decode": "tokenize --decode film.safetensors -o decoded.mkv --model nano --device cpu"
    " --crf 18 --json",
    "calibrate-path": "calibrate-path --tokenizer nano --tokens shards --alpha 0.5:1.5:3 --c 2:6:3"
    " --shift 1 --shift 3 -o calibration --json",
    "eval shapes": "eval shapes -o shapes --limit 4 --frames 9 --batch-size 2",
    "eval reconstruction": "eval reconstruction given/red.mp4 -o kept --model nano --device cpu"
    " --frames 9 --size 64x64 --limit 1 --json",
    "models show": "models show nano --json",
    "info": "info --json",
}
"""Commands by what they make, in an order in which they may use what earlier ones have made. Those
without `--json` are given `SAMPLING` besides."""

TEXTS = {
    "PROMPT": "a red circle moves right on a navy background",
    "OTHER": "a blue square stays still on a gray background",
}
"""Words of a command that stand for a text."""

LISTS: dict[str, list[dict[str, Any]]] = {
    "prompts.jsonl": [
        {"prompt": TEXTS["PROMPT"], "name": "named.mp4"},
        {"prompt": TEXTS["OTHER"], "seed": 5},
        {"prompt": TEXTS["OTHER"], "image": "given/last.png", "cond": "soft", "steps": 2},
    ],
    "clips.jsonl": [
        {"clip": "given/red.mp4", "prompt": TEXTS["PROMPT"], "frames": 17, "name": "after.mkv"},
        {"clip": "given/blue.gif", "prompts": list(TEXTS.values()), "frames": 33, "before": True},
    ],
    "pairs.jsonl": [
        {"first": "given/first.png", "last": "given/last.png", "name": "pair.mkv"},
        {"first": "given/last.png", "loop": True, "prompt": TEXTS["OTHER"], "cond": "soft"},
    ],
    "given/metadata.jsonl": [
        {"file": "red.mp4", "caption": TEXTS["PROMPT"], "long_caption": TEXTS["OTHER"]},
        {"file": "first.png", "caption": TEXTS["OTHER"]},
    ],
}
"""Content of the files of JSON lines that commands read."""

INPUTS = {name.split("/")[0] for name in LISTS}


def make_inputs(folder: Path) -> None:
    """Two short films, two images, captions and lists, the same for both checkouts."""

    def drawn(k: int, colour: str, background: str) -> Image.Image:
        picture = Image.new("RGB", (64, 64), background)
        ImageDraw.Draw(picture).ellipse((8 + 3 * k, 20, 28 + 3 * k, 40), fill=colour)
        return picture

    given = folder / "given"
    given.mkdir(parents=True)
    drawn(0, "red", "navy").save(given / "first.png")
    drawn(6, "red", "navy").save(given / "last.png")
    blue = [drawn(k, "blue", "gray") for k in range(9)]
    blue[0].save(given / "blue.gif", save_all=True, append_images=blue[1:], duration=120)
    (given / "blue.txt").write_text(f"{TEXTS['OTHER']}\n", encoding="utf-8")
    with av.open(given / "red.mp4", "w") as film:
        stream = film.add_stream("libx264", rate=8, options={"crf": "12"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for k in range(13):
            frame = av.VideoFrame.from_image(drawn(k, "red", "navy"))
            film.mux(stream.encode(frame))
        film.mux(stream.encode())
    for name, rows in LISTS.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / name).write_text(text, encoding="utf-8")


def run_all(checkout: Path, folder: Path, renamed: dict[str, str]) -> dict[str, Any]:
    """Exit code and stdout of each command, run by a checkout in a folder."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("URSA_")}
    env |= {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}

    def python(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, cwd=folder, env=env, capture_output=True, text=True, check=False
        )

    for package in ("ursa_core", "ursa_cli"):
        found = python("-c", f"import {package}; print({package}.__file__)").stdout.strip()
        if not Path(found).is_relative_to(checkout):
            raise SystemExit(f"{checkout} isn't what runs: {package} is {found}")
    printed = {}
    for name, line in COMMANDS.items():
        line = line if line.endswith("--json") else f"{line} {SAMPLING}"
        words = (TEXTS.get(word, renamed.get(word, word)) for word in line.split())
        done = python("-m", "ursa_cli", *words)
        output = done.stdout.replace(str(checkout), "CHECKOUT").replace(str(folder), "FOLDER")
        printed[name] = {"exit code": done.returncode, "stdout": output.splitlines()}
        if done.returncode:
            print(f"{name} by {checkout} failed:\n{done.stderr.strip()}", file=sys.stderr)
    return printed


def of_tokens(file: Path) -> dict[str, Any]:
    """Header and tensors of a token file."""
    with safe_open(file, "numpy") as opened:
        tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
        types = {key: str(tensor.dtype) for key, tensor in tensors.items()}
        values = {key: tensor.tolist() for key, tensor in tensors.items()}
        return {"header": opened.metadata(), "types": types, "tensors": values}


def of_shard(file: Path) -> dict[str, Any]:
    """Columns, rows and metadata of a shard."""
    table = pq.read_table(file)
    header = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    types = {field.name: str(field.type) for field in table.schema}
    return {"header": header, "types": types, "rows": table.to_pylist()}


def of_film(file: Path) -> dict[str, Any]:
    """Metadata, rate and digests of the frames of a film."""
    with av.open(file) as film:
        rate = str(film.streams.video[0].average_rate)
        frames = [digest(frame.to_ndarray(format="rgb24")) for frame in film.decode(video=0)]
        return {"metadata": dict(film.metadata), "rate": rate, "frames": frames}


def of_picture(file: Path) -> dict[str, Any]:
    """Metadata and digests of the frames of a picture or an animation."""
    with Image.open(file) as picture:
        exif = {str(key): value for key, value in picture.getexif().items()}
        info = {key: value for key, value in picture.info.items() if key != "exif"}
        if isinstance(info.get("comment"), bytes):
            info["comment"] = info["comment"].decode()
        pages = ImageSequence.Iterator(picture)
        frames = [[digest(np.asarray(p.convert("RGB"))), p.info.get("duration")] for p in pages]
        return {"metadata": info, "exif": exif, "frames": frames}


def of_text(file: Path) -> Any:
    """A file of JSON, or of JSON lines."""
    text = file.read_text(encoding="utf-8")
    return text.splitlines() if file.suffix == ".jsonl" else json.loads(text)


READERS: dict[str, Callable[[Path], Any]] = {
    ".safetensors": of_tokens,
    ".parquet": of_shard,
    **dict.fromkeys((".mp4", ".mkv"), of_film),
    **dict.fromkeys((".png", ".gif", ".webp"), of_picture),
    **dict.fromkeys((".json", ".jsonl"), of_text),
}


def digest(pixels: np.ndarray) -> str:
    """Shape of a frame, and digits that change with any of its pixels."""
    return f"{pixels.shape} {hashlib.sha256(pixels.tobytes()).hexdigest()[:16]}"


def made_by(folder: Path, printed: dict[str, Any], renamed: dict[str, str]) -> dict[str, Any]:
    """What the commands printed and wrote, by command and by file."""
    files = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    # Files of the same content may differ in bytes, as the order of a token file's header does.
    hashes = {hashlib.sha256(p.read_bytes()).hexdigest(): f"hash of {n}" for n, p in files.items()}

    def plain(value: Any) -> Any:
        """A value with JSON in texts parsed, keys renamed, and without what is dropped."""
        if isinstance(value, str) and value.startswith(("{", "[")):
            with suppress(json.JSONDecodeError):
                value = json.loads(value)
        if isinstance(value, dict):
            pairs = {renamed.get(str(k), str(k)): plain(each) for k, each in value.items()}
            kept = {
                k: v for k, v in pairs.items() if k not in DROPPED or isinstance(v, dict | list)
            }
            return dict(sorted(kept.items()))
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return hashes.get(value, value) if isinstance(value, str) else value

    made = {f"ursa {name}": plain(each) for name, each in printed.items()}
    for name, file in files.items():
        if file.suffix in READERS and name.parts[0] not in INPUTS:
            place = "/".join(renamed.get(part, part) for part in name.parts)
            made[place] = plain(READERS[file.suffix](file))
    return made


def differences(old: Any, new: Any, where: str = "") -> Iterator[str]:
    """Where two values differ, and how."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            place = f"{where}.{key}" if where else key
            if key not in old or key not in new:
                yield f"{place} is in {'OLD' if key in old else 'NEW'} alone"
            else:
                yield from differences(old[key], new[key], place)
    elif isinstance(old, list) and isinstance(new, list):
        for k, (a, b) in enumerate(zip(old, new, strict=False)):
            yield from differences(a, b, f"{where}[{k}]")
        if len(old) != len(new):
            yield f"{where} has {len(old)} and {len(new)} items"
    elif repr(old) != repr(new):  # 1 isn't 1.0 or True, and nan is nan
        yield f"{where}: {old!r:.60} and {new!r:.60}"


def compare(old: Path, new: Path, root: Path) -> bool:
    """Print what is the same and what isn't; return whether all is."""
    folders = [root / "by_old", root / "by_new"]
    make_inputs(root / "inputs")
    for folder in folders:
        shutil.copytree(root / "inputs", folder)  # with times of files, which shards record
    with ThreadPoolExecutor(2) as pool:
        printed = list(pool.map(run_all, (old, new), folders, ({}, RENAMED_OPTIONS)))
    made = [made_by(*each) for each in zip(folders, printed, (RENAMED, {}), strict=True)]
    names = dict.fromkeys([*made[0], *made[1]])
    width = max(map(len, names))
    num_different = 0
    for name in names:
        found = list(differences(*(each.get(name, "nothing") for each in made)))
        num_different += bool(found)
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        print(f"{name:{width}}  {'DIFFERENT  ' + found[0] + more if found else 'equal'}")
    failed = [name for name, each in printed[0].items() if each["exit code"]]
    print(f"{len(names)} things, {num_different} different")
    if failed:  # two failures are equal, but show nothing
        print(f"OLD itself fails: {', '.join(failed)}")
    return not num_different and not failed


def main() -> int:
    """Compare the checkouts, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path, metavar="OLD", help="folder of a checkout")
    parser.add_argument("new", type=Path, metavar="NEW", help="folder of another")
    parser.add_argument("--keep", type=Path, help="new folder to leave what was made in")
    given = parser.parse_args()
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        root = given.keep or Path(scratch)
        root.mkdir(parents=True, exist_ok=not given.keep)
        is_same = compare(given.old.resolve(), given.new.resolve(), root.resolve())
    print(f"{time.perf_counter() - begun:.0f} s")
    return 0 if is_same else 1


if __name__ == "__main__":
    sys.exit(main())
