"""What the trainer and those around it agree on: a task to train, and how far it has come."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from ursa_core.media.frames import Frames
from ursa_core.training.figures import Figures


class Task(Protocol):
    """What is trained: a model, its loss, and the bundle it makes."""

    device: torch.device

    @property
    def model(self) -> nn.Module:
        """The network whose weights are trained."""

    @property
    def objective(self) -> nn.Module:
        """The module around the model, or the model, that ``loss`` calls."""

    @property
    def base(self) -> str | None:
        """Identity of weights outside checkpoints that what is trained adds to; None of none."""

    @property
    def num_clips(self) -> int | None:
        """Number of clips in the shards of the data, which may grow; None without shards."""

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """Parts of the model that run one after another."""

    def loss(self, index: int, objective: nn.Module) -> tuple[Tensor, Figures]:
        """Loss of micro-batch ``index`` and figures to log; the same names each time."""

    def validation_loss(self, index: int, objective: nn.Module) -> Figures | None:
        """Figures of pass ``index`` over data that isn't trained on; None without such."""

    def write_bundle(self, folder: Path, weights: dict[str, Tensor]) -> None:
        """Write ``weights`` as a model folder."""

    def draw_sheet(self) -> Frames | None:
        """What the model makes now, with fixed seeds, as a picture."""


@dataclass(frozen=True)
class Progress:
    """State of a run after a step, for whoever shows it.

    Args:
        step: done.
        steps: of the whole run.
        loss: of the step.
        items_per_second: clips, by this step's time.
        tokens_per_second: likewise, prompts among them; None where there are none.
        seconds_left: likewise.
        data_wait: share of the step in which it waited for data; None where it isn't measured.
        rate_share: of the rate of a large matrix product on all devices together, that this step's
            operations reached; None where they aren't counted.
        fault: why the step was left out.
    """

    step: int
    steps: int
    loss: float
    items_per_second: float
    tokens_per_second: float | None
    seconds_left: float
    data_wait: float | None = None
    rate_share: float | None = None
    fault: str | None = None
