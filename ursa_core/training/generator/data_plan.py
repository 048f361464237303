"""What a run's data amounts to: each shape of a batch, and what is left out."""

from dataclasses import dataclass

from ursa_core.grids import LatentGrid
from ursa_core.training.generator.batches import TokenBatches


@dataclass(frozen=True)
class GridPlan:
    """The batches of one grid.

    Args:
        grid: of their clips.
        clips: there are.
        batch_size: clips of a pass.
        tokens: of a pass, prompts among them.
        share: of all passes.
    """

    grid: LatentGrid
    clips: int
    batch_size: int
    tokens: int
    share: float


@dataclass(frozen=True)
class DataPlan:
    """The batches of a run.

    Args:
        grids: all shapes.
        num_uncaptioned: clips without a caption, which train as if it had been dropped.
        num_left_out: clips shorter than ``data.latent_frames``.
    """

    grids: list[GridPlan]
    num_uncaptioned: int
    num_left_out: int

    @property
    def largest(self) -> GridPlan:
        """The shape with the most tokens a pass."""
        return max(self.grids, key=lambda plan: plan.tokens)

    @property
    def clips_a_pass(self) -> float:
        """In the mean."""
        return sum(plan.share * plan.batch_size for plan in self.grids)

    @property
    def tokens_a_pass(self) -> float:
        """In the mean."""
        return sum(plan.share * plan.tokens for plan in self.grids)


def plan_data(batches: TokenBatches) -> DataPlan:
    """The batches that a run has."""
    buckets = batches.order.buckets
    passes = [len(bucket.rows) / bucket.batch_size for bucket in buckets]
    grids = [
        GridPlan(
            bucket.grid,
            len(bucket.rows),
            bucket.batch_size,
            bucket.batch_size * batches.tokens(bucket.grid),
            count / sum(passes),
        )
        for bucket, count in zip(buckets, passes, strict=True)
    ]
    return DataPlan(grids, batches.num_uncaptioned, batches.num_left_out)
