"""Captions of media files: a text file beside each, or one metadata table for a folder."""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ursa_core.errors import DataError

METADATA_NAMES = ("metadata.jsonl", "metadata.csv")
FILE_COLUMNS = ("file", "file_name", "path")
CAPTION_COLUMNS = ("caption", "text", "prompt", "captions")
MAX_SHOWN_FAULTS = 5


def read_caption_file(media: Path) -> tuple[str, ...]:
    """Captions from the ``.txt`` beside a media file, one a line; none without such a file.

    Raises:
        DataError: the file exists but isn't readable UTF-8 text.
    """
    path = media.with_suffix(".txt")
    return _clean(_read_text(path).splitlines()) if path.is_file() else ()


def read_metadata(folder: Path) -> dict[Path, tuple[str, ...]]:
    """Captions by media path (inside ``folder``) from its ``metadata.jsonl`` or ``metadata.csv``.

    A row names its file in the column ``file``, ``file_name`` or ``path``, relative to the folder,
    and its captions in ``caption``, ``text``, ``prompt`` or ``captions``: a string, or in JSON a
    list of strings. Further rows of the same file add captions. A folder without metadata gives
    an empty dict.

    Raises:
        DataError: both tables exist, or rows are faulty; the first faults are named by line.
    """
    tables = [folder / name for name in METADATA_NAMES if (folder / name).is_file()]
    if not tables:
        return {}
    if len(tables) > 1:
        raise DataError(
            f"{folder} has both {' and '.join(METADATA_NAMES)}", "keep the one that is right"
        )
    (table,) = tables
    captions: dict[Path, tuple[str, ...]] = {}
    faults: list[str] = []
    rows = _jsonl_rows(table) if table.suffix == ".jsonl" else _csv_rows(table)
    for line, row in rows:
        if isinstance(row, str):
            faults.append(f"line {line}: {row}")
            continue
        try:
            name, found = _row_captions(row)
        except ValueError as error:
            faults.append(f"line {line}: {error}")
            continue
        captions[folder / name] = captions.get(folder / name, ()) + found
    if faults:
        shown = "; ".join(faults[:MAX_SHOWN_FAULTS])
        more = len(faults) - MAX_SHOWN_FAULTS
        raise DataError(
            f"{table} has faulty rows: {shown}" + (f"; and {more} more" if more > 0 else ""),
            f"give each row one of the columns {', '.join(FILE_COLUMNS)} and one of "
            f"{', '.join(CAPTION_COLUMNS)}",
        )
    return captions


def _row_captions(row: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """File and captions of one row; the ValueError says what is wrong with it."""
    name = next((row[column] for column in FILE_COLUMNS if column in row), None)
    if not isinstance(name, str) or not name.strip():
        raise ValueError("no file name")
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"{name!r} lies outside the folder")
    columns = [column for column in CAPTION_COLUMNS if column in row]
    if not columns:
        raise ValueError(f"no caption for {name!r} (columns: {', '.join(map(str, row))})")
    captions: list[str] = []
    for column in columns:
        value = row[column]
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(caption, str) for caption in values):
            raise ValueError(f"{column} of {name!r} is neither a text nor a list of texts")
        captions += values
    return name, _clean(captions)


def _jsonl_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    """Line numbers with the row, or with what is wrong with the line."""
    # Only "\n" ends a line here: splitlines would break at characters that JSON allows in strings.
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            yield number, f"not JSON ({error})"
            continue
        yield number, row if isinstance(row, dict) else "not a JSON object"


def _csv_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    """Line numbers with the row, or with what is wrong with the line."""
    lines = _read_text(path).splitlines(keepends=True)
    reader = csv.DictReader(lines, strict=True)
    try:
        for row in reader:
            if None in row:
                yield reader.line_num, "more fields than columns (quote texts that hold commas)"
            elif None in row.values():
                yield reader.line_num, "fewer fields than columns"
            else:
                yield reader.line_num, row
    except csv.Error as error:
        yield reader.line_num, f"not CSV ({error})"


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} can't be read: {error}", "save it as UTF-8 text") from error


def _clean(captions: list[str]) -> tuple[str, ...]:
    """Captions without white space around them, empty ones and repeats left out."""
    stripped = (caption.strip() for caption in captions)
    return tuple(dict.fromkeys(caption for caption in stripped if caption))
