"""Values of a JSON config, checked by pydantic; errors ask for what a field's description says."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError

from ursa_core.errors import CheckpointError
from ursa_core.places import regular_file

T = TypeVar("T")

PIPELINE_CLASS = "URSAPipeline"
TRANSFORMER_CLASS = "URSATransformer3DModel"
SCHEDULER_CLASS = "KineticOptimalScheduler"
VIDEO_CLASS = "AutoencoderVQCosmos3D"
IMAGE_CLASS = "AutoencoderVQ"
MAX_CODES = 1 << 20  # of a codebook, whose vectors are all held at once
PUBLISHED_LEVELS = (8, 8, 8, 5, 5, 5)
"""FSQ levels of the published video models, whose configs have no field for them."""
GET_AGAIN = "get the model again"
_LFS_POINTER = b"version https://git-lfs"
LARGEST = 1 << 24
"""Bound of whole numbers: above any width, and products of two fit 64 bits."""
MOST = 64  # bound of the length of lists
_MOST_SHOWN = 80


def whole(least: int = 1, most: int = LARGEST) -> Any:
    """Range of a field for whole numbers."""
    return Field(ge=least, le=most, description=f"a whole number from {least} to {most}")


def _wholes(least: int = 1) -> Any:
    return Field(
        min_length=1,
        max_length=MOST,
        description=f"a list of whole numbers from {least} to {LARGEST}, {MOST} at most",
    )


def number(least: float, most: float) -> Any:
    """Range of a field for numbers."""
    return Field(ge=least, le=most, description=f"a number from {least:g} to {most:g}")


Whole = Annotated[int, whole()]
Wholes = Annotated[tuple[Whole, ...], _wholes()]
Levels = Annotated[tuple[Annotated[int, whole(2)], ...], _wholes(2)]
Switch = Annotated[bool, Field(description="true or false")]
Text = Annotated[str, Field(description="a text")]


def read_config(kind: type[T], config: Mapping[str, Any], file: str) -> T:
    """A dataclass with the values of a config, and its defaults for missing ones.

    Other keys are ignored; ``file`` is its name in the CheckpointError for a value that is missing,
    of another type or out of range.
    """
    hints = get_type_hints(kind, include_extras=True)
    given = {key: config[key] for key in hints if key in config}
    try:
        return parsed(kind, given)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        key = str(fault["loc"][0])
        if fault["type"] == "missing":
            raise CheckpointError(f"{file} lacks {key}", GET_AGAIN) from error
        expected = hints[key].__metadata__[-1].description
        raise unusable(file, key, config[key], expected) from error


def parsed(kind: type[T], value: object) -> T:
    """JSON as a type; lists become tuples and whole numbers floats, all else is a ValueError."""
    return _adapter(kind).validate_json(json.dumps(value), strict=True)


_adapter: Any = cache(TypeAdapter)


def unusable(file: str, key: str, value: object, expected: str) -> CheckpointError:
    """The error for an unusable value of a config."""
    shown = repr(value)
    if len(shown) > _MOST_SHOWN:
        shown = f"{shown[:_MOST_SHOWN]}…"
    return CheckpointError(f"{file}: {key} can't be {shown}", f"give {expected}, or {GET_AGAIN}")


def index_of(weights: str) -> str:
    """Name of the file that lists the shards of a file of weights."""
    return f"{weights}.index.json"


def is_pointer(file: Path) -> bool:
    """Whether a file is what Git LFS leaves in the place of one that it hasn't fetched."""
    try:
        with regular_file(file).open("rb") as opened:
            return opened.read(len(_LFS_POINTER)) == _LFS_POINTER
    except OSError:
        return False


def way_out(file: Path) -> str:
    """Hint for a file of a model that is missing or can't be read."""
    if is_pointer(file):
        return "it only points to the file: run `git lfs pull` in the clone, or download the file"
    if file.suffix != ".safetensors" or file.exists():
        return f"{GET_AGAIN}; the file is cut short or altered"
    if "-of-" not in file.name and any(file.parent.glob("diffusion_pytorch_model[.-]*")):
        model = file.parent.parent
        base = "" if (model / "model_index.json").exists() else " --base MODEL"
        return f"other weights are there, so try ursa models convert {model}{base} -o NEW"
    return GET_AGAIN
