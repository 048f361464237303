"""What a model folder must hold, by its file names, JSON and safetensors headers; without torch."""

import hashlib
import json
import math
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ursa_core import configs, files
from ursa_core.configs import GET_AGAIN, index_of, way_out
from ursa_core.errors import CheckpointError, unreadable
from ursa_core.files import parse_object
from ursa_core.places import regular_file

WEIGHTS = "diffusion_pytorch_model.safetensors"
PARTS = ("transformer", "vae", "scheduler", "tokenizer")
NETWORKS = ("transformer", "vae")
_NUM_PIECES, _PIECE_BYTES = 64, 1 << 20
_FILE_NAME = re.compile(r"[\w.-]+\.safetensors")
CLASSES = {
    "model_index.json": (configs.PIPELINE_CLASS,),
    "transformer/config.json": (configs.TRANSFORMER_CLASS,),
    "vae/config.json": (configs.VIDEO_CLASS, configs.IMAGE_CLASS),
}
"""Files that name a class, and the names that this version reads."""


@dataclass(frozen=True)
class PartSize:
    """Size of one part of a model."""

    file_bytes: int
    parameters: int


@dataclass(frozen=True)
class Layout:
    """The files of one kind of model, as a folder or the hub holds them.

    Its ``mark`` is a file that no other kind has. ``descriptions`` and ``weights`` are patterns of
    the files to download, never code. Needed are the files ``plain``, the ``networks``' weights or
    their indices, and a text tokenizer in ``tokenizer``. ``check_kind`` refuses a folder of another
    kind.
    """

    kind: str
    example: str
    mark: str
    descriptions: tuple[str, ...]
    weights: tuple[str, ...]
    plain: tuple[str, ...]
    networks: tuple[str, ...]
    tokenizer: str
    check_kind: Callable[[Path], object]

    @property
    def patterns(self) -> tuple[str, ...]:
        """Patterns of all files that are wanted."""
        return self.descriptions + self.weights

    def missing(self, names: Collection[str]) -> list[str]:
        """Files that are needed and that ``names``, paths inside a model, lack."""
        needed = {*self.plain, f"{self.tokenizer}tokenizer_config.json"}
        needed |= {file for file in self.networks if index_of(file) not in names}
        if not {f"{self.tokenizer}vocab.json", f"{self.tokenizer}merges.txt"}.issubset(names):
            needed.add(f"{self.tokenizer}tokenizer.json")
        return sorted(needed.difference(names))

    def check(self, folder: Path) -> None:
        """Refuse, with a CheckpointError, a folder that lacks a part, or of another kind."""
        missing = self.missing(file_names(folder))
        for file in map(folder.joinpath, self.networks):
            shards = [file.with_name(name) for name in _shards(file.parent, file.name)]
            missing += [s.relative_to(folder).as_posix() for s in shards if not s.is_file()]
        if missing:
            hints = [way_out(folder / name) for name in missing if name.endswith(WEIGHTS)]
            raise CheckpointError(
                f"{folder} isn't a complete {self.kind}, it lacks {listed(missing)}",
                next((hint for hint in hints if hint != GET_AGAIN), None)
                or "get the missing files, or give another model",
            )
        self.check_kind(folder)


def layout_of(names: Collection[str], layouts: Sequence[Layout]) -> Layout:
    """The first layout whose mark is among the file names; otherwise the first of all."""
    return next((layout for layout in layouts if layout.mark in names), layouts[0])


