"""Figures of a step: means over whatever the micro-batches of all ranks have of something."""

import torch
from torch import Tensor

from ursa_core.training.distributed import Ranks

Figures = dict[str, Tensor]
"""By name, float (2,) on the device: the sum of the values and of their weights."""

TOKENS = "tokens_a_pass"
"""Figure of a micro-batch: tokens that go through the network, prompts among them."""
CLIPS = "clips_a_pass"
"""Figure of a micro-batch: its clips, where it may have others than train.batch_size."""
WAITED = "seconds_waited_a_pass"
"""Figure of a micro-batch: seconds that training waited for its data."""
OPERATIONS = "operations_a_pass"
"""Figure of a micro-batch: floating-point operations of its forward and backward pass."""
OF_A_PASS = (TOKENS, CLIPS, WAITED, OPERATIONS)
"""Figures that are told as rates of a step, if at all."""


def weighed(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """A figure: the sum of values times weights, and that of the weights; all alike where None."""
    values = values.detach()
    if weights is None:
        weights = torch.ones_like(values)
    return torch.stack([(values * weights).sum(), weights.sum()]).float()


def means(steps: list[Figures], ranks: Ranks) -> dict[str, float]:
    """Means by name over several micro-batches and all ranks, which give the same names.

    A figure that none of them has anything of is left out.
    """
    names = list(steps[0])
    sums = torch.stack([torch.stack([step[n] for step in steps]).sum(0) for n in names])
    totals = ranks.sum_(sums).tolist()
    pairs = zip(names, totals, strict=True)
    return {name: total / weight for name, (total, weight) in pairs if weight}
