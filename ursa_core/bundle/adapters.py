"""LoRA adapters in peft's folder layout: read, checked against a model, added to it, written.

An adapter turns a matrix W into W + scale · alpha / rank · B · A (arXiv 2106.09685). It is added to
the weights as they are read, in float32, so that sampling takes no more time or memory, nor peft.
"""

import math
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from ursa_core.bundle.folder import file_names, model_identity, opened, read_json, write_json
from ursa_core.bundle.hub import name_of
from ursa_core.bundle.weights import save_tensors, weight_files
from ursa_core.configs import Switch, number, read_config, unusable
from ursa_core.errors import CheckpointError, UsageError
from ursa_core.files import digest_of, whole

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
ORIGIN = "ursa_adapter.json"
MERGED = "merged.json"
PREFIX = "base_model.model."
_PART = re.compile(re.escape(PREFIX) + r"(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
_ADVICE = "give a folder that `ursa train` with lora.rank, or peft, has written"

Change = Callable[[str, Tensor], Tensor]
"""Function from a weight's name and value to its new value."""


@dataclass(frozen=True)
class _Config:
    """The keys of peft's ``adapter_config.json`` that scale the product."""

    lora_alpha: Annotated[float, number(1e-6, 1e6)]
    use_rslora: Switch = False


@dataclass(frozen=True)
class Adapter:
    """An adapter on disk, and its scale.

    Args:
        folder: Folder of the adapter.
        scale: Multiple of the trained change.
        alpha: Factor of the product, before it is divided by the rank.
        is_rank_stabilised: Whether to divide alpha by the root of the rank instead.
        sha256: Digest of the weights file.
    """

    folder: Path
    scale: float
    alpha: float
    is_rank_stabilised: bool
    sha256: str

    @property
    def provenance(self) -> dict[str, Any]:
        """The adapter as files made with it record it."""
        return {"path": str(self.folder), "sha256": self.sha256, "scale": self.scale}

    def factor(self, rank: int) -> float:
        """Factor of the product of its matrices."""
        return self.scale * self.alpha / (math.sqrt(rank) if self.is_rank_stabilised else rank)


def is_adapter(folder: Path) -> bool:
    """Whether a folder is an adapter, not a model."""
    return (folder / CONFIG).is_file() and not (folder / "model_index.json").is_file()


def read_adapter(folder: Path, scale: float = 1.0) -> Adapter:
    """The adapter in a folder.

    Raises:
        CheckpointError: There is none, or none of a kind that can be added to weights.
    """
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder} is no adapter, it lacks {name}", _ADVICE)
    config = read_json(folder / CONFIG)
    kind, name = config.get("peft_type"), str(folder / CONFIG)
    if kind != "LORA":
        raise CheckpointError(f"{folder} is an adapter of the kind {kind!r}, not LORA", _ADVICE)
    if config.get("alpha_pattern"):
        raise unusable(name, "alpha_pattern", config["alpha_pattern"], "one lora_alpha for all")
    found = read_config(_Config, {k: v for k, v in config.items() if v is not None}, name)
    digest = digest_of(folder / WEIGHTS)
    return Adapter(folder, scale, found.lora_alpha, found.use_rslora, digest)


def check_adapter(adapter: Adapter, model: Path) -> None:
    """Refuse an adapter of another model than the one in the folder ``model``.

    Raises:
        CheckpointError: It was trained on another model, or changes what this one doesn't have.
    """
    folder, name = adapter.folder, name_of(model)
    origin = read_json(folder / ORIGIN) if (folder / ORIGIN).is_file() else {}
    theirs, ours = origin.get("base_identity"), transformer_identity(model)
    if theirs not in (None, ours):
        raise CheckpointError(
            f"the adapter {folder} belongs to the model {origin.get('base')} ({theirs}),"
            f" not to {name} ({ours})",
            f"give its own model: --model {origin.get('base')}",
        )
    files = weight_files(model / "transformer")
    for weight, (a, b) in _shapes(adapter).items():
        if weight not in files:
            raise CheckpointError(
                f"the adapter {folder} changes {weight}, which the model {name} doesn't have",
                "give the model that the adapter was trained on",
            )
        with opened(files[weight]) as tensors:
            shape = tuple(tensors.get_slice(weight).get_shape())
        if (b[0], a[1]) != shape or a[0] != b[1]:
            raise CheckpointError(
                f"the adapter {folder} changes {weight} by {b} times {a},"
                f" the model {name} has {shape} there",
                "give the model that the adapter was trained on",
            )


def transformer_identity(model: Path) -> str:
    """Sixteen hex digits that change with a model's transformer."""
    return model_identity(model, ("transformer",))


