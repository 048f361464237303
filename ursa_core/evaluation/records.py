"""What evaluations keep as JSON: objects with a format number, which pydantic checks."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from ursa_core import files
from ursa_core.errors import DataError, regular_file, unreadable

T = TypeVar("T")

FORMAT = 1
"""Format that this version writes and reads."""


def write_record(path: Path, content: Mapping[str, Any]) -> None:
    """Write an object with the format number, and its folder where there is none."""
    text = json.dumps({"format": FORMAT, **content}, ensure_ascii=False, indent=1)
    files.write(files.make_folder(path.parent) / path.name, text + "\n")


def read_record(path: Path, kind: type[T], what: str, hint: str) -> T:
    """A dataclass of what ``write_record`` wrote; keys beyond its fields are ignored.

    Messages call the record ``what``; ``hint`` is what to do about one that can't be used.

    Raises:
        DataError: The file is missing, damaged, another one or of another version.
    """
    no_record = DataError(f"{path} is no {what} of ursa eval", hint)
    try:
        text = regular_file(path).read_text(encoding="utf-8")
        content = files.parse_json(text)
    except FileNotFoundError as error:
        raise DataError(f"there is no {what} {path}", hint) from error
    except UnicodeDecodeError as error:
        raise no_record from error
    except (OSError, ValueError) as error:
        raise unreadable(path, error, hint) from error
    if not isinstance(content, dict) or "format" not in content:
        raise no_record
    found = content["format"]
    if found != FORMAT:
        raise DataError(f"{path} has format {found}, this version reads {FORMAT}", hint)
    try:
        return TypeAdapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        place = ".".join(map(str, fault["loc"]))
        raise DataError(f"{path} is damaged: {place}: {fault['msg']}", hint) from error
