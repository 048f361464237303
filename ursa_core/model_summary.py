"""What a model's folder says about it, read without loading its weights."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ursa_core.bundle_settings import BundleSettings, load_settings
from ursa_core.errors import CheckpointError
from ursa_core.grids import LatentGrid, PixelShape, Strides
from ursa_core.hub import name_of
from ursa_core.memory import SamplingMemory, Sizes, sampling_memory
from ursa_core.model_folder import (
    IMAGE_CLASS,
    PUBLISHED_LEVELS,
    PartSize,
    check_classes,
    folder_bytes,
    part_sizes,
    read_json,
)

_UNKNOWN_LICENCE = "not stated"


@dataclass(frozen=True)
class Summary:
    """A model's sizes, path, grid, defaults and licence."""

    folder: Path
    settings: BundleSettings
    transformer: dict[str, Any]
    tokenizer: dict[str, Any]
    strides: Strides
    path_kind: str
    alpha: float | None
    c: float | None
    licence: str
    parts: dict[str, PartSize]
    file_bytes: int

    @property
    def name(self) -> str:
        """Name as ``--model`` takes it."""
        return name_of(self.folder)

    @property
    def num_codes(self) -> int:
        """Codes K of the codebook."""
        return int(self.tokenizer["num_vq_embeddings"])

    @property
    def num_parameters(self) -> int:
        """Parameters of all parts."""
        return sum(part.parameters for part in self.parts.values())

    @property
    def solvers(self) -> tuple[str, ...]:
        """Ways to take a step along the model's path, the default first."""
        return ("maskgit",) * (self.path_kind == "masked") + ("integrated", "euler")

    @property
    def grid(self) -> LatentGrid:
        """Latent grid of the default shape."""
        return self.strides.grid(self.settings.shape)

    def memory(
        self,
        dtype_bytes: int,
        shape: PixelShape | None = None,
        device: str = "cpu",
        *,
        offload: bool = False,
    ) -> SamplingMemory:
        """About what sampling one clip takes at most.

        Args:
            dtype_bytes: of one number of the transformer.
            shape: pixel shape of the clip; None is the default one.
            device: kind of device.
            offload: transformer and tokenizer take turns on it.
        """
        shape = shape or self.settings.shape
        grid = self.strides.grid(shape)
        return sampling_memory(self._sizes(), grid, shape, dtype_bytes, device, offload=offload)

    def _sizes(self) -> Sizes:
        config, widths = self.transformer, self.tokenizer["block_out_channels"]
        is_image = self.tokenizer["_class_name"] == IMAGE_CLASS
        heads = config["num_attention_heads"] + 2 * config["num_key_value_heads"]
        return Sizes(
            transformer_parameters=self.parts["transformer"].parameters,
            tokenizer_parameters=self.parts["vae"].parameters,
            num_codes=self.num_codes,
            code_width=self.tokenizer["vq_embed_dim"],
            prompt_length=self.settings.max_prompt_length,
            hidden=config["hidden_size"],
            intermediate=config["intermediate_size"],
            attention=heads * (config.get("head_dim") or 128),
            decoder_width=widths[0] if is_image else max(widths[:2]),
            patch_volume=1 if is_image else self._patch_volume(),
            temporal_stride=self.strides.temporal,
            levels=() if is_image else tuple(self.tokenizer.get("levels", PUBLISHED_LEVELS)),
        )

    def _patch_volume(self) -> int:
        edge = int(self.tokenizer.get("patch_size", 4))
        return edge**2 * int(self.tokenizer.get("temporal_patch_size", edge))


def summary(folder: Path) -> Summary:
    """The summary of a model folder.

    Raises:
        CheckpointError: a file is missing or damaged, or the model is of another kind.
    """
    check_classes(folder)
    transformer = read_json(folder / "transformer" / "config.json")
    tokenizer = read_json(folder / "vae" / "config.json")
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    widths = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    _require_sizes(folder / "transformer" / "config.json", transformer, (*widths, "lm_head_size"))
    strides = ("temporal_stride", "spatial_stride")
    codes = ("num_vq_embeddings", "vq_embed_dim")
    _require_sizes(folder / "vae" / "config.json", tokenizer, (*strides, *codes))
    channels = tokenizer.get("block_out_channels")
    if not isinstance(channels, list) or not channels or not all(map(_is_size, channels)):
        raise CheckpointError(
            f"{folder / 'vae' / 'config.json'} has no list of block_out_channels",
            "get the model anew",
        )
    known = {key: value for key, value in scheduler.items() if value is not None}
    return Summary(
        folder=folder,
        settings=load_settings(folder),
        transformer=transformer,
        tokenizer=tokenizer,
        strides=Strides(tokenizer["temporal_stride"], tokenizer["spatial_stride"]),
        path_kind=scheduler.get("path") or ("metric" if "alpha" in known else "mixture"),
        alpha=_number(known.get("alpha")),
        c=_number(known.get("c")),
        licence=_licence(folder),
        parts=part_sizes(folder),
        file_bytes=folder_bytes(folder),
    )


def _require_sizes(file: Path, config: dict[str, Any], keys: tuple[str, ...]) -> None:
    for key in keys:
        if not _is_size(config.get(key)):
            raise CheckpointError(f"{file} has no whole number {key}", "get the model anew")


def _is_size(value: object) -> bool:
    return type(value) is int and value > 0


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _licence(folder: Path) -> str:
    """Licence that ``ursa.json``, or else the head of the model card, states."""
    if (folder / "ursa.json").exists():
        return load_settings(folder).licence
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.exists() else ""
    head = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    stated = re.search(r"^license:[ \t]*(\S+)", head[1], re.MULTILINE) if head else None
    return stated[1].strip("'\"") if stated else _UNKNOWN_LICENCE
