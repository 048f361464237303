"""Memory that sampling takes, told before anything is loaded, and that a process took."""

import math
import re
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from ursa_core.grids import LatentGrid, PixelShape
from ursa_core.limits import MAX_TABLE_ENTRIES, MLP_ROWS, SLICE_PIXELS

PROCESS_BYTES = 350_000_000
"""Python with torch and av on the CPU, and what these set up at work."""
LOGITS_BYTES = {"cpu": 16_000_000, "other": 256_000_000}
"""Logits of one chunk of positions and what is drawn and stepped from them, by kind of device."""
_MAPS = 6  # of the decoder's widest, alive at once
_TABLE_BYTES = 6  # an entry of the path's table of distances, while it is made
_PIXELS = 24  # float32 numbers a pixel in the last convolution and while bands join


@dataclass(frozen=True)
class Sizes:
    """Sizes of a model that its need for memory follows from.

    Args:
        transformer_parameters: numbers in its weights.
        tokenizer_parameters: likewise; the tokenizer runs in float32.
        num_codes: codes K.
        code_width: channels C of a code's vector.
        prompt_length: text ids S of a padded prompt.
        hidden: width D of the transformer.
        intermediate: width inside its MLP.
        attention: widths of queries, keys and values together.
        decoder_width: channels of the decoder's widest maps.
        patch_volume: Pixels, over frames, rows and columns, that a cell of them stands for.
        temporal_stride: frames of a latent frame.
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
    """Bytes that sampling one clip takes at most, part by part.

    Args:
        process: of Python and its libraries.
        codebook: of the vectors of all codes and their distances.
        transformer: of its weights.
        tokenizer: likewise.
        activations: of a network pass.
        logits: of a chunk of positions, with its draw.
        decoding: of the tokenizer at work.
        offload: transformer and tokenizer take turns.
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
        """All that stays, and the larger peak: of a network pass with its draw, or of decoding."""
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
    """Estimate of the memory that sampling one clip of a shape takes.

    With T = S + 1 + L tokens and L = F·H·W codes:

    - transformer: parameters · bytes of the dtype; tokenizer: parameters · 4;
    - codebook: three float32 copies of (K, C), the tokenizer's and the path's, + 6 · entries of the
      path's table of distances;
    - activations: T · (4·D + 2·QKV) · bytes of the dtype for each half of guidance that runs at a
      time, 3 · MLP for the positions of one of its chunks, + L · D · (4 + 2 · bytes of the dtype)
      where the halves are joined; attention never holds a T × T matrix;
    - logits: a fixed budget, since head, draw and step run in chunks of positions;
    - decoding: pixels of a slice · 4 · (6 · widest channels / pixels of a patch + 24), + 6 for
      each pixel of the clip.

    Args:
        sizes: of the model.
        grid: latent grid of the clip.
        shape: pixel shape of the clip.
        dtype_bytes: of one number of the transformer.
        device: ``cpu``, or any other kind.
        offload: transformer and tokenizer take turns on the device, and so do guidance's halves.
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


def peak_memory(*, since_now: bool = False) -> int:
    """Largest resident memory of this process on Linux, in bytes.

    Unlike ``getrusage``, which carries the peak of the process it was forked from across ``exec``.

    Args:
        since_now: forget earlier peaks first, so that the answer is the present size and a later
            call tells the growth from here.
    """
    process = Path("/proc/self")
    if since_now:
        (process / "clear_refs").write_text("5", encoding="ascii")
    found = re.search(r"VmHWM:\s+(\d+) kB", (process / "status").read_text(encoding="ascii"))
    if found is None:
        raise RuntimeError("/proc/self/status names no VmHWM")
    return int(found[1]) * 1024
