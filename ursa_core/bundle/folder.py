"""What a model folder must hold, told from its file names, JSON and safetensors headers alone.

No torch here: a folder is judged before, and far faster than, anything of it is loaded.
"""

import hashlib
import json
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ursa_core import files
from ursa_core.configs import (
    IMAGE_CLASS,
    PIPELINE_CLASS,
    TRANSFORMER_CLASS,
    VIDEO_CLASS,
    index_of,
    way_out,
)
from ursa_core.errors import CheckpointError, regular_file, unreadable
from ursa_core.files import parse_object

SHIPPED = Path(__file__).parents[1] / "shipped"
WEIGHTS = "diffusion_pytorch_model.safetensors"
PARTS = ("transformer", "vae", "scheduler", "tokenizer")
_NETWORKS = ("transformer", "vae")
_NUM_PIECES, _PIECE_BYTES = 64, 1 << 20
CLASSES = {
    "model_index.json": (PIPELINE_CLASS,),
    "transformer/config.json": (TRANSFORMER_CLASS,),
    "vae/config.json": (VIDEO_CLASS, IMAGE_CLASS),
}
"""The files that name a class, and the names that this version reads."""


@dataclass(frozen=True)
class PartSize:
    """Size of one part of a model."""

    file_bytes: int
    parameters: int


@dataclass(frozen=True)
class Layout:
    """The files of one kind of model, as a folder or the hub holds them.

    Args:
        kind: what messages call such a model.
        example: id of one on the hub.
        mark: the file that tells it from other kinds.
        descriptions: patterns of the files that say what the model is.
        weights: patterns of the others that are wanted; never code.
        missing: names that such a model needs and a collection of names lacks.
        check_kind: refuses a folder whose descriptions are those of another kind.
        check: refuses a folder that lacks a part, besides.
    """

    kind: str
    example: str
    mark: str
    descriptions: tuple[str, ...]
    weights: tuple[str, ...]
    missing: Callable[[Collection[str]], list[str]]
    check_kind: Callable[[Path], object]
    check: Callable[[Path], None]

    @property
    def patterns(self) -> tuple[str, ...]:
        """Patterns of all files that are wanted."""
        return self.descriptions + self.weights


def layout_of(names: Collection[str], layouts: Sequence[Layout]) -> Layout:
    """The first layout whose mark is among the names of files; the first of all if none is."""
    return next((layout for layout in layouts if layout.mark in names), layouts[0])


def shipped_models() -> dict[str, Path]:
    """Folders of the models that come with the package, by name."""
    return {p.parent.name: p.parent for p in sorted(SHIPPED.glob("*/model_index.json"))}


