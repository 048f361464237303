"""The emoji and film packs decoded to the arrays and tables that ``ursa_core.worlds`` maps."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ursa_core.bundle.folder import read_json, write_json
from ursa_core.bundle.subjects import Subject, save_subjects
from ursa_core.errors import CheckpointError, DataError, unreadable
from ursa_core.files import parse_object, whole
from ursa_core.places import regular_file
from ursa_core.worlds.sprites import (
    FILM,
    FILM_TABLE,
    FPS,
    SPRITE_TABLE,
    SPRITES,
    Film,
    Sprites,
    load_film,
    load_sprites,
)

FIRST_GROUPS = ("animals", "smileys")
"""Groups whose subjects come first."""
HELD_OUT_CLIPS = ("bikes",)
HELD_OUT_SHOTS = 8
"""One shot of a film in this many is held out of training."""


def read_emoji_pack(pack: Path) -> list[tuple[Path, Subject]]:
    """Files and subjects that the ``metadata.jsonl`` of an emoji pack lists.

    Raises:
        DataError: The table is missing or damaged, or lists no subject.
    """
    table = pack / "metadata.jsonl"
    try:
        lines = regular_file(table).read_text(encoding="utf-8").split("\n")
        rows = [parse_object(line) for line in lines if line]
        found = [
            (pack / row["file"], Subject(row["name"], tuple(row["tags"]), row["group"], text))
            for row in rows
            for text in ["".join(chr(int(code, 16)) for code in row["codepoints"].split("-"))]
        ]
    except OSError as error:
        raise unreadable(table, error, "give a folder of emoji") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{table} is no table of emoji: {error}", "rebuild the pack") from error
    if not found:
        raise DataError(f"{table} lists no emoji", "rebuild the pack")
    return found


def prepare_sprites(
    pack: Path,
    out: Path,
    side: int,
    limit: int | None = None,
    on_done: Callable[[int, int], None] = lambda *_: None,
) -> Sprites:
    """Decode the most distinct subjects of an emoji pack into ``out``.

    Args:
        pack: Folder with ``metadata.jsonl`` and its animations.
        out: Folder to write to.
        side: Side of the sprites in pixels.
        limit: Number of subjects; None takes all.
        on_done: Callback with the numbers of subjects decoded and in all.

    Raises:
        DataError: The pack can't be read, or the folder can't be written.
    """
    found = read_emoji_pack(pack)
    chosen = _most_distinct(found, limit or len(found))
    loops = []
    for number, (file, _) in enumerate(chosen, 1):
        loops.append(np.stack(list(_frames_of(file, side))))
        on_done(number, len(chosen))
    starts = [0, *np.cumsum([len(loop) for loop in loops]).tolist()]
    write_array(out / SPRITES, np.concatenate(loops))
    save_subjects(out, [subject for _, subject in chosen])
    write_json(out / SPRITE_TABLE, {"starts": starts})
    return load_sprites(out)


def prepare_film(pack: Path, out: Path, height: int) -> Film:
    """Decode a film pack into ``out``, 8 frames per second.

    ``shots.json`` lists where the shots of one file begin; other films are one shot each.

    Args:
        pack: Folder of films and ``shots.json``.
        out: Folder to write to.
        height: Height of the frames in pixels; all are cropped to 16:9.

    Raises:
        DataError: A film can't be read, or the folder can't be written.
    """
    from ursa_core.media import read_media, resize_and_crop

    cut_file, given_starts, cut_fps = _read_shots(pack / "shots.json")
    width = 2 * round(height * 8 / 9)
    parts: list[NDArray[np.uint8]] = []
    shots: list[dict[str, Any]] = []
    done = 0
    for file in sorted(pack.glob("*.mp4")):
        frames = resize_and_crop(read_media(file, fps=FPS).frames, height, width)
        # A sampled frame may lie just before a cut, so a shot begins at the next one.
        cuts = [int(np.ceil(start * FPS / cut_fps)) for start in given_starts]
        starts = [cut for cut in cuts if cut < len(frames)] if file.name == cut_file else [0]
        for number, (start, stop) in enumerate(
            zip(starts, [*starts[1:], len(frames)], strict=True)
        ):
            held_out = file.stem in HELD_OUT_CLIPS or (
                len(starts) > 1 and number % HELD_OUT_SHOTS == HELD_OUT_SHOTS // 2
            )
            span = {"start": done + start, "stop": done + stop}
            shots.append({**span, "held_out": held_out, "clip": file.stem})
        parts.append(frames)
        done += len(frames)
    if not parts:
        raise DataError(f"no mp4 film in {pack}", "rebuild the pack")
    write_array(out / FILM, np.concatenate(parts))
    write_json(out / FILM_TABLE, {"shots": shots})
    return load_film(out)


def _read_shots(table: Path) -> tuple[str, list[int], float]:
    """File, first frames of its shots, and its rate; no file without a table."""
    if not table.is_file():
        return "", [], FPS
    try:
        content = read_json(table)
        return str(content["file"]), [int(s) for s in content["shot_starts"]], content["fps"]
    except (CheckpointError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{table} is no table of shots", "rebuild the pack") from error


def _most_distinct(found: Sequence[tuple[Path, Subject]], count: int) -> list[tuple[Path, Subject]]:
    """``count`` entries, each unlike all before it; ``FIRST_GROUPS`` and short names come first."""
    first = [number for number, (_, s) in enumerate(found) if s.group in FIRST_GROUPS]
    rest = [number for number, (_, s) in enumerate(found) if s.group not in FIRST_GROUPS]
    looks = np.stack([_look(file) for file, _ in found])
    # People ask for short names: of two equally distinct, the fox before the fox with a hat.
    ease = np.array([len(subject.name.split()) ** -0.25 for _, subject in found])
    nearest = np.linalg.norm(looks - looks.mean(0), axis=1)
    order: list[int] = []
    for group in (first, rest):
        left = list(group)
        while left and len(order) < count:
            pick = max(left, key=lambda number: nearest[number] * ease[number])
            distance = np.linalg.norm(looks - looks[pick], axis=1)
            nearest = np.minimum(nearest, distance) if order else distance
            order.append(pick)
            left.remove(pick)
    return [found[number] for number in order]


def _look(file: Path) -> NDArray[np.float64]:
    """First frame as 16×16 premultiplied RGBA, flat."""
    pixels = next(_frames_of(file, 16)).astype(np.float64)
    return np.asarray(
        np.concatenate([pixels[..., :3] * pixels[..., 3:] / 255, pixels[..., 3:]], 2).ravel()
    )


def _frames_of(file: Path, side: int) -> Iterator[NDArray[np.uint8]]:
    """Frames uint8 (side, side, 4) of an animation."""
    try:
        with Image.open(regular_file(file)) as image:
            for number in range(getattr(image, "n_frames", 1)):
                image.seek(number)
                rgba = image.convert("RGBA")
                yield np.asarray(rgba.resize((side, side), Image.Resampling.LANCZOS))
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise unreadable(file, error, "rebuild the pack") from error


def write_array(file: Path, array: NDArray[np.uint8]) -> None:
    """Write an array that training maps, whole or not at all.

    Raises:
        DataError: The file can't be written.
    """
    with whole(file) as part:
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as opened:
            np.save(opened, array)
