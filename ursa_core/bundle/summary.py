"""A summary of a model folder, and of the memory that it takes, read without its weights."""

import math
import re
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

from ursa_core import configs, grids
from ursa_core.bundle.folder import PartSize, check_classes, folder_bytes, part_sizes, read_json
from ursa_core.bundle.hub import name_of
from ursa_core.bundle.settings import BundleSettings, PathConfig, save_settings, settings_of
from ursa_core.configs import Levels, Whole, Wholes, read_config, whole
from ursa_core.grids import LatentGrid, PixelShape, Strides
from ursa_core.models.presets import Size

PROCESS_BYTES = 350_000_000
"""Python with torch and av on the CPU, once they have worked."""
LOGITS_BYTES = {"cpu": 32_000_000, "other": 256_000_000}
"""Logits of one chunk of positions, with their draw and step, by kind of device."""
_MAPS = 5  # of the decoder's widest, held at once
_MAKING_BYTES = 3  # more per entry while it is made, which is done on the CPU
_PIXELS = 20  # float32 numbers per pixel while bands join
_PAST_MAPS = 8.5  # of the two latent frames before a slice, for its convolutions over time


@dataclass(frozen=True, kw_only=True)
class TransformerSizes(Size):
    """Sizes in ``transformer/config.json``, by its own names."""

    lm_head_size: Whole


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
    levels: Levels = configs.PUBLISHED_LEVELS


@dataclass(frozen=True)
class SamplingMemory:
    """Peak memory of sampling one clip, in bytes per part, as `Summary.memory` estimates it."""

    process: int
    codebook: int
    transformer: int
    tokenizer: int
    activations: int
    logits: int
    decoding: int
    offload: bool = False

    @property
    def total(self) -> int:
        """The peak: of a network pass, of the draws after it, or of decoding."""
        sampling = max(self.activations, self.logits)
        peak = self.transformer + self.tokenizer + max(sampling, self.decoding)
        if self.offload:
            peak = max(self.transformer + sampling, self.tokenizer + self.decoding)
        return self.process + self.codebook + peak

    def to_json(self) -> dict[str, int]:
        """The parts and their total."""
        return {**asdict(self), "total": self.total}


