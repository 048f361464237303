"""Rows of JSON lines and CSV, each with the number of its line, or what is wrong with it."""

import csv
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from ursa_core.errors import DataError
from ursa_core.files import parse_json

NOT_UTF8 = ("not UTF-8 text", "save it as UTF-8 text")
BLANK = " \t\n\r\x0b\x0c"
Rows = Iterator[tuple[int, dict[str, Any] | DataError]]
"""Line numbers from 1, each with its row or the fault of the line. Files are opened with the error
handler ``surrogateescape``, so that bytes that aren't UTF-8 are lone surrogates."""


def is_utf8(text: str) -> bool:
    """Whether a text has no surrogates, which stand for bytes that aren't UTF-8."""
    try:
        text.encode()  # far faster than a look at each character
    except UnicodeEncodeError:
        return False
    return True


def json_rows(lines: Iterable[str], example: str) -> Rows:
    """An object per line; empty lines are left out."""
    hint = f"write one object a line, as {example}"
    for number, line in enumerate(lines, start=1):
        if not is_utf8(line):
            yield number, DataError(*NOT_UTF8)
        elif line.strip(BLANK):
            try:
                row = parse_json(line)
            except ValueError as error:
                row = DataError(f"not JSON: {error}", hint)
            is_row = isinstance(row, dict | DataError)
            yield number, row if is_row else DataError("not a JSON object", hint)


def csv_reader(file: TextIO) -> "csv.DictReader[str]":
    """Reader of a CSV; semicolons, as in half of Europe, or tabs may stand for the commas."""
    delimiter = max(",;\t", key=file.readline().count)
    file.seek(0)
    return csv.DictReader(file, strict=True, delimiter=delimiter)


def csv_rows(reader: "csv.DictReader[str]") -> Rows:
    """A text per column, None for an empty one; lines are those on which rows begin."""
    hint, last = "give one field a column, and quote texts that hold commas", 0
    try:
        last = reader.line_num if reader.fieldnames else 0
        for row in reader:
            number, last = last + 1, reader.line_num
            if None in row or None in row.values():
                yield number, DataError("another number of fields than columns", hint)
            elif not is_utf8("".join(row.values())):
                yield number, DataError(*NOT_UTF8)
            else:
                yield number, {column: text or None for column, text in row.items()}
    except csv.Error as error:
        yield last + 1, DataError(f"not CSV: {error}; the rest isn't read", hint)
