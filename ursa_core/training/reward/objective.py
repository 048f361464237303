"""The loss of reward tuning (UDM-GRPO, arXiv:2604.18518): clips as actions, the path as states.

    A = (r − mean r) / (deviation + 1e-4)           within the clips of one prompt
    own = mean over codes of log p(x_1 | x_t)       of a sampled clip x_1, x_t ~ p_t(x | x_1)
    ρ = exp(own − old), δ = reference − own
    loss = −min(A·ρ, A·clip(ρ, 1 ± ε)) + w·(e^δ − δ − 1)

The states are clips that the path corrupts, not those that the sampler went through.
"""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ursa_core.grids import LatentGrid
from ursa_core.models.transformer import Transformer
from ursa_core.recipe.fields import RewardObjective
from ursa_core.training.generator.chunked_loss import CHUNK_BYTES
from ursa_core.training.metrics import Metrics, weighed

_LARGEST = 5.0
_LEAST_DEVIATION = 1e-4


def advantages(rewards: Tensor, group_size: int, normalise: bool) -> Tensor:
    """Rewards (B,), less the mean of each group of neighbours; 0 where a reward is NaN."""
    groups = rewards.view(-1, group_size)
    deviation = (groups - groups.nanmean(1, keepdim=True)).nan_to_num(0.0)
    if normalise:
        known = groups.isfinite().sum(1, keepdim=True).clamp_min(1)
        spread = (deviation.square().sum(1, keepdim=True) / known).sqrt()
        deviation = (deviation / (spread + _LEAST_DEVIATION)).clamp(-_LARGEST, _LARGEST)
    return deviation.flatten()


def diversity(codes: Tensor, group_size: int) -> Tensor:
    """Share of codes that differ between two clips of a group, its mean: float (groups,)."""
    groups = codes.view(-1, group_size, codes.shape[-1])
    differing = (groups[:, :, None] != groups[:, None]).float().mean((1, 2, 3))
    return differing * group_size / (group_size - 1)


class ClipLikelihood(nn.Module):
    """Log-probability of clips under a network, as a module that can be spread over devices."""

    def __init__(self, network: Transformer) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, prompt_ids: Tensor, x_t: Tensor, x_1: Tensor, grid: LatentGrid, mask: Tensor | None
    ) -> Tensor:
        """Mean log-probability (B,) of the codes x_1 (B, L), in nats per code.

        Logits exist for a chunk of positions at a time, and again for its gradient. ``mask`` (B, L)
        has the codes that count; None is all.
        """
        hidden, head = self.network(prompt_ids, x_t, grid), self.network.lm_head.weight

        def log_probs(states: Tensor, matrix: Tensor, codes: Tensor) -> Tensor:
            return -F.cross_entropy(F.linear(states, matrix).float(), codes, reduction="none")

        budget = CHUNK_BYTES["cpu" if hidden.device.type == "cpu" else "other"]
        rows = max(budget // (4 * len(head)), 1)
        chunks = zip(hidden.flatten(0, 1).split(rows), x_1.flatten().split(rows), strict=True)
        parts = [checkpoint(log_probs, h, head, x, use_reentrant=False) for h, x in chunks]
        each = torch.cat(parts).view_as(x_1)
        if mask is None:
            return each.mean(1)
        return (each * mask).sum(1) / mask.sum(1).clamp_min(1)


def reward_loss(
    own: Tensor, old: Tensor, reference: Tensor, advantage: Tensor, settings: RewardObjective
) -> tuple[Tensor, Metrics]:
    """The loss of log-probabilities (T, B) at T states of B clips, and metrics.

    They are those under the weights that are trained, that sampled the clips, and of the start;
    ``advantage`` is float (B,).
    """
    ratio, delta = (own - old).exp(), reference - own
    near = ratio.clamp(1 - settings.clip, 1 + settings.clip)
    divergence = delta.exp() - delta - 1
    gain = torch.minimum(advantage * ratio, advantage * near)
    is_clipped = (gain < advantage * ratio).float()
    loss = (settings.kl * divergence - gain).mean()
    return loss, {"kl": weighed(divergence), "clipped": weighed(is_clipped)}
