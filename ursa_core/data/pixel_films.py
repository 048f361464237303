"""Prepared emoji and film as two small mp4, to carry to another machine, and back to pixels.

An mp4 has no alpha: a sprite's colours, multiplied by its alpha, stand above the alpha as grey.
"""

import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ursa_core.data.packs import (
    FILM,
    FILM_TABLE,
    FPS,
    SPRITE_TABLE,
    SPRITES,
    load_film,
    load_sprites,
    write_array,
)
from ursa_core.errors import DataError
from ursa_core.media import iter_frames, write_media
from ursa_core.subjects import SUBJECTS_FILE

SPRITES_FILM, FILM_FILM = "sprites.mp4", "film.mp4"
_TABLES = (SUBJECTS_FILE, SPRITE_TABLE, FILM_TABLE)


def shrink_pixels(folder: Path, out: Path, crf: int = 18) -> int:
    """Write a prepared folder as films and tables; their bytes.

    Args:
        folder: prepared emoji and film.
        out: folder to write to.
        crf: quality, 0 (lossless) to 51.

    Raises:
        DataError: something is missing or damaged, or the folder can't be written.
    """
    sprites, film = load_sprites(folder), load_film(folder)
    out.mkdir(parents=True, exist_ok=True)
    loops = [sprites.loop(number) for number in range(len(sprites.subjects))]
    write_media(
        out / SPRITES_FILM, np.concatenate([_stack(loop) for loop in loops]), FPS, None, crf
    )
    write_media(out / FILM_FILM, np.asarray(film.frames), FPS, None, crf)
    for table in _TABLES:
        shutil.copyfile(folder / table, out / table)
    return sum(file.stat().st_size for file in out.iterdir())


def restore_pixels(folder: Path, out: Path) -> None:
    """Write the prepared folder that ``shrink_pixels`` made smaller.

    Raises:
        DataError: something is missing or damaged, or the folder can't be written.
    """
    for table in _TABLES:
        if not (folder / table).is_file():
            raise DataError(f"{folder} lacks {table}", "give a folder that `shrink` wrote")
    stacks = np.stack([_unstack(frame) for frame in iter_frames(folder / SPRITES_FILM)])
    write_array(out / SPRITES, stacks)
    write_array(out / FILM, np.stack(list(iter_frames(folder / FILM_FILM))))
    for table in _TABLES:
        shutil.copyfile(folder / table, out / table)
    load_sprites(out)
    load_film(out)


def _stack(loop: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGBA (F, S, S, 4) as RGB (F, 2S, S, 3)."""
    alpha = loop[..., 3:].astype(np.uint16)
    above = (loop[..., :3] * alpha + 127) // 255
    below = np.broadcast_to(alpha, above.shape)
    return np.concatenate([above, below], 1).astype(np.uint8)


def _unstack(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB (2S, S, 3) as RGBA (S, S, 4)."""
    side = len(frame) // 2
    alpha = frame[side:].mean(-1, keepdims=True)
    # What the film's noise leaves of empty places is none.
    alpha = np.where(alpha < 6, 0, np.where(alpha > 249, 255, alpha))
    colours = frame[:side] * (255 / np.maximum(alpha, 1))
    return np.concatenate([colours, alpha], 2).clip(0, 255).round().astype(np.uint8)
