"""The denoising loop: from noise at t = 0 to a clip's codes at t = 1."""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from ursa_core.errors import UsageError
from ursa_core.path.base import Path
from ursa_core.path.draws import Randomness
from ursa_core.path.masked import MaskedPath
from ursa_core.sampling.guidance import Guidance, Network, guided_hidden
from ursa_core.sampling.maskgit import maskgit
from ursa_core.sampling.posterior import Head, draw_codes

OnStep = Callable[[int, Tensor], None]
"""Told the steps done (from 1) and the codes x_t (B, L) after each."""


def denoise(
    network: Network,
    head: Head,
    path: Path,
    x_0: Tensor,
    prompt_ids: Tensor,
    negative_ids: Tensor | None,
    times: Tensor,
    generators: Randomness,
    *,
    guidance: Guidance | None = None,
    temperature: float = 1.0,
    top_p: float | None = None,
    solver: str | None = None,
    given: tuple[Tensor, Tensor] | None = None,
    on_step: OnStep | None = None,
    on_estimate: OnStep | None = None,
) -> Tensor:
    """Codes x_1 sampled for each prompt: (B, L) int64.

    Each step runs the network once, draws x_1 from its posterior and moves x_t along the path
    towards it. A position whose step ends at t = 1 takes the draw itself; one whose time stands
    still keeps its code. An item's result depends on its own generator, not on the batch.

    Args:
        network: prompt ids and codes to hidden states.
        head: hidden states to logits, linear.
        path: the path that the network was trained on.
        x_0: (B, L) int64 codes at the first time, `path.initial` when that is 0.
        prompt_ids: (B, S) int64.
        negative_ids: (B, S) int64 for guidance, or None without it.
        times: (N + 1,), or (N + 1, L) where positions have times of their own; never falling. Where
            the last is below 1, the codes are those of that time.
        generators: one an item; or one for all, which ties the items together.
        guidance: None is off.
        temperature: of the draws of x_1.
        top_p: nucleus of the draws of x_1; None is off.
        solver: one of ``path.solvers``; None is its first.
        given: mask (B, L) bool and codes (B, L) that stay as they are wherever the mask is true.
        on_step: called after each step.
        on_estimate: called after each step, with the codes x_1 drawn for it.

    Raises:
        UsageError: times, solver, guidance, temperature or top_p that can't be used.
    """
    guidance = guidance or Guidance()
    solver = solver or path.solvers[0]
    if solver not in path.solvers:
        raise UsageError(
            f"this model's path has no solver {solver!r}", f"use one of: {', '.join(path.solvers)}"
        )
    times = _checked_times(times, x_0)
    x_t = x_0 if given is None else torch.where(*given, x_0)
    with torch.no_grad():
        if solver == "maskgit" and isinstance(path, MaskedPath):
            return maskgit(
                network, head, path, x_t, prompt_ids, negative_ids, times, generators,
                guidance=guidance, temperature=temperature, top_p=top_p, on_step=on_step,
                on_estimate=on_estimate,
            )  # fmt: skip
        for step, (t, t_next) in enumerate(itertools.pairwise(times), start=1):
            hidden = guided_hidden(network, prompt_ids, negative_ids, x_t, t, guidance)
            x_1 = draw_codes(
                head, hidden, path.num_codes, generators, temperature=temperature, top_p=top_p
            )
            ends = (t_next == 1) & (t < 1)
            done = path.finish(x_t, x_1)
            if not bool(ends.all()):
                done = torch.where(
                    ends, done, _moved(path, x_t, x_1, t, t_next, generators, solver)
                )
            x_t = done if given is None else torch.where(*given, done)
            if on_estimate:
                on_estimate(step, x_1)
            if on_step:
                on_step(step, x_t)
    return x_t


def _moved(
    path: Path,
    x_t: Tensor,
    x_1: Tensor,
    t: Tensor,
    t_next: Tensor,
    generators: Randomness,
    solver: str,
) -> Tensor:
    """Codes after `Path.step`, made item by item where each has a generator.

    In a larger product sums may round otherwise, and no item is to depend on the batch.
    """
    if isinstance(generators, torch.Generator):
        return path.step(x_t, x_1, t, t_next, generators, solver)
    items = zip(x_t.split(1), x_1.split(1), generators, strict=True)
    steps = [path.step(one, to, t, t_next, [own], solver) for one, to, own in items]
    return torch.cat(steps)


def _checked_times(times: Tensor, x_0: Tensor) -> Tensor:
    """The times on the device of the codes.

    Raises:
        UsageError: they aren't a rising grid within [0, 1], of the clip or of each position.
    """
    if times.shape[0] < 2 or times.shape[1:] not in ((), x_0.shape[1:]):
        raise UsageError(
            f"times of shape {tuple(times.shape)} don't fit {x_0.shape[1]} positions",
            f"give (steps + 1,) or (steps + 1, {x_0.shape[1]})",
        )
    rising = (times[:-1] <= times[1:]).all() & (times[0] >= 0).all() & (times[-1] <= 1).all()
    if not bool(rising):  # NaN doesn't rise either
        raise UsageError("the times don't rise within [0, 1]", "make them with time_grid")
    return times.to(x_0.device)
