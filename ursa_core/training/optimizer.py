"""AdamW, its learning-rate schedule, and the moving average of weights."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ursa_core.recipe_fields import OptimizerSettings


def learning_rate(step: int, steps: int, settings: OptimizerSettings) -> float:
    """Learning rate of a step (from 0): linear warm-up, then a cosine to a share of the peak."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    past = (step - settings.warmup_steps) / max(steps - settings.warmup_steps, 1)
    wave = (1 + math.cos(math.pi * min(past, 1.0))) / 2
    return settings.learning_rate * (settings.final_ratio + (1 - settings.final_ratio) * wave)


def build_optimizer(model: nn.Module, settings: OptimizerSettings) -> torch.optim.AdamW:
    """AdamW that decays matrices and kernels but neither gains nor biases."""
    decayed = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    plain = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    betas = (settings.beta1, settings.beta2)
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=betas, fused=True)


class Ema:
    """Exponential moving average of a model's weights, kept in float32.

    The decay ramps up as (1 + n) / (10 + n), so that early averages forget the random start.

    Args:
        model: whose weights are averaged.
        decay: towards which the ramp goes.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.average = {n: p.detach().float().clone() for n, p in model.named_parameters()}

    @torch.no_grad()
    def update_(self, named: Iterable[tuple[str, Tensor]], step: int) -> None:
        """Take in the weights after step ``step`` (from 0)."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        names, values = zip(*named, strict=True)
        averages = [self.average[name] for name in names]
        torch._foreach_lerp_(averages, [v.detach().float() for v in values], weight)