def shipped_models() -> dict[str, Path]:
    """Folders of the models that come with the package, by name."""
    folder = Path(__file__).parents[1] / "shipped"
    return {p.parent.name: p.parent for p in sorted(folder.glob("*/model_index.json"))}


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object of a model folder; CheckpointError if the file is missing or damaged."""
    try:
        return parse_object(regular_file(file).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        parts = "model_index.json, transformer/, vae/, scheduler/, tokenizer/"
        hint = f"give a model folder with {parts}"
        if any(file.parent.glob("transformer/adapter_model.*")):
            hint = f"it holds an adapter: --model MODEL --lora {file.parent / 'transformer'}"
        elif any(file.parent.glob("transformer/diffusion_pytorch_model*")):
            hint = f"make it one: ursa models convert {file.parent} --base MODEL -o NEW"
        what = f"{file.parent} is not a complete model: {file.name} is missing"
        raise CheckpointError(what, hint) from error
    except (OSError, ValueError) as error:
        raise unreadable(file, error, way_out(file), CheckpointError) from error


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Write a JSON object, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    files.write(file, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _shards(part: Path, weights: str = WEIGHTS) -> list[str]:
    index = part / index_of(weights)
    if index.exists():
        return sorted(set(read_index(index).values()))
    return [weights] if (part / weights).exists() else []


def check_classes(folder: Path) -> None:
    """Refuse, with a CheckpointError, a model whose files name unknown classes."""
    for file, known in CLASSES.items():
        name = read_json(folder / file).get("_class_name")
        if name not in known:
            hint = f"this version reads {' and '.join(known)}"
            raise CheckpointError(f"{folder} is no URSA model: {file} describes a {name!r}", hint)


def listed(names: list[str], most: int = 4) -> str:
    """Names in one line, the first few of many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def part_sizes(folder: Path) -> dict[str, PartSize]:
    """Bytes on disk and parameters of each part, by headers; CheckpointError if damaged."""
    sizes = {}
    for part in (folder / name for name in PARTS if (folder / name).is_dir()):
        parameters = 0
        for name in _shards(part) if part.name in NETWORKS else ():
            with opened(part / name, "np") as weights:
                keys = weights.keys()
                parameters += sum(math.prod(weights.get_slice(key).get_shape()) for key in keys)
        if part.name in NETWORKS and not parameters:
            raise CheckpointError(f"{part} holds no weights", way_out(part / WEIGHTS))
        sizes[part.name] = PartSize(folder_bytes(part), parameters)
    return sizes


def folder_bytes(folder: Path) -> int:
    """Bytes of all files of a model on disk."""
    return sum(file.stat().st_size for file in _files(folder))


def model_identity(
    folder: Path, parts: Collection[str] = (*PARTS, "ursa.json", "model_index.json")
) -> str:
    """Sixteen hex digits that change with a model's configuration, vocabulary or weights.

    Only 64 pieces of a file above 64 MiB are read: enough to distinguish any two trainings, fast.
    ``parts`` are the files and folders at its top that count.
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


def tokenizer_identity(folder: Path) -> str:
    """Sixteen hex digits of configuration and weights, or of the tokenizer whose encoder it has."""
    kept = read_json(folder / "vae" / "config.json").get("codes_of")
    if isinstance(kept, str):
        return kept
    weights = sorted((folder / "vae").glob("*.safetensors"))
    return files.digest_of(folder / "vae" / "config.json", *weights)[:16]


def read_index(file: Path) -> dict[str, str]:
    """The file name of each tensor in an index; CheckpointError if it leads out of the folder."""
    mapped = read_json(file).get("weight_map")
    if not isinstance(mapped, dict) or not mapped:
        raise CheckpointError(f"{file} has no weight_map", GET_AGAIN)
    for name in mapped.values():
        if not isinstance(name, str) or not _FILE_NAME.fullmatch(name):
            raise CheckpointError(
                f"{file} names {name!r}, which is no safetensors file of the same folder",
                "don't use this model; get it again from a source that you trust",
            )
    return mapped


def copy_files(model: Path, folder: Path, wants: Callable[[str], bool]) -> None:
    """Copy the files of a model, whose paths in it are wanted, to the same ones in a folder."""
    for name in filter(wants, file_names(model)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(model / name, folder / name)


@contextmanager
def opened(file: Path, framework: str = "pt") -> Iterator[Any]:
    """A safetensors file or, for ``pt``, a ``.bin`` of tensors; CheckpointError if damaged."""
    from safetensors import SafetensorError, safe_open

    if file.suffix == ".bin":
        from ursa_core.bundle.weights import read_tensors

        yield read_tensors(file)
        return
    try:
        with safe_open(regular_file(file), framework) as tensors:
            yield tensors
    except FileNotFoundError as error:
        raise CheckpointError(f"{file} is missing", way_out(file)) from error
    except OSError as error:
        raise unreadable(file, error, way_out(file), CheckpointError) from error
    except SafetensorError as error:
        raise CheckpointError(f"{file} is damaged: {error}", way_out(file)) from error


def file_names(folder: Path) -> list[str]:
    """Paths of a model's files inside its folder."""
    return [file.relative_to(folder).as_posix() for file in _files(folder)]


def _files(folder: Path) -> list[Path]:
    # The user may name any folder, even one with a million files deeper down; the hub library keeps
    # metadata in hidden ones.
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
    plain=(*CLASSES, "scheduler/scheduler_config.json"),
    networks=tuple(f"{part}/{WEIGHTS}" for part in NETWORKS),
    tokenizer="tokenizer/",
    check_kind=check_classes,
)
"""The published layout; its one pickle, the codebook, is read as tensors alone."""
