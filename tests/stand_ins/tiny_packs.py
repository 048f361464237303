"""Packs as recipes/emoji_data.py makes them, of a few coloured discs and two short films."""

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ursa_core.media import write_media

SUBJECTS = [
    ("fox", ["animal", "vixen"], "animals", "1f98a", (240, 120, 20)),
    ("black cat", ["animal", "unlucky"], "animals", "1f408-200d-2b1b", (30, 30, 40)),
    ("cat", ["animal", "pussycat"], "animals", "1f408", (230, 170, 90)),
    ("red heart", ["love"], "smileys", "2764-fe0f", (220, 30, 40)),
    ("airplane", ["jet"], "travel", "2708", (120, 160, 230)),
]
NUM_FRAMES = 12


def write_packs(folder: Path) -> Path:
    """Folder with ``emoji`` and ``film``."""
    emoji, film = folder / "emoji", folder / "film"
    emoji.mkdir(parents=True)
    film.mkdir()
    rows = []
    for place, (name, tags, group, codepoints, colour) in enumerate(SUBJECTS):
        file = f"{name.replace(' ', '-')}.webp"
        frames = [_disc(colour, 12 + 2 * place, number) for number in range(NUM_FRAMES)]
        frames[0].save(
            emoji / file, save_all=True, append_images=frames[1:], duration=125, lossless=True
        )
        row = {"file": file, "name": name, "tags": tags, "group": group}
        rows.append({**row, "codepoints": codepoints, "frames": NUM_FRAMES, "fps": 8})
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (emoji / "metadata.jsonl").write_text(lines)
    for name, count, step in (("bikes", 60, 0), ("long", 96, 2)):
        level = (250 - np.arange(count) * step).astype(np.uint8)
        clip = np.broadcast_to(level[:, None, None, None], (count, 36, 64, 3)).copy()
        write_media(film / f"{name}.mp4", clip, 24.0)
    starts = {"file": "long.mp4", "fps": 24, "frames": 96, "shot_starts": list(range(0, 96, 12))}
    (film / "shots.json").write_text(json.dumps(starts))
    return folder


def _disc(colour: tuple[int, int, int], radius: int, number: int) -> Image.Image:
    """A disc that goes round, so that every frame of the loop differs."""
    angle = 2 * np.pi * number / NUM_FRAMES
    x, y = 32 + 8 * np.cos(angle), 32 + 8 * np.sin(angle)
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    box = (x - radius, y - radius, x + radius, y + radius)
    ImageDraw.Draw(image).ellipse(box, fill=(*colour, 255))
    return image
