"""Values of a JSON config, held by pydantic to the types and ranges of a dataclass.

Fields are of the types below, or ``Annotated`` with ``whole`` or ``number``. The description there
is what a message tells the user to give.
"""

import json
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, TypeVar, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError

from ursa_core.errors import CheckpointError

T = TypeVar("T")

LARGEST = 1 << 24
"""Bound of whole numbers: beyond any width, and no product of two leaves 64 bits."""
MOST = 64
"""Bound of the lengths of lists."""
_MOST_SHOWN = 80


def whole(least: int = 1, most: int = LARGEST) -> Any:
    """Range of a field for whole numbers."""
    return Field(ge=least, le=most, description=f"a whole number from {least} to {most}")


def wholes(least: int = 1) -> Any:
    """Length of a field for lists, whose numbers are from ``least``."""
    return Field(
        min_length=1,
        max_length=MOST,
        description=f"a list of whole numbers from {least} to {LARGEST}, {MOST} at most",
    )


def number(least: float, most: float) -> Any:
    """Range of a field for numbers."""
    return Field(ge=least, le=most, description=f"a number from {least:g} to {most:g}")


Whole = Annotated[int, whole()]
Wholes = Annotated[tuple[Whole, ...], wholes()]
Switch = Annotated[bool, Field(description="true or false")]
Text = Annotated[str, Field(description="a text")]


def read_config(kind: type[T], config: Mapping[str, Any], file: str) -> T:
    """A dataclass filled with a config's values; those that it lacks keep their defaults.

    Args:
        kind: Dataclass.
        config: JSON object; keys beyond the fields are ignored.
        file: Name for messages.

    Raises:
        CheckpointError: A value is missing, of another type or out of range.
    """
    hints = get_type_hints(kind, include_extras=True)
    given = {key: config[key] for key in hints if key in config}
    try:
        # From JSON, where lists become tuples and whole numbers floats, and nothing else is bent.
        adapter = _adapter(kind)  # type: ignore[arg-type]  # all types are hashable
        found: T = adapter.validate_json(json.dumps(given), strict=True)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        key = str(fault["loc"][0])
        if fault["type"] == "missing":
            raise CheckpointError(f"{file} lacks {key}", "get the model anew") from error
        expected = hints[key].__metadata__[-1].description
        raise unusable(file, key, config[key], expected) from error
    return found


@cache
def _adapter(kind: type) -> Any:
    return TypeAdapter(kind)


def unusable(file: str, key: str, value: object, expected: str) -> CheckpointError:
    """The error for a value of a config that can't be used."""
    shown = repr(value)
    if len(shown) > _MOST_SHOWN:
        shown = f"{shown[:_MOST_SHOWN]}…"
    return CheckpointError(
        f"{file}: {key} can't be {shown}", f"give {expected}, or get the model anew"
    )
