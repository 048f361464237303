"""Lists of items: a text per line, JSON lines, or CSV; every fault is named by its line."""

import csv
import difflib
import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from ursa_core.batches.tables import BLANK, NOT_UTF8, Rows, csv_reader, csv_rows, is_utf8, json_rows
from ursa_core.errors import DataError, UrsaError, UsageError, unreadable
from ursa_core.places import is_pipe, regular_file

SUFFIXES = (".txt", ".jsonl", ".csv")
STDIN = "-"
MAX_CHECKED_FIRST = 10_000
"""Lines of a list that is checked as a whole before anything is made; longer ones while they are
made."""

Columns = Mapping[str, type]
"""What a line may give: its name, and str, int, float, bool or list (of texts)."""


@dataclass(slots=True)
class Line:
    """An item: its line in the file, from 1, its index among all items, from 0, what it gives."""

    number: int
    index: int
    given: dict[str, Any]


@dataclass(frozen=True)
class Fault:
    """What is wrong with a line, and what to do."""

    number: int
    reason: str
    hint: str


@dataclass(frozen=True)
class ItemList:
    """A list of ``num`` items, read whenever it is iterated over: each, or what is wrong."""

    source: str
    num: int
    _rows: Callable[[], Rows]
    _columns: Columns

    def __iter__(self) -> Iterator[Line | Fault]:
        for index, (number, row) in enumerate(self._rows()):
            try:
                if isinstance(row, DataError):
                    raise row
                yield Line(number, index, _checked(row, self._columns))
            except UrsaError as error:
                yield Fault(number, error.message, error.hint)

    @property
    def faults(self) -> list[Fault]:
        """What is wrong with its lines."""
        return [each for each in self if isinstance(each, Fault)]