def adding(adapters: Sequence[Adapter]) -> Change | None:
    """The function that adds adapters to weights; None without any."""
    if not adapters:
        return None
    parts: dict[str, list[tuple[float, Tensor, Tensor]]] = {}
    for adapter in adapters:
        with opened(adapter.folder / WEIGHTS) as tensors:
            _shapes(adapter)  # refuses what can't be multiplied
            for weight, (a, b) in _names(adapter).items():
                down, up = (tensors.get_tensor(name).float() for name in (a, b))
                if not bool(down.isfinite().all() and up.isfinite().all()):
                    raise CheckpointError(
                        f"the adapter {adapter.folder} changes {weight} by numbers that"
                        " aren't finite",
                        "get the adapter again",
                    )
                parts.setdefault(weight, []).append((adapter.factor(len(down)), down, up))

    def change(name: str, weight: Tensor) -> Tensor:
        for factor, down, up in parts.get(name, ()):
            weight = torch.addmm(weight.float(), up, down, alpha=factor)
        return weight

    return change


def merge_adapters(model: Path, adapters: Sequence[Adapter], out: Path) -> None:
    """Write a model with adapters added, in the number formats of the original.

    Args:
        model: Folder of the original.
        adapters: Adapters trained on it.
        out: Folder to write, new or empty.

    Raises:
        CheckpointError: One isn't an adapter of the model.
        UsageError: The folder holds something.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is there already", "give a new folder with -o")
    for adapter in adapters:
        check_adapter(adapter, model)
    with whole(out) as part:
        _write_merged(model, adapters, part)


def _write_merged(model: Path, adapters: Sequence[Adapter], out: Path) -> None:
    from ursa_core import __version__

    change = adding(adapters)
    weights = {file.relative_to(model) for file in weight_files(model / "transformer").values()}
    for name in map(Path, file_names(model)):
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if name not in weights or change is None:
            shutil.copyfile(model / name, target)
            continue
        with opened(model / name) as tensors:
            read = {key: tensors.get_tensor(key) for key in tensors.keys()}  # noqa: SIM118
        save_tensors(target, {k: change(k, w).to(w.dtype).contiguous() for k, w in read.items()})
    merged = {
        "base": name_of(model, exact=True),
        "base_identity": transformer_identity(model),
        "lora": [adapter.provenance for adapter in adapters],
        "ursa": __version__,
    }
    write_json(out / MERGED, merged)


def save_adapter(
    folder: Path, weights: Mapping[str, Tensor], config: dict[str, Any], origin: dict[str, Any]
) -> None:
    """Write an adapter, each file whole or not at all.

    Args:
        folder: Folder to write to.
        weights: Tensors by peft's names.
        config: Content of ``adapter_config.json``.
        origin: The adapter's model and that model's identity.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().to("cpu").contiguous() for name, value in weights.items()}
    save_tensors(folder / WEIGHTS, state)
    write_json(folder / CONFIG, config)
    write_json(folder / ORIGIN, origin)


def _names(adapter: Adapter) -> dict[str, tuple[str, str]]:
    """Names of an adapter's tensors A and B by the weight that they change."""
    found: dict[str, dict[str, str]] = {}
    with opened(adapter.folder / WEIGHTS) as tensors:
        for name in tensors.keys():  # noqa: SIM118
            match = _PART.fullmatch(name)
            if match is None:
                raise CheckpointError(
                    f"the adapter {adapter.folder} has the tensor {name}, which is no plain LoRA",
                    "train it with matrices alone: no bias, no DoRA, no modules to save",
                )
            found.setdefault(f"{match['module']}.weight", {})[match["side"]] = name
    for weight, sides in found.items():
        if len(sides) != 2:
            raise CheckpointError(
                f"the adapter {adapter.folder} has one of the two matrices of {weight}",
                "get the adapter again",
            )
    return {weight: (sides["A"], sides["B"]) for weight, sides in found.items()}


def _shapes(adapter: Adapter) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Shapes of A (rank, in) and B (out, rank) by the weight that they change."""
    names = _names(adapter)
    with opened(adapter.folder / WEIGHTS) as tensors:
        shapes = {
            weight: tuple(tuple(tensors.get_slice(name).get_shape()) for name in pair)
            for weight, pair in names.items()
        }
    for weight, (a, b) in shapes.items():
        if len(a) != 2 or len(b) != 2 or not a[0]:
            raise CheckpointError(
                f"the adapter {adapter.folder} changes {weight} by {b} times {a}",
                "get the adapter again",
            )
    return {weight: (a, b) for weight, (a, b) in shapes.items()}