def is_folder(path: str | Path) -> bool:
    """Whether a path, of whatever form, is that of a folder."""
    try:
        return Path(path).is_dir()
    except OSError:  # as a name that is too long for any file
        return False


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object of a model folder.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    try:
        return parse_object(regular_file(file).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{file.parent} is not a complete model: {file.name} is missing",
            "give a model folder with model_index.json, transformer/, vae/, scheduler/, tokenizer/",
        ) from error
    except (OSError, ValueError) as error:
        raise unreadable(file, error, way_out(file), CheckpointError) from error


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Write a JSON object, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    files.write(file, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def missing_files(names: Collection[str]) -> list[str]:
    """What the published layout needs and ``names``, paths inside a model, lack."""
    names = set(names)
    missing = [name for name in CLASSES if name not in names]
    missing += [
        f"{part}/{WEIGHTS}"
        for part in _NETWORKS
        if not names & {f"{part}/{WEIGHTS}", f"{part}/{index_of(WEIGHTS)}"}
    ]
    missing += {"scheduler/scheduler_config.json"} - names
    return sorted(missing + missing_of_tokenizer(names, "tokenizer/"))


def missing_of_tokenizer(names: Collection[str], inside: str = "") -> list[str]:
    """What a text tokenizer needs and ``names`` lack.

    Args:
        names: paths inside a model.
        inside: its folder there, with a slash.
    """
    names = {name.removeprefix(inside) for name in names if name.startswith(inside)}
    missing = {"tokenizer_config.json"} - names
    if not {"vocab.json", "merges.txt"} <= names:
        missing |= {"tokenizer.json"} - names
    return [f"{inside}{name}" for name in sorted(missing)]


def check_model(folder: Path) -> None:
    """Refuse a folder that lacks a part of a model, or is a model of another kind.

    Raises:
        CheckpointError: names all that is missing, or the class that isn't known.
    """
    names = file_names(folder)
    missing = missing_files(names)
    for part in _NETWORKS:
        missing += [f"{part}/{name}" for name in missing_shards(folder / part)]
    if missing:
        hints = [way_out(folder / name) for name in missing if name.endswith(WEIGHTS)]
        raise CheckpointError(
            f"{folder} is no whole URSA model, it lacks {listed(missing)}",
            next((hint for hint in hints if hint != "get the model anew"), None)
            or "get the missing files, or give another model",
        )
    check_classes(folder)


def missing_shards(part: Path, weights: str = WEIGHTS) -> list[str]:
    """Names of weight files that a folder's index lists and the folder lacks.

    Raises:
        CheckpointError: the index is damaged.
    """
    return [name for name in _shards(part, weights) if not (part / name).is_file()]


def check_classes(folder: Path) -> None:
    """Refuse a model of another kind.

    Raises:
        CheckpointError: a file of ``CLASSES`` names an unknown class, or is missing or damaged.
    """
    for file, known in CLASSES.items():
        name = read_json(folder / file).get("_class_name")
        if name not in known:
            raise CheckpointError(
                f"{folder} is no URSA model: {file} describes a {name!r}",
                f"this version reads {' and '.join(known)}",
            )


def listed(names: list[str], most: int = 4) -> str:
    """Names in one line, the first few of many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def part_sizes(folder: Path) -> dict[str, PartSize]:
    """Bytes on disk and parameters of each part, without reading a weight.

    Raises:
        CheckpointError: a file of weights is missing or damaged.
    """
    return {part: _part_size(folder / part) for part in PARTS if (folder / part).is_dir()}


def folder_bytes(folder: Path) -> int:
    """Bytes of all files of a model on disk."""
    return sum(file.stat().st_size for file in _files(folder))


_DEFINING = (*PARTS, "ursa.json", "model_index.json")


def model_identity(folder: Path, parts: Collection[str] = _DEFINING) -> str:
    """Sixteen hex digits that change with a model's configuration, vocabulary or weights.

    Of a file of more than 64 MiB, 64 pieces spread over it are read, and its size: enough to tell
    any two trainings apart in a moment.

    Args:
        folder: of the model.
        parts: names at its top that count.
    """
    digest = hashlib.sha256()
    for file in _files(folder):
        name = file.relative_to(folder)
        if name.parts[0] not in parts:
            continue
        size = file.stat().st_size
        digest.update(f"{name.as_posix()} {size}\n".encode())
        with file.open("rb") as opened:
            for place in range(_NUM_PIECES):
                if size > _NUM_PIECES * _PIECE_BYTES:
                    opened.seek(place * (size - _PIECE_BYTES) // (_NUM_PIECES - 1))
                digest.update(opened.read(_PIECE_BYTES))
    return digest.hexdigest()[:16]


def _part_size(part: Path) -> PartSize:
    parameters = 0
    if part.name in _NETWORKS:
        parameters = sum(_num_parameters(part / name) for name in _shards(part))
        if not parameters:
            raise CheckpointError(f"{part} holds no weights", way_out(part / WEIGHTS))
    return PartSize(folder_bytes(part), parameters)


def _shards(part: Path, weights: str = WEIGHTS) -> list[str]:
    """Names of a network's weight files: those of its index, or the one of small networks."""
    index = part / index_of(weights)
    if not index.exists():
        return [weights] if (part / weights).exists() else []
    weight_map = read_json(index).get("weight_map")
    names = list(weight_map.values()) if isinstance(weight_map, dict) else []
    if not names or not all(isinstance(n, str) and n == Path(n).name for n in names):
        raise CheckpointError(f"{index} names no files of weights", "get the model anew")
    return sorted(set(names))


def _num_parameters(file: Path) -> int:
    """Numbers in a safetensors file, from its header."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(regular_file(file), "np") as weights:
            names = weights.keys()
            return sum(math.prod(weights.get_slice(name).get_shape()) for name in names)
    except FileNotFoundError as error:
        raise CheckpointError(f"{file} is missing", way_out(file)) from error
    except (OSError, SafetensorError) as error:
        raise unreadable(file, error, way_out(file), CheckpointError) from error


def file_names(folder: Path) -> list[str]:
    """Paths of a model's files inside its folder."""
    return [file.relative_to(folder).as_posix() for file in _files(folder)]


def _files(folder: Path) -> list[Path]:
    """Files of a model, which lie at its top and in the folders there.

    Deeper ones aren't looked for: any folder may be named, one with a million files too. Hidden
    ones aren't either, as the hub library keeps notes of its own there.
    """
    return [
        file
        for file in sorted([*folder.glob("*"), *folder.glob("*/*")])
        if file.is_file() and not file.relative_to(folder).parts[0].startswith(".")
    ]


URSA_MODEL = Layout(
    kind="URSA model",
    example="BAAI/URSA-1.7B-FSQ320",
    mark="model_index.json",
    descriptions=(
        *("model_index.json", "ursa.json", "subjects.json", "README.md", "LICENSE*", "NOTICE*"),
        *(f"{part}/*.{kind}" for part in PARTS for kind in ("json", "txt")),
    ),
    weights=(*(f"{part}/*.safetensors" for part in PARTS), "scheduler/scheduler_model.pth"),
    missing=missing_files,
    check_kind=check_classes,
    check=check_model,
)
"""The published layout; its one pickle, the codebook, is read as tensors alone."""