def read_list(
    source: str, columns: Columns, stdin: Callable[[], bytes], text: str | None = "prompt"
) -> ItemList:
    """The items of a list.

    A line of a ``.txt`` is one column's text. A ``.jsonl`` has an object per line and a ``.csv``
    begins with the names of its columns; both may give any of the columns, and null or an empty
    field gives nothing. Standard input and pipes without such a suffix are as a ``.txt``, or JSON
    lines if they begin with ``{``. The source ``-`` is standard input, which ``stdin`` reads to its
    end; a line of a ``.txt`` gives the column ``text``, unless None says that it isn't enough.
    UsageError for a file of another kind; DataError for one that can't be read, is no UTF-8 text,
    is empty, or has unknown CSV columns.
    """
    name, suffix = "standard input" if source == STDIN else source, Path(source).suffix.lower()
    is_stream = source == STDIN or is_pipe(Path(source))
    if not is_stream and suffix not in SUFFIXES:
        hint = f"use {', '.join(SUFFIXES)}, or {STDIN} for standard input"
        raise UsageError(f"{source} is no list of items", hint)
    try:
        if source == STDIN:
            content = stdin()
        elif is_stream:
            content = regular_file(Path(source), or_pipe=True).read_bytes()
        else:
            with regular_file(Path(source)).open("rb") as file:
                content = file.read(1 << 16)
    except OSError as error:
        raise unreadable(Path(name), error, "check the path") from error
    is_utf16 = 4 * content.count(b"\0") > len(content)  # of English letters every second byte is 0
    if content[:2] in (b"\xff\xfe", b"\xfe\xff") or is_utf16:
        raise DataError(f"{name} is {NOT_UTF8[0]}", NOT_UTF8[1])
    if is_stream and suffix not in SUFFIXES:
        suffix = ".jsonl" if content.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{" else ".txt"

    def opened() -> TextIO:
        # Lines as editors count them: splitlines would also break at characters that texts may
        # hold. Bytes that are no UTF-8 become lone surrogates, which no UTF-8 text holds.
        binary = io.BytesIO(content) if is_stream else Path(source).open("rb")  # noqa: SIM115
        return io.TextIOWrapper(binary, "utf-8-sig", "surrogateescape")

    if suffix == ".txt" and text is None:
        example = ", ".join(f'"{column}": …' for column in list(columns)[:2])
        hint = f"write JSON lines, as {{{example}}}, or CSV"
        raise UsageError(f"{name} has a text per line, which isn't enough", hint)

    def rows() -> Rows:
        with opened() as file:
            if suffix == ".csv":
                reader = csv_reader(file)
                _check_header(name, reader, columns)
                yield from csv_rows(reader)
            elif suffix == ".txt" and text is not None:
                yield from _texts(file, text)
            else:
                yield from json_rows(file, f'{{"{next(iter(columns))}": "…", "seed": 3}}')

    with opened() as listed:
        full = filter(None, (line.strip(BLANK) for line in listed))
        num = sum(1 for _ in (rows() if suffix == ".csv" else full))
    if not num:
        raise DataError(f"{name} holds no items", "write one a line")
    return ItemList(name, num, rows, columns)


def refuse(source: str, faults: Sequence[Fault]) -> DataError:
    """The error for a list with faults, which states the first of them."""
    first = min(faults, key=lambda fault: fault.number)
    others = len(faults) - 1
    more = "1 more line has a fault" if others == 1 else f"{others} more lines have faults"
    or_leave = " Or leave" if first.hint.endswith("?") else "; or leave"
    return DataError(
        f"{source}, line {first.number}: {first.reason}{f' ({more})' if others else ''}",
        f"{first.hint}{or_leave} such lines out with --skip-bad",
    )


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names the nearest known name, else all of them."""
    known = list(known)
    close = difflib.get_close_matches(name.strip().lower().replace("-", "_"), known, 1)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"


def _texts(file: TextIO, column: str) -> Rows:
    """A text per line that isn't empty."""
    for number, line in enumerate(file, start=1):
        if not is_utf8(line):
            yield number, DataError(*NOT_UTF8)
        elif line.strip(BLANK):
            yield number, {column: line.strip()}


def _check_header(name: str, reader: "csv.DictReader[str]", columns: Columns) -> None:
    """Take spaces off the names of a CSV's columns; DataError for an unknown or repeated one."""
    try:
        header = [field.strip() for field in reader.fieldnames or []]
    except csv.Error as error:
        hint = "quote texts that hold commas"
        raise DataError(f"{name}, line 1: not CSV: {error}", hint) from error
    for field in header:
        if field not in columns:
            fault = f"{name}, line 1: unknown column {field!a}"
            raise DataError(fault, f"{nearest(field, columns)}; the first line names the columns")
        if header.count(field) > 1:
            raise DataError(f"{name}, line 1: the column {field} is there twice", "keep one")
    reader.fieldnames = header


def _checked(row: Mapping[str, Any], columns: Columns) -> dict[str, Any]:
    """What a row gives, in the types of the columns; UsageError for others."""
    if unknown := [column for column in row if column not in columns]:
        raise UsageError(f"unknown option {unknown[0]!a}", nearest(unknown[0], columns))
    given = ((column, value) for column, value in row.items() if value is not None)
    return {column: _converted(column, value, columns[column]) for column, value in given}


def _converted(column: str, value: object, kind: type) -> object:
    if kind is list:
        texts = value if isinstance(value, list) else [value]
        if texts and all(isinstance(text, str) for text in texts):
            return [_converted(column, text, str) for text in texts]
    elif kind is str and isinstance(value, str):
        if "\0" in value:
            raise UsageError(f"{column} holds a NUL character", "delete that character")
        return value
    elif kind is bool:
        switch = {"true": True, "false": False}.get(str(value).strip().lower())
        if switch is not None:
            return switch
    elif kind is not str and isinstance(value, int | float | str) and not isinstance(value, bool):
        with suppress(ValueError, OverflowError):
            number = kind(value)
            if number == value or (isinstance(value, str) and not math.isnan(number)):
                return number
    words = {
        str: "a text", int: "a whole number", float: "a number", bool: "true or false",
        list: "a text, or a list of texts",
    }  # fmt: skip
    raise UsageError(f"{column} can't be {value!a}", f"give {words[kind]}")
