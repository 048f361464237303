"""Classifier-free guidance, computed only where and when it acts."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ursa_core.errors import UsageError

Network = Callable[[Tensor, Tensor], Tensor]
"""Prompt ids (B, S) and codes x_t (B, L) to hidden states (B, L, D)."""


@dataclass(frozen=True)
class Guidance:
    """Strength and times of guidance from the negative prompt to the prompt."""

    scale: float = 1.0  # logits become uncond + scale·(cond − uncond), so 1 is off
    interval: tuple[float, float] = (0.0, 1.0)  # in [0, 1]; acts while low <= t < high

    def __post_init__(self) -> None:
        low, high = self.interval
        if not 0 <= low <= high <= 1:
            hint = "use LOW:HIGH with 0 <= LOW <= HIGH <= 1"
            raise UsageError(f"{low:g}:{high:g} isn't a guidance interval", hint)

    def active(self, t: Tensor) -> Tensor:
        """Mask of the times at which guidance acts, in the shape of t."""
        low, high = self.interval
        return (t >= low) & (t < high) & bool(self.scale != 1)

    def num_passes(self, times: Tensor) -> int:
        """Sequences that the network sees at times (N,): two where guidance acts, otherwise one."""
        return len(times) + int(self.active(times).sum())


def guided_hidden(
    network: Network,
    prompt_ids: Tensor,
    negative_ids: Tensor | None,
    x_t: Tensor,
    t: Tensor,
    guidance: Guidance,
) -> Tensor:
    """Hidden states (B, L, D) whose logits are the guided ones.

    As the head is linear, guiding hidden states before it is the same as guiding logits after it,
    at half the head's work. Where guidance acts nowhere, only the B conditional rows are computed;
    otherwise one pass of 2B rows, the conditional half first; without negative ids that is a
    UsageError. Ids are int64 (B, S), codes (B, L), and times () of the clip or (L,) of positions.
    """
    active = guidance.active(t)
    if not bool(active.any()):
        return network(prompt_ids, x_t)
    if negative_ids is None:
        raise UsageError(
            f"a guidance scale of {guidance.scale:g} needs a negative prompt",
            "give one (it may be empty), or use a scale of 1",
        )
    both = network(torch.cat([prompt_ids, negative_ids]), torch.cat([x_t, x_t]))
    cond, uncond = both.chunk(2)
    guided = (cond.float() - uncond).mul_(guidance.scale).add_(uncond)
    if not bool(active.all()):
        guided = torch.where(active.reshape(-1, 1).to(x_t.device), guided, cond)
    return guided
