"""The protocol between the trainer and what it trains."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from ursa_core.media.frames import Frames
from ursa_core.training.metrics import Metrics


class Learner(Protocol):
    """A model, its data and loss, and the model folder that it makes."""

    device: torch.device

    @property
    def model(self) -> nn.Module:
        """The network whose weights are trained."""

    @property
    def objective(self) -> nn.Module:
        """The module around the model, or the model, that ``loss`` calls."""

    @property
    def base(self) -> str | None:
        """Identity of frozen weights that checkpoints don't hold; None if there are none."""

    @property
    def num_clips(self) -> int | None:
        """Number of clips in the shards of the data, which may grow; None without shards."""

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """Parts of the model that run one after another."""

    def loss(self, index: int, objective: nn.Module) -> tuple[Tensor, Metrics]:
        """Loss of micro-batch ``index`` and metrics to log, with the same names each time."""

    def validation_loss(self, index: int, objective: nn.Module) -> Metrics | None:
        """Metrics of pass ``index`` over the validation data; None without such data."""

    def write_bundle(self, folder: Path, weights: dict[str, Tensor]) -> None:
        """Write ``weights`` as a model folder."""

    def sample_grid(self) -> Frames | None:
        """Picture of what the model makes now, with fixed seeds; None if there is none to make."""
