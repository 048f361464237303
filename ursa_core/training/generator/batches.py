"""Batches of token clips for a generator: windows, prompts and frame times."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ursa_core.bundle.settings import motion_prompt
from ursa_core.errors import DataError, RecipeError
from ursa_core.grids import LatentGrid
from ursa_core.path.draws import uniform_codes
from ursa_core.places import mirror_of
from ursa_core.recipe.fields import GeneratorRecipe
from ursa_core.sampling.time_grid import frame_times
from ursa_core.seeding import stream
from ursa_core.tokens.order import Bucket, ClipOrder
from ursa_core.tokens.shards import TokenTable
from ursa_core.training.generator.objective import draw_times

Mixture = Sequence[tuple[Sequence[str], float]]  # folders and share of each data set
CODE_BYTES = 4
PRIOR = "prior "  # begins the sources of prior clips, before their numbers
PRIOR_SEED = 0  # of all prior clips, so that runs of other seeds share them


@dataclass(frozen=True)
class TokenBatch:
    """Codes int64 (B, L), prompts and times (B, L) of clips of one grid."""

    codes: Tensor
    prompts: list[str]
    times: Tensor
    grid: LatentGrid
    # With pairs, the noise int64 (B, L) that a prior clip was sampled from, and any for others.
    x_0: Tensor | None = None


class TokenBatches:
    """The batches of a run; each depends on (seed, index) only, and has clips of one grid.

    A batch has windows of ``data.latent_frames`` of its clips, from anywhere in longer ones, or
    whole clips. Each step has a batch per lane; ranks that share it read different data.
    """

    def __init__(
        self, recipe: GeneratorRecipe, table: TokenTable, lanes: int = 1, mixture: Mixture = ()
    ) -> None:
        self._recipe, self._table, self.captions = recipe, table, table.all_captions
        self.sets: list[tuple[str, int, float]] = []  # name, clips and share of each data set
        buckets: list[Bucket] = []
        for folders, share in mixture or [(recipe.data.shards or (), 1.0)]:
            buckets += self._buckets(folders, share if len(mixture) > 1 else None)
        shuffled = recipe.data.shuffle_mb << 20
        # Codes that the order uses, captions, and the next groups.
        table.cache_bytes = 2 * shuffled
        self.order = ClipOrder(buckets, recipe.seed, lanes, shuffled // CODE_BYTES)
        self.grid = max(buckets, key=lambda bucket: len(bucket.rows)).grid  # most frequent
        self.num_uncaptioned, self.num_clips = table.num_uncaptioned, len(table)
        self.data_identity = table.digest
        self.num_left_out = len(table) - sum(len(bucket.rows) for bucket in buckets)
        of_prior = table.folders.get(mirror_of(recipe.prior.shards)) if recipe.prior else None
        self._prior_rows = range(*(of_prior or (0, 0))[:2])
        # Whether windows also start behind the first frame of clips.
        wanted = recipe.data.latent_frames
        self.has_middles = any(grid.frames > (wanted or grid.frames) for grid in table.grids)

    def _buckets(self, folders: Sequence[str], share: float | None) -> Iterator[Bucket]:
        """Buckets of the clips of a data set; without a share, of all clips."""
        recipe, table = self._recipe, self._table
        named, wanted = ", ".join(folders), recipe.data.latent_frames
        each_once = dict.fromkeys(map(mirror_of, folders if share is not None else ()))
        ranges = [table.folders[folder] for folder in each_once]
        rows = np.concatenate([np.arange(*each[:2]) for each in ranges or [(0, len(table), 0)]])
        without = sum(each[2] for each in ranges) if ranges else table.num_uncaptioned
        if without == len(rows) and recipe.objective.caption_dropout < 1:
            raise DataError(
                f"no clip in {named} has a caption",
                "put a .txt next to each file, or captions into a metadata.jsonl, and tokenize"
                " again; objective.caption_dropout=1 trains without captions",
            )
        windows: dict[LatentGrid, list[NDArray[np.int64]]] = {}
        num_codes: Counter[LatentGrid] = Counter()
        for grid in table.grids:
            window = LatentGrid(wanted or grid.frames, grid.rows, grid.columns)
            own = table.rows(grid)
            own = own if share is None else np.intersect1d(own, rows, assume_unique=True)
            if grid.frames >= window.frames and len(own):
                windows.setdefault(window, []).append(own)
                num_codes[window] += len(own) * grid.num_codes
        if not windows:
            raise RecipeError(
                f"data.latent_frames: no clip in {named} has {wanted} latent frames, most have"
                f" {table.grids[0].frames}",
                "ask for fewer, or tokenize longer clips",
            )
        count = sum(len(own) for parts in windows.values() for own in parts)
        self.sets.append((named, count, 1.0 if share is None else share))
        for window, parts in windows.items():
            own = np.sort(np.concatenate(parts))
            part = None if share is None else share * len(own) / count
            size, starts = self.batch_size(window), table.group_starts
            yield Bucket(window, size, own, num_codes[window], starts, part)

    def batch_size(self, window: LatentGrid) -> int:
        """Clips of a micro-batch of that grid."""
        size, limit = self._recipe.train.batch_size, self._recipe.data.batch_tokens
        if limit is not None:
            tokens = self.tokens(window)
            if tokens > limit:
                raise RecipeError(
                    f"data.batch_tokens: {limit} are fewer than the {tokens} of one clip of"
                    f" {window} codes with its prompt",
                    "allow more, or set fewer data.latent_frames",
                )
            size = min(size, limit // tokens)
        return size

    def tokens(self, grid: LatentGrid) -> int:
        """Tokens of a clip of that grid, prompt included."""
        return self._recipe.model.max_prompt_length + 1 + grid.num_codes

    @property
    def motion(self) -> float:
        """Mean motion score of the prompts' prefixes."""
        return float(self._table.motions.mean()) * self._recipe.data.motion_scale

    def batch(self, index: int) -> TokenBatch:
        """Micro-batch ``index`` of the run; a DataError if a shard is damaged."""
        return self._batch(index, *self.order.batch(index))

    def example(self, bucket: Bucket) -> TokenBatch:
        """A batch of full size with the first clips of a bucket, never images."""
        chosen = np.resize(bucket.rows, bucket.batch_size).tolist()
        return self._batch(0, bucket, chosen, may_be_image=False)

    def _batch(
        self, index: int, bucket: Bucket, chosen: list[int], *, may_be_image: bool = True
    ) -> TokenBatch:
        recipe, objective = self._recipe, self._recipe.objective
        generator = stream(recipe.seed, "batch", index)
        size = len(chosen)
        drops = torch.rand(size, generator=generator) < objective.caption_dropout
        picks = torch.rand(size, generator=generator)
        choices = torch.rand(2, size, generator=stream(recipe.seed, "prompts", index)).tolist()
        draws = zip(chosen, drops.tolist(), picks.tolist(), *choices, strict=True)
        prompts = ["" if drop else self._prompt(row, *rest) for row, drop, *rest in draws]
        drawn = float(torch.rand((), generator=generator))
        is_image = may_be_image and drawn < objective.image_probability
        grid = LatentGrid(1, bucket.grid.rows, bucket.grid.columns) if is_image else bucket.grid
        places = stream(recipe.seed, "windows", index)
        first = np.zeros(size, np.int64)
        if not is_image:
            frames = np.array([self._table.grid(row).frames for row in chosen])
            share = torch.rand(size, generator=places).numpy()
            first = (share * (frames - grid.frames + 1)).astype(np.int64)
        starts_late = torch.from_numpy(first > 0)
        times = draw_times(grid.frames, starts_late, objective, generator, places)
        begins = first * grid.codes_per_frame
        whole = map(self._table.row_codes, chosen)
        codes = [row[at : at + grid.num_codes] for row, at in zip(whole, begins, strict=True)]
        x_1 = torch.from_numpy(np.stack(codes)).long()
        x_0 = None
        if objective.coupling == "pairs":
            fresh = stream(recipe.seed, "noise", index)
            x_0 = uniform_codes(x_1.shape, self._table.identity.num_codes, fresh, "cpu")
            for place, (row, at) in enumerate(zip(chosen, begins.tolist(), strict=True)):
                noise = self._noise_of(row)
                x_0[place] = x_0[place] if noise is None else noise[at : at + grid.num_codes]
        return TokenBatch(x_1, prompts, frame_times(times, grid), grid, x_0)

    def _noise_of(self, row: int) -> Tensor | None:
        """Noise (L,) that a prior clip was sampled from, as `Sampler` draws it; None for others."""
        if row not in self._prior_rows:
            return None
        own = stream(PRIOR_SEED, "sample", int(self._table.source(row).removeprefix(PRIOR)))
        shape, num_codes = (1, self._table.grid(row).num_codes), self._table.identity.num_codes
        return uniform_codes(shape, num_codes, [own], "cpu")[0]

    def _prompt(self, row: int, pick: float, brevity: float, motion: float) -> str:
        """One of a row's captions, maybe with a motion prefix, by numbers drawn from [0, 1)."""
        several, data = self._table.captions(row), self._recipe.data
        if not several:
            return ""
        caption = several[int(pick * len(several))]
        if data.short_captions is not None:
            short = min(several, key=len) if len(several) > 1 else first_sentence(several[0])
            caption = short if brevity < data.short_captions else max(several, key=len)
        if not data.motion_prefix or motion >= data.motion_share:
            return caption
        return motion_prompt(data.motion_scale * float(self._table.motions[row]), caption)


def first_sentence(text: str) -> str:
    """A text up to the first full stop, exclamation or question mark with space behind it."""
    found = re.match(r".*?[.!?](?=\s)", text, re.DOTALL)
    return found[0] if found else text
