"""Values of a JSON config, each of the kind that a dataclass gives its field."""

import math
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from typing import TYPE_CHECKING, Any, TypeVar

from ursa_core.errors import CheckpointError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")

LARGEST = 1 << 24
"""Bound of whole numbers: beyond any width, and no product of two leaves 64 bits."""


def read_config(kind: type[T], config: dict[str, Any], file: str) -> T:
    """A dataclass filled with a config's values; those that it lacks keep their defaults.

    Fields may be of the types int, float, bool and tuple[int, ...]. Whole numbers start from the
    ``least`` of the field's metadata, else from 1.

    Args:
        kind: of dataclass.
        config: JSON object; what it has beyond the fields is left alone.
        file: name for messages.

    Raises:
        CheckpointError: a value is missing or of another kind.
    """
    values: dict[str, Any] = {}
    for field in fields(kind):
        if field.name in config:
            values[field.name] = _value(field, config[field.name], file)
        elif field.default is MISSING:
            raise CheckpointError(f"{file} lacks {field.name}", "get the model anew")
    return kind(**values)


def unusable(file: str, key: str, value: object, expected: str) -> CheckpointError:
    """The error for a value of a config that can't be used."""
    return CheckpointError(
        f"{file}: {key} can't be {value!r}", f"give {expected}, or get the model anew"
    )


def _value(field: "Field[Any]", value: object, file: str) -> object:
    least = field.metadata.get("least", 1)

    def is_whole(number: object) -> bool:
        return type(number) is int and least <= number <= LARGEST

    kinds: dict[object, tuple[Callable[[Any], bool], str]] = {
        int: (is_whole, f"a whole number from {least} to {LARGEST}"),
        float: (lambda v: type(v) in (int, float) and 0 < v < math.inf, "a number above 0"),
        bool: (lambda v: type(v) is bool, "true or false"),
        tuple[int, ...]: (
            lambda v: type(v) is list and v != [] and all(map(is_whole, v)),
            f"a list of whole numbers from {least} to {LARGEST}",
        ),
    }
    is_usable, expected = kinds[field.type]
    if not is_usable(value):
        raise unusable(file, field.name, value, expected)
    return tuple(value) if isinstance(value, list) else value
