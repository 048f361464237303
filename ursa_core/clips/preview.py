"""A picture of what a clip is going to be, while it is sampled."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from torch import Tensor

from ursa_core.bundle.bundle import Bundle
from ursa_core.errors import DataError
from ursa_core.grids import LatentGrid
from ursa_core.media import check_output, read_media, write_media
from ursa_core.sampling.generate import decode


class Preview:
    """Every few steps writes the first frame of the present estimate next to each output.

    The estimate are the codes drawn for the step. A causal tokenizer decodes the first latent
    frame alone, so a preview costs a fraction of the clip. A picture is replaced whole.

    Args:
        bundle: Model.
        grid: Latent grid of the clips.
        outputs: Files that the clips will be written to; ``.preview.png`` is added to the names.
        every: Steps from one picture to the next; 0 draws none.
    """

    def __init__(
        self, bundle: Bundle, grid: LatentGrid, outputs: Sequence[str | Path], every: int
    ) -> None:
        self._bundle, self._grid, self._every = bundle, grid, every
        self._paths = [preview_path(output) for output in outputs]

    def __call__(self, step: int, x_1: Tensor) -> None:
        """Take the estimate x_1 (B, L) after a step."""
        if not self._every or step % self._every:
            return
        grid = self._grid
        for path, codes in zip(self._paths, x_1, strict=True):
            first = codes[: grid.codes_per_frame].view(1, grid.rows, grid.columns)
            write_media(path, decode(self._bundle, first), 1, {"step": step})

    def remove(self) -> None:
        """Delete the pictures, now that the outputs are to be written."""
        for path in filter(_is_preview, self._paths):
            with suppress(OSError):
                path.unlink()


def preview_path(output: str | Path) -> Path:
    """Where the preview of an output is."""
    path = Path(output)
    return path.with_name(f"{path.name}.preview.png")


def check_preview(output: str | Path, force: bool) -> None:
    """Refuse an output whose preview would take the place of another picture.

    Raises:
        UsageError: Without ``force``, there is one.
        DataError: It couldn't be written.
    """
    path = preview_path(output)
    if os.path.lexists(path):
        check_output(path, force or _is_preview(path))


def _is_preview(path: Path) -> bool:
    try:
        return read_media(path).metadata.keys() == {"step"}
    except DataError:
        return False
