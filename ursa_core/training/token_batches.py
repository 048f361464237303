"""Batches of token clips for a generator: windows, prompts, and the times of their frames."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ursa_core.data.shards import TokenTable
from ursa_core.errors import RecipeError
from ursa_core.grids import LatentGrid
from ursa_core.recipe import GeneratorRecipe
from ursa_core.recipe_fields import ObjectiveSettings
from ursa_core.sampling.time_grid import frame_times, shift_time
from ursa_core.seeding import stream

LAST_TIME = 0.999
"""Of what is given: nearly data, where the sharpness of a path is still finite."""


@dataclass(frozen=True)
class TokenBatch:
    """Codes int64 (B, L), a prompt each, and times (B, L) of clips of one grid."""

    codes: Tensor
    prompts: list[str]
    times: Tensor
    grid: LatentGrid


class TokenBatches:
    """The batches of a run; each is drawn from (seed, index) alone.

    A clip is a window of ``data.frames`` latent frames, or of as many as most clips of the table
    have. A longer clip gives windows from anywhere; one from behind the start is always given its
    first frames, since its first latent frame stands for more frames than that of a clip.

    Args:
        recipe: data, objective, batch size and seed.
        table: the token clips.

    Raises:
        RecipeError: no clip is that long.
    """

    def __init__(self, recipe: GeneratorRecipe, table: TokenTable) -> None:
        self._recipe = recipe
        most = table.grids[0]
        self.grid = LatentGrid(recipe.data.frames or most.frames, most.rows, most.columns)
        fitting = [g for g in table.grids if _holds(g, self.grid, recipe.data.frames is not None)]
        if not fitting:
            raise RecipeError(
                f"data.frames: no clip in {', '.join(recipe.data.shards)} has"
                f" {self.grid.frames} latent frames, most have {most.frames}",
                "ask for fewer, or tokenize longer clips",
            )
        rows = np.concatenate([table.rows(grid) for grid in fitting])
        parts = [table.codes(table.rows(grid)).to(torch.int32).flatten() for grid in fitting]
        lengths = np.concatenate([np.full(len(table.rows(g)), g.num_codes) for g in fitting])
        order = np.argsort(rows, kind="stable")
        self._codes = torch.cat(parts)
        self._starts = (np.cumsum(lengths) - lengths)[order]
        self._frames = (lengths // self.grid.codes_per_frame)[order]
        self.captions = [table.captions(int(row)) for row in rows[order]]
        self._epoch, self._order = -1, [0]

    @property
    def has_middles(self) -> bool:
        """Whether windows come from behind the start of clips too."""
        return bool((self._frames > self.grid.frames).any())

    def batch(self, index: int) -> TokenBatch:
        """Micro-batch ``index`` of the run."""
        recipe, objective = self._recipe, self._recipe.objective
        size = recipe.train.batch_size
        generator = stream(recipe.seed, "batch", index)
        chosen = [self.row(index * size + i) for i in range(size)]
        drops = torch.rand(size, generator=generator) < objective.caption_dropout
        picks = torch.rand(size, generator=generator)
        prompts = [
            "" if drop or not self.captions[row] else _pick(self.captions[row], pick)
            for row, drop, pick in zip(chosen, drops.tolist(), picks.tolist(), strict=True)
        ]
        is_image = float(torch.rand((), generator=generator)) < objective.image_probability
        grid = LatentGrid(1, self.grid.rows, self.grid.columns) if is_image else self.grid
        own = torch.rand(size, grid.frames, generator=generator)
        shared = torch.rand(size, 1, generator=generator).expand_as(own)
        kinds = torch.rand(size, generator=generator)
        places = stream(recipe.seed, "windows", index)
        first = np.zeros(size, np.int64)
        if not is_image:
            spare = self._frames[chosen] - grid.frames + 1
            first = (torch.rand(size, generator=places).numpy() * spare).astype(np.int64)
        given, apart = _given_frames(kinds, grid.frames, objective, first > 0, places)
        times = torch.where(apart[:, None], own, shared).masked_fill(given, 1.0)
        times = shift_time(LAST_TIME * times, objective.shift)
        begin = self._starts[chosen] + first * grid.codes_per_frame
        codes = torch.stack([self._codes[at : at + grid.num_codes] for at in begin])
        return TokenBatch(codes.long(), prompts, frame_times(times, grid), grid)

    def row(self, sample: int) -> int:
        """Clip of the endless stream's item ``sample``: each epoch is a permutation of its own."""
        epoch, place = divmod(sample, len(self.captions))
        if self._epoch != epoch:
            order = stream(self._recipe.seed, "order", epoch)
            self._order = torch.randperm(len(self.captions), generator=order).tolist()
            self._epoch = epoch
        return int(self._order[place])


def _holds(grid: LatentGrid, window: LatentGrid, longer: bool) -> bool:
    """Whether a window can be cut from clips of a grid."""
    if (grid.rows, grid.columns) != (window.rows, window.columns):
        return False
    return grid.frames >= window.frames if longer else grid.frames == window.frames


def _pick(several: list[str], share: float) -> str:
    return several[int(share * len(several))]


def _given_frames(
    kinds: Tensor,
    num_frames: int,
    objective: ObjectiveSettings,
    is_middle: np.ndarray,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Which frames are given (B, F), and which clips have times apart (B,), both bool.

    Args:
        kinds: uniform (B,), decide what each clip is trained for.
        num_frames: F, latent frames of a window.
        objective: the shares of the kinds.
        is_middle: (B,) windows whose first frames are given in any case.
        generator: draws how many.
    """
    size = len(kinds)
    given = torch.zeros(size, num_frames, dtype=torch.bool)
    apart = kinds < objective.async_probability
    counts = 1 + (torch.rand(size, generator=generator) * (num_frames - 1)).long()
    if num_frames == 1:
        return given, apart
    place = torch.arange(num_frames)
    prefixes = place < counts[:, None]
    ends = (place == 0) | (place == num_frames - 1)
    low = objective.async_probability
    for share, shown in (
        (objective.image_to_video_probability, place == 0),
        (objective.extension_probability, prefixes),
        (objective.interpolation_probability, ends),
    ):
        chosen = (kinds >= low) & (kinds < low + share)
        given |= chosen[:, None] & shown
        low += share
    middle = torch.from_numpy(is_middle)
    given = torch.where(middle[:, None], prefixes, given)
    return given, apart & ~middle