@dataclass(frozen=True)
class Summary:
    """A model's sizes, path, grid, defaults with their ``source`` ("" is a guess) and licence."""

    folder: Path
    settings: BundleSettings
    source: str
    transformer: TransformerSizes
    tokenizer: TokenizerSizes
    is_image: bool
    path: PathConfig
    licence: str
    parts: dict[str, PartSize]
    file_bytes: int

    @property
    def name(self) -> str:
        """Name as ``--model`` takes it."""
        return name_of(self.folder)

    @property
    def notes(self) -> list[str]:
        """That defaults are guessed, if they are."""
        what = "the defaults of this unknown model are guessed: those of published ones of its kind"
        return [] if self.source else [f"{what}; ursa models show {self.name} lists them"]

    @property
    def strides(self) -> Strides:
        """Pixels per code."""
        return Strides(self.tokenizer.temporal_stride, self.tokenizer.spatial_stride)

    @property
    def solvers(self) -> tuple[str, ...]:
        """Ways to take a step along the model's path, the default first."""
        return ("maskgit",) * (self.path.kind == "masked") + ("integrated", "euler")

    @property
    def grid(self) -> LatentGrid:
        """Latent grid of the default shape."""
        return self.strides.grid(self.settings.shape)

    @property
    def table_entries(self) -> int:
        """Classes of codes up to symmetry times codes, in the table of distances; 0 without one.

        Channels of equal FSQ levels may be swapped, and odd ones mirrored.
        """
        num_codes = self.tokenizer.num_vq_embeddings
        classes = num_codes if self.is_image else 1
        for level, times in Counter(() if self.is_image else self.tokenizer.levels).items():
            values = (level + 1) // 2 if level % 2 else level
            classes *= math.comb(values + times - 1, times)
        entries = classes * num_codes
        return entries if entries <= grids.MAX_TABLE_ENTRIES else 0

    def memory(
        self,
        dtype_bytes: int,
        shape: PixelShape | None = None,
        device: str = "cpu",
        *,
        guided: bool = True,
        offload: bool = False,
        offload_blocks: int | None = None,
    ) -> SamplingMemory:
        """Estimate of the peak memory of sampling one clip, by default of the model's shape.

        The tokenizer is in float32. Activations are the most of where queries are rotated, of a
        chunk of the MLP and of where the halves of guidance are joined, if ``guided``; attention
        never holds a T × T matrix. Head, draw and step run over chunks, which a fixed budget of
        logits covers.

        With ``offload`` transformer and tokenizer, and guidance's halves, take turns on the device.
        With ``offload_blocks`` so many layers, the head and the last norm are the transformer.
        """
        shape = shape or self.settings.shape
        network, tokenizer = self.transformer, self.tokenizer
        num_codes, hidden = self.strides.grid(shape).num_codes, network.hidden_size
        offload = offload or offload_blocks is not None
        halves = 2 if guided and not offload else 1
        tokens = halves * (self.settings.max_prompt_length + 1 + num_codes)
        queries = network.num_attention_heads * network.head_dim
        keys = network.num_key_value_heads * network.head_dim
        inner = network.intermediate_size
        mlp = 4 * hidden * tokens + min(tokens, grids.MLP_ROWS) * 3 * inner
        layer = max(tokens * (2 * hidden + 4 * queries + 2 * keys), mlp)
        layer += tokens * hidden if guided and offload else 0  # the half of guidance before
        # Both halves, their sum in float32, and 16 bits widened to it.
        joined = 2 * dtype_bytes + (8 if dtype_bytes < 4 else 4) if guided else 0
        is_cpu = device == "cpu"
        making = _MAKING_BYTES * self.table_entries if is_cpu else 0
        parameters = self.parts["transformer"].parameters
        if offload_blocks is not None and not is_cpu:
            block = (2 * (queries + keys) + 3 * inner + 2) * hidden + 2 * network.head_dim
            blocks = min(offload_blocks, network.num_hidden_layers)
            parameters = blocks * block + (network.lm_head_size + 1) * hidden
        pixels = shape.frames * shape.height * shape.width
        frame_pixels = self.strides.temporal * shape.height * shape.width
        front = (self.strides.temporal - 1) * shape.height * shape.width  # before the first frame
        slice_pixels = min(pixels + front, max(grids.SLICE_PIXELS, frame_pixels))
        widths = tokenizer.block_out_channels
        side, depth = tokenizer.patch_size, tokenizer.temporal_patch_size or tokenizer.patch_size
        volume = 1 if self.is_image else side**2 * depth
        channels = (widths[0] if self.is_image else max(widths)) / volume
        past = 0.0 if self.is_image else 2 * frame_pixels * _PAST_MAPS * channels
        decoding = slice_pixels * (_MAPS * channels + _PIXELS) + past
        # Float32 codebooks: the tokenizer's, and two of the path.
        vectors = 3 * tokenizer.num_vq_embeddings * tokenizer.vq_embed_dim * 4
        return SamplingMemory(
            process=PROCESS_BYTES,
            codebook=vectors + grids.TABLE_BYTES * self.table_entries,
            transformer=parameters * dtype_bytes,
            tokenizer=self.parts["vae"].parameters * 4,
            activations=max(layer * dtype_bytes, num_codes * hidden * joined),
            logits=4 * num_codes * hidden + LOGITS_BYTES["cpu" if is_cpu else "other"] + making,
            decoding=round(4 * decoding) + 6 * pixels,
            offload=offload and not is_cpu,  # there both stay in the same memory
        )


def summary(folder: Path) -> Summary:
    """The summary of a model folder; CheckpointError if damaged or of another kind."""
    check_classes(folder)
    transformer, vae = (folder / part / "config.json" for part in ("transformer", "vae"))
    scheduler = folder / "scheduler" / "scheduler_config.json"
    tokenizer = read_json(vae)
    # Null stands for a default there.
    sizes = {key: value for key, value in read_json(transformer).items() if value is not None}
    settings, source = settings_of(folder)
    return Summary(
        folder=folder, settings=settings, source=source,
        transformer=read_config(TransformerSizes, sizes, str(transformer)),
        tokenizer=read_config(TokenizerSizes, tokenizer, str(vae)),
        is_image=tokenizer["_class_name"] == configs.IMAGE_CLASS,
        path=read_config(PathConfig, read_json(scheduler), str(scheduler)),
        licence=licence_of(folder), parts=part_sizes(folder), file_bytes=folder_bytes(folder),
    )  # fmt: skip


def keep_settings(model: Path, copy: Path) -> None:
    """Write to a copy of a model, which has another name, what is known by the model's id."""
    settings, source = settings_of(model)
    if source and not (model / "ursa.json").exists():
        save_settings(copy, replace(settings, licence=licence_of(model)))


def licence_of(folder: Path) -> str:
    """Licence by ``ursa.json``, or else by the head of the model card."""
    if (folder / "ursa.json").exists():
        return settings_of(folder)[0].licence
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.exists() else ""
    head = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    stated = re.search(r"^license:[ \t]*(\S+)", head[1], re.MULTILINE) if head else None
    return stated[1].strip("'\"") if stated else "not stated"
