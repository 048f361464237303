"""What a generator minimises: cross-entropy on x_1 from x_t and the prompt (Sec. 3.2 of the paper).

A module of its own, network included, so that whatever spreads training over devices can go around
all that one step computes.
"""

import torch
from torch import Tensor, nn

from ursa_core.grids import LatentGrid
from ursa_core.models.transformer import Transformer
from ursa_core.training.figures import Figures, weighed
from ursa_core.training.generator.chunked_loss import chunked_cross_entropy

TIME_BINS = 4


class Denoising(nn.Module):
    """The loss of a transformer.

    Args:
        network: that predicts.
    """

    def __init__(self, network: Transformer) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        prompt_ids: Tensor,
        x_t: Tensor,
        x_1: Tensor,
        grid: LatentGrid,
        is_open: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy of the codes in nats, and that of each of them, detached.

        Args:
            prompt_ids: int64 (B, S).
            x_t: int64 (B, L), noisy codes.
            x_1: int64 (B, L), the codes to predict.
            grid: of the codes.
            is_open: bool (B, L), the codes that count; None for all. If none does, the loss is 0.

        Returns:
            A scalar, and float32 (B, L).
        """
        hidden = self.network(prompt_ids, x_t, grid).flatten(0, 1)
        head = self.network.lm_head.weight
        weights = None if is_open is None else is_open.flatten().float()
        loss, each = chunked_cross_entropy(hidden, head, x_1.flatten(), weights)
        return loss, each.view_as(x_1)


def by_time_bin(each: Tensor, times: Tensor, is_open: Tensor | None = None) -> Figures:
    """Losses of the quarters of time, the first one next to noise.

    Args:
        each: float (B, L) losses.
        times: float (B, L) in [0, 1].
        is_open: bool (B, L), the losses that count; None for all.
    """
    weights = torch.ones_like(each) if is_open is None else is_open.float()
    bins = (times * TIME_BINS).long().clamp_max(TIME_BINS - 1)
    return {
        f"loss_time_{number + 1}_of_{TIME_BINS}": weighed(each, weights * (bins == number))
        for number in range(TIME_BINS)
    }
