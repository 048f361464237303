"""Memory that sampling takes, estimated before anything is loaded."""

import math
from collections import Counter
from dataclasses import asdict, dataclass

from ursa_core.grids import LatentGrid, PixelShape
from ursa_core.limits import MAX_TABLE_ENTRIES, MLP_ROWS, SLICE_PIXELS

PROCESS_BYTES = 350_000_000
"""Python with torch and av on the CPU, once they have worked."""
LOGITS_BYTES = {"cpu": 16_000_000, "other": 256_000_000}
"""Logits of one chunk of positions, with their draw and step, by kind of device."""
_MAPS = 6  # of the decoder's widest, held at once
_TABLE_BYTES = 6  # per entry of the path's table of distances, while it is made
_PIXELS = 24  # float32 numbers per pixel in the last convolution and while bands join


@dataclass(frozen=True)
class Sizes:
    """Sizes of a model that determine its need for memory.

    Args:
        transformer_parameters: Parameters of the transformer.
        tokenizer_parameters: Parameters of the tokenizer, which runs in float32.
        num_codes: Codes K.
        code_width: Channels C of a code's vector.
        prompt_length: Text ids S of a padded prompt.
        hidden: Width D of the transformer.
        intermediate: Width inside its MLP.
        attention: Sum of the widths of queries, keys and values.
        decoder_width: Channels of the decoder's widest feature maps.
        patch_volume: Pixels per cell of those maps, over frames, rows and columns.
        temporal_stride: Frames per latent frame.
        levels: FSQ levels of the codebook; empty for a learned one.
    """

    transformer_parameters: int
    tokenizer_parameters: int
    num_codes: int
    code_width: int
    prompt_length: int
    hidden: int
    intermediate: int
    attention: int
    decoder_width: int
    patch_volume: int
    temporal_stride: int
    levels: tuple[int, ...] = ()

    @property
    def table_entries(self) -> int:
        """Classes of codes up to symmetry times codes, in the table of distances; 0 without one.

        Channels of equal levels may be swapped, and odd ones mirrored.
        """
        classes = self.num_codes if not self.levels else 1
        for level, times in Counter(self.levels).items():
            values = (level + 1) // 2 if level % 2 else level
            classes *= math.comb(values + times - 1, times)
        entries = classes * self.num_codes
        return entries if entries <= MAX_TABLE_ENTRIES else 0


@dataclass(frozen=True)
class SamplingMemory:
    """Peak memory of sampling one clip, in bytes per part.

    Args:
        process: Python and its libraries.
        codebook: Vectors of all codes and their distances.
        transformer: Weights of the transformer.
        tokenizer: Weights of the tokenizer.
        activations: Activations of one network pass.
        logits: Logits of a chunk of positions, with their draw.
        decoding: Activations of decoding.
        offload: Whether transformer and tokenizer take turns on the device.
    """

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
        """The peak: of a network pass with its draw, or of decoding."""
        sampling, decoding = self.activations + self.logits, self.decoding
        weights = (self.transformer, self.tokenizer)
        if self.offload:
            peak = max(self.transformer + sampling, self.tokenizer + decoding)
        else:
            peak = sum(weights) + max(sampling, decoding)
        return self.process + self.codebook + peak

    def to_json(self) -> dict[str, int]:
        """The parts and their total."""
        return {**asdict(self), "total": self.total}


def sampling_memory(
    sizes: Sizes,
    grid: LatentGrid,
    shape: PixelShape,
    dtype_bytes: int,
    device: str = "cpu",
    *,
    offload: bool = False,
) -> SamplingMemory:
    """Estimate of the peak memory of sampling one clip.

    With T = S + 1 + L tokens and L = F·H·W codes:

    - transformer: parameters · bytes of the dtype; tokenizer: parameters · 4;
    - codebook: three float32 copies of (K, C), the tokenizer's and the path's, + 6 · entries of the
      path's table of distances;
    - activations: T · (4·D + 2·QKV) · bytes of the dtype per half of guidance that runs at a
      time, 3 · MLP for the positions of one of its chunks, + L · D · (4 + 2 · bytes of the dtype)
      where the halves are joined; attention never holds a T × T matrix;
    - logits: a fixed budget, since head, draw and step run in chunks of positions;
    - decoding: pixels of a slice · 4 · (6 · widest channels / pixels of a patch + 24), + 6 per
      pixel of the clip.

    Args:
        sizes: Sizes of the model.
        grid: Latent grid of the clip.
        shape: Pixel shape of the clip.
        dtype_bytes: Bytes per number of the transformer.
        device: ``cpu``, or any other kind.
        offload: Whether transformer and tokenizer, and guidance's halves, take turns on the device.
    """
    halves = 1 if offload else 2
    tokens = halves * (sizes.prompt_length + 1 + grid.num_codes)
    layer = tokens * (4 * sizes.hidden + 2 * sizes.attention)
    mlp = min(tokens, MLP_ROWS) * 3 * sizes.intermediate
    joined = grid.num_codes * sizes.hidden * (4 + 2 * dtype_bytes)
    pixels = shape.frames * shape.height * shape.width
    frame_pixels = sizes.temporal_stride * shape.height * shape.width
    slice_pixels = min(pixels + frame_pixels, max(SLICE_PIXELS, frame_pixels))
    maps = _MAPS * sizes.decoder_width / sizes.patch_volume
    return SamplingMemory(
        process=PROCESS_BYTES,
        codebook=3 * sizes.num_codes * sizes.code_width * 4 + _TABLE_BYTES * sizes.table_entries,
        transformer=sizes.transformer_parameters * dtype_bytes,
        tokenizer=sizes.tokenizer_parameters * 4,
        activations=(layer + mlp) * dtype_bytes + joined,
        logits=LOGITS_BYTES["cpu" if device == "cpu" else "other"],
        decoding=round(slice_pixels * 4 * (maps + _PIXELS)) + 6 * pixels,
        offload=offload and device != "cpu",  # there both stay in the same memory
    )
