"""Prepared emoji and film as one small file, to carry to another machine, and back.

Pillow alone reads it: a zip of the tables, of an AVIF animation per subject and one per stretch of
film. An animation has no alpha: a sprite's colours, multiplied by its alpha, stand above the alpha
as gray, which takes a third of the bytes of AVIF's own alpha.
"""

import io
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pixel_packs import write_array

from ursa_core.bundle.subjects import SUBJECTS_FILE
from ursa_core.errors import DataError, unwritable
from ursa_core.worlds.sprites import (
    FILM,
    FILM_TABLE,
    FPS,
    SPRITE_TABLE,
    SPRITES,
    load_film,
    load_sprites,
)

FILM_FRAMES = 240
"""Frames of film in one animation."""
MOST_BYTES = 12_000_000


def carry_pixels(folder: Path, file: Path, quality: int, *, with_film: bool) -> int:
    """Write a prepared folder as one file; its bytes.

    Args:
        folder: Prepared emoji and film.
        file: File to write.
        quality: Of AVIF, 0 to 100.
        with_film: Take the film too.

    Raises:
        DataError: Something is missing or damaged, or the file can't be written.
    """
    sprites = load_sprites(folder)
    tables = [SUBJECTS_FILE, SPRITE_TABLE, *([FILM_TABLE] if with_film else [])]
    try:
        with zipfile.ZipFile(file, "w") as packed:
            for number in range(len(sprites.subjects)):
                frames = _stacked(sprites.loop(number))
                packed.writestr(f"sprite-{number:04d}.avif", _animation(frames, quality))
            if with_film:
                film = load_film(folder).frames
                for begin in range(0, len(film), FILM_FRAMES):
                    frames = np.asarray(film[begin : begin + FILM_FRAMES])
                    packed.writestr(f"film-{begin:06d}.avif", _animation(frames, quality))
            for table in tables:
                packed.write(folder / table, table)
    except OSError as error:
        file.unlink(missing_ok=True)
        raise unwritable(file, error) from error
    return file.stat().st_size


def restore_pixels(file: Path, out: Path) -> bool:
    """Write the prepared folder that `carry_pixels` made a file of; whether it has film.

    Raises:
        DataError: The file is missing or damaged, or the folder can't be written.
    """
    try:
        with zipfile.ZipFile(file) as packed:
            names = sorted(packed.namelist())
            sprites = (packed.read(name) for name in names if name.startswith("sprite-"))
            loops = [_unstacked(frame) for data in sprites for frame in _frames(data)]
            film = [packed.read(name) for name in names if name.startswith("film-")]
            write_array(out / SPRITES, np.stack(loops))
            if film:
                write_array(out / FILM, np.stack([f for data in film for f in _frames(data)]))
            for table in (SUBJECTS_FILE, SPRITE_TABLE, *([FILM_TABLE] if film else [])):
                packed.extract(table, out)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{file} can't be read: {error}", "make it again with recipes/emoji_data.py carry"
        ) from error
    load_sprites(out)
    return bool(film) and bool(load_film(out).shots)


def _animation(frames: Iterable[NDArray[np.uint8]], quality: int) -> bytes:
    """An AVIF animation of RGB frames."""
    first, *others = [Image.fromarray(frame) for frame in frames]
    held = io.BytesIO()
    options = {"quality": quality, "speed": 6, "duration": round(1000 / FPS)}
    first.save(held, "AVIF", save_all=True, append_images=others, **options)
    return held.getvalue()


def _frames(data: bytes) -> Iterator[NDArray[np.uint8]]:
    """RGB frames of an AVIF animation."""
    with Image.open(io.BytesIO(data)) as image:
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            yield np.asarray(image.convert("RGB"))


def _stacked(loop: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGBA (F, S, S, 4) as RGB (F, 2S, S, 3)."""
    alpha = loop[..., 3:].astype(np.uint16)
    above = (loop[..., :3] * alpha + 127) // 255
    below = np.broadcast_to(alpha, above.shape)
    return np.concatenate([above, below], 1).astype(np.uint8)


def _unstacked(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB (2S, S, 3) as RGBA (S, S, 4)."""
    side = len(frame) // 2
    alpha = frame[side:].mean(-1, keepdims=True)
    # What lossy compression leaves of empty places is none.
    alpha = np.where(alpha < 6, 0, np.where(alpha > 249, 255, alpha))
    colours = frame[:side] * (255 / np.maximum(alpha, 1))
    return np.concatenate([colours, alpha], 2).clip(0, 255).round().astype(np.uint8)
