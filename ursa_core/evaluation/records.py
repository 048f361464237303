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
    """What ``write_record`` wrote, as a dataclass.

    Args:
        path: File to read.
        kind: Dataclass; keys beyond its fields are ignored.
        what: Name of the record for messages.
        hint: What the user can do about a record that can't be used.

    Raises:
        DataError: The file is missing, damaged, another one or of another version.
    """
    try:
        text = regular_file(path).read_text(encoding="utf-8")
        content = files.parse_json(text)
    except FileNotFoundError as error:
        raise DataError(f"there is no {what} {path}", hint) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no {what} of ursa eval", hint) from error
    except (OSError, ValueError) as error:
        raise unreadable(path, error, hint) from error
    if not isinstance(content, dict) or "format" not in content:
        raise DataError(f"{path} is no {what} of ursa eval", hint)
    if content["format"] != FORMAT:
        found = content["format"]
        raise DataError(f"{path} has format {found}, this version reads {FORMAT}", hint)
    try:
        return TypeAdapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        place = ".".join(map(str, fault["loc"]))
        raise DataError(f"{path} is damaged: {place}: {fault['msg']}", hint) from error
