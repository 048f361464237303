"""AdamW and Muon, their learning-rate schedule, and the moving average of weights."""

import math
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from ursa_core.recipe.fields import OptimizerSettings
from ursa_core.training.distributed import sharded_like, whole


def learning_rate(step: int, steps: int, settings: OptimizerSettings) -> float:
    """Learning rate of a step (from 0): linear warm-up, then a fall to a share of the peak."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    past = min((step - settings.warmup_steps) / max(steps - settings.warmup_steps, 1), 1.0)
    if settings.schedule == "warmup-stable-decay":
        past = max(0.0, 1 - (1 - past) / settings.decay_share)
    wave = (1 + math.cos(math.pi * past)) / 2
    height = {"cosine": wave, "constant": 1.0}.get(settings.schedule, 1 - past)
    return settings.learning_rate * (settings.final_ratio + (1 - settings.final_ratio) * height)


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are trained, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


ADAM_UPDATE_RMS = 0.2  # root mean square of a typical AdamW update at learning rate 1
# Layers that read data or predict it; AdamW suits them better than Muon.
END_LAYERS = ("embed_tokens", "lm_head", "encoder.conv_in.0", "quant_conv", "decoder.conv_out.0")


def build_optimizer(model: nn.Module, settings: OptimizerSettings) -> torch.optim.AdamW:
    """The recipe's optimizer, with weight decay for matrices and kernels, or all parameters."""
    decay = settings.weight_decay
    decays = (decay, decay if settings.decay_all else 0.0, decay)
    groups: list[dict[str, Any]] = [{"params": [], "weight_decay": each} for each in decays]
    ends, plain, hidden = groups
    for name, parameter in trained(model).items():
        is_end = any(layer in name for layer in END_LAYERS)
        group = plain if parameter.ndim < 2 else ends if is_end else hidden
        group["params"].append(parameter)
    kind = torch.optim.AdamW
    if settings.kind == "muon":
        hidden["momentum"], kind = settings.momentum, Muon
    betas = (settings.beta1, settings.beta2)
    optimizer = kind(groups, lr=settings.learning_rate, betas=betas, fused=True)
    for group in optimizer.param_groups:
        names = ("momentum",) if "momentum" in group else ("exp_avg", "exp_avg_sq")
        for p in group["params"]:  # as in AdamW's first step, so that checkpoints can fill it
            optimizer.state[p]["step"] = torch.zeros((), device=p.device)
            optimizer.state[p].update({name: torch.zeros_like(p) for name in names})
    return optimizer


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """The optimizer's state, not copied, by names such as ``layer.weight.exp_avg``."""
    return {
        f"{name}.{key}": value
        for name, parameter in trained(model).items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


class Muon(torch.optim.AdamW):
    """AdamW, with orthogonalized momentum for the groups that have a ``momentum``.

    The update of a matrix (a kernel counts as (out, in·k·k)) is the matrix with equal singular
    values nearest to its Nesterov momentum, scaled to the size of an AdamW update, so that one
    learning rate serves all groups. Unlike ``torch.optim.Muon`` it stacks equal shapes, and uses
    float32 on the CPU, a hundred times faster on processors without bfloat16 units. Ranks gather
    the momentum of a sharded matrix, compute the whole update, and keep their shard.

    Source: Jordan et al. 2024, "Muon"; the scale from Liu et al. 2025, arXiv:2502.16982.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closure
        """Update all parameters that have a gradient."""
        groups = self.param_groups
        try:
            self.param_groups = [g for g in groups if "momentum" not in g]
            super().step(closure)
        finally:
            self.param_groups = groups
        for group in groups:
            if "momentum" in group:
                self._orthogonal_step(group)

    def _orthogonal_step(self, group: dict[str, Any]) -> None:
        by_shape: dict[tuple[int, int], list[Tensor]] = {}
        for p in group["params"]:
            if p.grad is not None:
                by_shape.setdefault((p.shape[0], p.numel() // p.shape[0]), []).append(p)
        for shape, parameters in by_shape.items():
            updates = []
            for p in parameters:
                momentum, gradient = self.state[p]["momentum"], cast(Tensor, p.grad)
                momentum.lerp_(gradient, 1 - group["momentum"])
                update = gradient.lerp(momentum, group["momentum"])
                updates.append(whole(update).flatten(1))
            rate = group["lr"]
            scale = rate * ADAM_UPDATE_RMS * max(shape) ** 0.5
            for p, update in zip(parameters, orthogonalize(torch.stack(updates)), strict=True):
                step = sharded_like(update.view(p.shape), p)
                p.mul_(1 - rate * group["weight_decay"]).add_(step, alpha=-scale)


def orthogonalize(matrices: Tensor) -> Tensor:
    """Matrices (N, A, B) with all singular values moved to between 0.7 and 1.2.

    Five Newton-Schulz steps of fifth order; bfloat16 on CUDA, else float32.
    """
    x = matrices.bfloat16() if matrices.is_cuda else matrices.float()
    tall = x.shape[1] > x.shape[2]
    x = x.transpose(1, 2) if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.transpose(1, 2)
        polynomial = torch.baddbmm(gram, gram, gram, beta=-4.775, alpha=2.0315)
        x = torch.baddbmm(x, polynomial, x, beta=3.4445)
    return (x.transpose(1, 2) if tall else x).to(matrices.dtype)


class Ema:
    """Exponential moving average of a model's weights, kept in float32."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.average = {n: p.detach().float().clone() for n, p in trained(model).items()}

    @torch.no_grad()
    def update_(self, named: Mapping[str, Tensor], step: int) -> None:
        """Update the average with the weights after step ``step`` (from 0)."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        averages = [self.average[name] for name in named]
        torch._foreach_lerp_(averages, [v.detach().float() for v in named.values()], weight)
