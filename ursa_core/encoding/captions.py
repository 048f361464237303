"""Captions of media files: a text file next to each, or a metadata table of the folder."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ursa_core.batches.tables import NOT_UTF8, csv_reader, csv_rows, is_utf8, json_rows
from ursa_core.errors import DataError, unreadable
from ursa_core.places import is_address, is_pipe, mirror_of, place_named, regular_file

FILE_COLUMNS = ("file", "file_name", "path")
CAPTION_COLUMNS = ("caption", "text", "prompt", "captions", "short_caption", "long_caption")
MANIFEST_SUFFIXES = (".jsonl", ".csv")
STDIN = Path("/dev/stdin")
MAX_WRONG_ROWS = 5  # more, without a right one, are reported once, as a wrong table

_EXAMPLE = """{"file": "a.mp4", "caption": "a boat"}"""
_COLUMNS_HINT = (
    f"give each row one of the columns {', '.join(FILE_COLUMNS)} and one of "
    f"{', '.join(CAPTION_COLUMNS)}"
)


@dataclass(frozen=True)
class Metadata:
    """Content of a folder's table."""

    captions: dict[Path, tuple[str, ...]] = field(default_factory=dict)  # by media path
    faults: dict[Path, DataError] = field(default_factory=dict)  # or by `TABLE:LINE` without one
    stray: Path | None = None  # such a row: a file without captions may be the one it means


def read_caption_file(media: Path) -> tuple[str, ...]:
    """Captions from the ``.txt`` next to a media file, one per line; none without such a file."""
    texts = (media.with_suffix(suffix) for suffix in (".txt", ".TXT"))
    path = next((text for text in texts if text.is_file()), None)
    lines = _read_text(path).split("\n") if path else []
    for number, line in enumerate(lines, start=1):
        if not is_utf8(line):
            fault, hint = NOT_UTF8
            raise DataError(f"{path}:{number}: {fault}", hint)
    return _clean(lines)


def read_metadata(folder: Path) -> Metadata:
    """Content of a folder's ``metadata.jsonl`` or ``metadata.csv``, empty without one."""
    names = {f"metadata{suffix}" for suffix in MANIFEST_SUFFIXES}
    found = folder.glob("[mM]*.*[lLvV]")  # any case, on any file system
    tables = sorted(p for p in found if p.name.lower() in names and p.is_file())
    if len(tables) > 1:
        both = " and ".join(table.name for table in tables)
        raise DataError(f"{folder} has both {both}", "keep the one that is right")
    return read_manifest(tables[0], must_be_inside=True) if tables else Metadata()


def read_manifest(table: Path, *, must_be_inside: bool = False) -> Metadata:
    """Captions by media path from a ``.jsonl`` or ``.csv`` file, in the order of its rows.

    A row names its file in one of ``FILE_COLUMNS``, relative to the table's folder, and its
    captions in ``CAPTION_COLUMNS``: a string, or in JSON a list of strings. Further rows of a file
    add captions. Faulty rows are named in the result; if all are, it is a DataError. A pipe is JSON
    lines if it begins with ``{``.
    """
    folder = Path() if is_stream(table) else table.parent
    captions: dict[Path, tuple[str, ...]] = {}
    faults: dict[Path, DataError] = {}
    stray: Path | None = None
    text = _read_text(table)
    is_json = text.lstrip()[:1] == "{" if is_stream(table) else table.suffix.lower() == ".jsonl"
    in_csv = None if is_json else csv_rows(csv_reader(io.StringIO(text)))
    for line, row in in_csv or json_rows(text.split("\n"), _EXAMPLE):
        place = Path(f"{table}:{line}")
        media: Path | None = None
        try:
            if isinstance(row, DataError):
                raise row
            name = _row_file(row, must_be_inside)
            media = mirror_of(name) if is_address(name) else folder / name
            captions[media] = captions.get(media, ()) + _row_captions(row)
        except DataError as error:
            faults[media or place] = DataError(f"{place}: {error.message}", error.hint)
            stray = stray if media else stray or place
    place_named(captions)
    if len(faults) > MAX_WRONG_ROWS and not captions:
        first = next(iter(faults.values()))
        raise DataError(f"no row of {table} is right; {first.message}", first.hint)
    return Metadata(captions, faults, stray)


def is_stream(table: Path) -> bool:
    """Whether a list is a pipe or standard input, with paths relative to the working folder."""
    return table == STDIN or (table.suffix not in MANIFEST_SUFFIXES and is_pipe(table))


def _row_file(row: Mapping[str, Any], must_be_inside: bool) -> str:
    """File name of a row; a DataError says what is wrong with it."""
    name = next((row[c] for c in FILE_COLUMNS if row.get(c) is not None), None)
    if not isinstance(name, str) or not name.strip():
        raise DataError("no file name", _COLUMNS_HINT)
    if "\0" in name:
        raise DataError("the file name holds what no text does", _COLUMNS_HINT)
    if must_be_inside and (Path(name).is_absolute() or ".." in Path(name).parts):
        raise DataError(f"{name!r} lies outside the folder", _COLUMNS_HINT)
    return name


def _row_captions(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Captions of a row; a DataError says what is wrong with them."""
    given = {column: row[column] for column in CAPTION_COLUMNS if column in row}
    if not given:
        raise DataError(f"no caption (columns: {', '.join(map(str, row))})", _COLUMNS_HINT)
    captions: list[str] = []
    for column, value in given.items():
        values = [v for v in (value if isinstance(value, list) else [value]) if v is not None]
        if not all(isinstance(caption, str) for caption in values):
            raise DataError(f"{column} is neither a text nor a list of texts", _COLUMNS_HINT)
        captions += values
    return _clean(captions)


def _read_text(path: Path) -> str:
    """The file's text, to be split at line feeds; bytes that aren't UTF-8 become surrogates."""
    try:
        file = regular_file(path, or_pipe=True)
        return file.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise unreadable(path, error, "make it readable") from error


def _clean(captions: list[str]) -> tuple[str, ...]:
    stripped = (caption.strip() for caption in captions)
    return tuple(dict.fromkeys(caption for caption in stripped if caption))
