"""Metrics shown by TensorBoard or Weights & Biases while a run goes on, where a recipe asks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from ursa_core import files
from ursa_core.errors import UrsaError
from ursa_core.recipe.loading import Recipe


class Tracker(Protocol):
    """Whatever shows figures over steps."""

    def log(self, step: int, figures: dict[str, float]) -> None:
        """Show figures of a step."""

    def close(self) -> None:
        """Write what is left to write."""


def open_trackers(recipe: Recipe, run: Path, step: int) -> list[Tracker]:
    """The trackers that a recipe names.

    Args:
        recipe: of the run.
        run: its folder; TensorBoard reads ``RUN/tensorboard``.
        step: after which the run goes on; what was shown of later ones is forgotten.

    Raises:
        UrsaError: one isn't installed, or can't begin.
    """
    return [_KINDS[name](recipe, run, step) for name in recipe.train.track]


class _TensorBoard:
    def __init__(self, recipe: Recipe, run: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            raise _missing("tensorboard") from error
        writer: Any = SummaryWriter
        self._writer = writer(str(run / "tensorboard"), purge_step=step + 1 if step else None)

    def log(self, step: int, figures: dict[str, float]) -> None:
        """Show figures of a step."""
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Write what is left to write."""
        self._writer.close()


class _WeightsAndBiases:
    def __init__(self, recipe: Recipe, run: Path, step: int) -> None:
        try:
            import wandb
        except ImportError as error:
            raise _missing("wandb") from error
        id_file = run / "wandb_id"
        try:
            begun = wandb.init(
                project="ursa",
                name=recipe.name,
                id=id_file.read_text(encoding="utf-8") if step and id_file.exists() else None,
                resume="allow",
                dir=run,
                config=recipe.model_dump(mode="json"),
            )
        except wandb.Error as error:
            raise UrsaError(
                f"Weights & Biases can't begin: {str(error).splitlines()[0]}",
                "run `wandb login`, set WANDB_MODE=offline, or leave wandb out of train.track",
            ) from error
        files.write(id_file, begun.id)
        self._run: Any = begun

    def log(self, step: int, figures: dict[str, float]) -> None:
        """Show figures of a step."""
        self._run.log(figures, step=step)

    def close(self) -> None:
        """Write what is left to write."""
        self._run.finish()


_KINDS: dict[str, Callable[[Recipe, Path, int], Tracker]] = {
    "tensorboard": _TensorBoard,
    "wandb": _WeightsAndBiases,
}


def _missing(name: str) -> UrsaError:
    return UrsaError(
        f"train.track names {name}, which isn't installed",
        "pip install 'ursa-video[track]', or leave it out",
    )
