"""A summary of a model folder, read without loading its weights."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ursa_core.bundle.folder import PartSize, check_classes, folder_bytes, part_sizes, read_json
from ursa_core.bundle.hub import name_of
from ursa_core.bundle.memory import SamplingMemory, Sizes, sampling_memory
from ursa_core.bundle.settings import BundleSettings, PathConfig, load_settings
from ursa_core.configs import (
    IMAGE_CLASS,
    PUBLISHED_LEVELS,
    Whole,
    Wholes,
    read_config,
    whole,
    wholes,
)
from ursa_core.grids import LatentGrid, PixelShape, Strides

_UNKNOWN_LICENCE = "not stated"


@dataclass(frozen=True)
class TransformerSizes:
    """Sizes in ``transformer/config.json``, by its own names."""

    hidden_size: Whole
    intermediate_size: Whole
    num_hidden_layers: Whole
    num_attention_heads: Whole
    num_key_value_heads: Whole
    lm_head_size: Whole
    head_dim: Whole = 128


@dataclass(frozen=True)
class TokenizerSizes:
    """Sizes in ``vae/config.json``, by its own names."""

    temporal_stride: Whole
    spatial_stride: Whole
    num_vq_embeddings: Whole
    vq_embed_dim: Whole
    block_out_channels: Wholes
    patch_size: Whole = 4
    temporal_patch_size: Annotated[int, whole(0)] = 0
    levels: Annotated[tuple[Annotated[int, whole(2)], ...], wholes(2)] = PUBLISHED_LEVELS

    @property
    def patch_volume(self) -> int:
        """Pixels per patch, over frames, rows and columns."""
        return self.patch_size**2 * (self.temporal_patch_size or self.patch_size)


@dataclass(frozen=True)
class Summary:
    """A model's sizes, path, grid, defaults and licence."""

    folder: Path
    settings: BundleSettings
    transformer: TransformerSizes
    tokenizer: TokenizerSizes
    is_image: bool
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
    def strides(self) -> Strides:
        """Pixels per code."""
        return Strides(self.tokenizer.temporal_stride, self.tokenizer.spatial_stride)

    @property
    def num_codes(self) -> int:
        """Codes K of the codebook."""
        return self.tokenizer.num_vq_embeddings

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
        """Estimate of the peak memory of sampling one clip, by default of the model's shape.

        The other arguments are those of ``sampling_memory``.
        """
        shape = shape or self.settings.shape
        grid = self.strides.grid(shape)
        return sampling_memory(self._sizes(), grid, shape, dtype_bytes, device, offload=offload)

    def _sizes(self) -> Sizes:
        config, tokenizer = self.transformer, self.tokenizer
        widths = tokenizer.block_out_channels
        heads = config.num_attention_heads + 2 * config.num_key_value_heads
        return Sizes(
            transformer_parameters=self.parts["transformer"].parameters,
            tokenizer_parameters=self.parts["vae"].parameters,
            num_codes=self.num_codes,
            code_width=tokenizer.vq_embed_dim,
            prompt_length=self.settings.max_prompt_length,
            hidden=config.hidden_size,
            intermediate=config.intermediate_size,
            attention=heads * config.head_dim,
            decoder_width=widths[0] if self.is_image else max(widths[:2]),
            patch_volume=1 if self.is_image else tokenizer.patch_volume,
            temporal_stride=self.strides.temporal,
            levels=() if self.is_image else tokenizer.levels,
        )


def summary(folder: Path) -> Summary:
    """The summary of a model folder.

    Raises:
        CheckpointError: A file is missing or damaged, or the model is of another kind.
    """
    check_classes(folder)
    transformer, vae = (folder / part / "config.json" for part in ("transformer", "vae"))
    scheduler = folder / "scheduler" / "scheduler_config.json"
    tokenizer, path = read_json(vae), read_config(PathConfig, read_json(scheduler), str(scheduler))
    # Null stands for a default there.
    sizes = {key: value for key, value in read_json(transformer).items() if value is not None}
    return Summary(
        folder=folder,
        settings=load_settings(folder),
        transformer=read_config(TransformerSizes, sizes, str(transformer)),
        tokenizer=read_config(TokenizerSizes, tokenizer, str(vae)),
        is_image=tokenizer["_class_name"] == IMAGE_CLASS,
        path_kind=path.kind,
        alpha=path.alpha,
        c=path.c,
        licence=_licence(folder),
        parts=part_sizes(folder),
        file_bytes=folder_bytes(folder),
    )


def _licence(folder: Path) -> str:
    """Licence by ``ursa.json``, or else by the head of the model card."""
    if (folder / "ursa.json").exists():
        return load_settings(folder).licence
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.exists() else ""
    head = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    stated = re.search(r"^license:[ \t]*(\S+)", head[1], re.MULTILINE) if head else None
    return stated[1].strip("'\"") if stated else _UNKNOWN_LICENCE
