"""The denoising loop: from noise at t = 0 to a clip's codes at t = 1."""

import itertools
import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ursa_core.bundle.options import SamplingOptions
from ursa_core.errors import UsageError
from ursa_core.path.base import ProbPath
from ursa_core.path.draws import Randomness, uniforms
from ursa_core.path.mixture import MaskedPath
from ursa_core.sampling.conditioning import SamplingStart
from ursa_core.sampling.guidance import Guidance, Network, guided_hidden
from ursa_core.sampling.posterior import Head, draw_codes

OnStep = Callable[[int, Tensor], None]
"""Callback after each step, with the number of steps done and codes (B, L)."""
CHOICE_TEMPERATURE = 4.5
"""Temperature of MaskGIT's choice of positions; at 0 the most confident come first."""


def denoise(
    network: Network,
    head: Head,
    path: ProbPath,
    start: SamplingStart,
    options: SamplingOptions,
    *,
    prompt_ids: Tensor,
    negative_ids: Tensor | None,
    generators: Randomness,
    guidance: Guidance | None = None,
    on_step: OnStep | None = None,
    on_estimate: OnStep | None = None,
) -> Tensor:
    """Codes x_1 sampled for each prompt: (B, L) int64.

    Each step runs the network once, draws x_1 from its posterior and moves x_t along the path
    towards it. A position whose step ends at t = 1 takes the draw itself; one whose time doesn't
    advance keeps its code. The result of an item depends on its generator, not on the batch.

    Args:
        network: Prompt ids and codes to hidden states.
        head: Hidden states to logits, linear.
        path: Path that the network was trained on.
        start: Codes at the first time, ``path.initial`` if that is 0, and the rising times. If the
            last is below 1, the codes returned are x_t of that time.
        options: Their solver, ``correct`` (see ``ProbPath.step``), temperature and ``top_p`` count.
        prompt_ids: Prompt ids, int64 (B, S).
        negative_ids: Ids of the negative prompts, int64 (B, S); None without guidance.
        generators: One generator per item; or one for all, so that items depend on one another.
        guidance: Scale and interval; None is off.
        on_step: Called after each step with x_t.
        on_estimate: Called after each step with the x_1 drawn for it.

    `UsageError` where times or solver can't be used, or ``correct`` is given with ``maskgit``.
    """
    guidance = guidance or Guidance()
    solver = options.solver_of(path.solvers)
    times, locked = _checked_times(start.times, start.x_start), start.locked
    x_t = start.x_start if locked is None else torch.where(*locked, start.x_start)
    masked = path if solver == "maskgit" and isinstance(path, MaskedPath) else None
    if masked and times.ndim != 1:
        hint = "use one time for the clip, or the integrated solver"
        raise UsageError("MaskGIT can't give each frame a time of its own", hint)
    num_masks = (x_t == path.num_codes).sum(-1)
    log_probs = torch.empty_like(x_t, dtype=torch.float32) if masked else None
    move = partial(path.step, solver=solver, correct=options.correct)

    with torch.no_grad():
        for step, (t, t_next) in enumerate(itertools.pairwise(times), start=1):
            if masked and not bool((x_t == masked.mask_id).any()):
                break
            hidden = guided_hidden(network, prompt_ids, negative_ids, x_t, t, guidance)
            x_1 = draw_codes(
                head, hidden, path.num_codes, generators, temperature=options.temperature,
                top_p=options.top_p, log_probs=log_probs,
            )  # fmt: skip
            x_1 = path.finish(x_t, x_1)
            if masked and log_probs is not None:
                x_t = _revealed(masked, x_t, x_1, log_probs, num_masks, float(t_next), generators)
            else:
                is_last, x_next = (t_next == 1) & (t < 1), x_1
                if not bool(is_last.all()):
                    moved = _moved(move, x_t, x_1, t, t_next, generators)
                    x_next = torch.where(is_last, x_1, moved)
                x_t = x_next if locked is None else torch.where(*locked, x_next)
            if on_estimate:
                on_estimate(step, x_1)
            if on_step:
                on_step(step, x_t)
    return x_t


def _moved(
    move: Callable[..., Tensor], x_t: Tensor, x_1: Tensor, t: Tensor, t_next: Tensor,
    generators: Randomness,
) -> Tensor:  # fmt: skip
    """Codes after a step of the path, computed item by item if each has a generator.

    Sums may round differently in a larger product, and no item may depend on the batch.
    """
    if isinstance(generators, torch.Generator):
        return move(x_t, x_1, t, t_next, generators)
    items = zip(x_t.split(1), x_1.split(1), generators, strict=True)
    return torch.cat([move(one, to, t, t_next, [own]) for one, to, own in items])


def _revealed(
    path: MaskedPath, x_t: Tensor, codes: Tensor, log_probs: Tensor, num_masks: Tensor, t: float,
    generators: Randomness,
) -> Tensor:  # fmt: skip
    """Codes (B, L) int64 after a step that ends at ``t``, with some more masks revealed.

    The share cos(π·t/2) of the ``num_masks`` (B,) of the start is left, none at 1, and at least one
    is revealed: those with the largest log-probability (B, L) of their code, drawn in ``codes``,
    plus Gumbel noise times ``CHOICE_TEMPERATURE``·(1 − t).
    """
    masked = x_t == path.mask_id
    noise = uniforms(x_t.shape, generators, x_t.device).clamp(min=1e-12)
    gumbel = -torch.log(-torch.log(noise))
    score = log_probs + CHOICE_TEMPERATURE * (1 - t) * gumbel
    left = (num_masks * (math.cos(math.pi / 2 * t) if t < 1 else 0.0)).floor().long()
    reveal = (masked.sum(-1) - left).clamp(min=1)
    # Positions without a mask rank last, so that ranks below `reveal` are masks.
    score = score.masked_fill(~masked, -math.inf)
    rank = score.argsort(stable=True, dim=-1, descending=True).argsort(-1)
    return torch.where(masked & (rank < reveal[:, None]), codes, x_t)


def _checked_times(times: Tensor, x_start: Tensor) -> Tensor:
    """Times on the device of the codes: a rising grid of the clip or of each position."""
    if times.shape[0] < 2 or times.shape[1:] not in ((), x_start.shape[1:]):
        raise UsageError(
            f"times of shape {tuple(times.shape)} don't fit {x_start.shape[1]} positions",
            f"give (steps + 1,) or (steps + 1, {x_start.shape[1]})",
        )
    rising = (times[:-1] <= times[1:]).all() & (times[0] >= 0).all() & (times[-1] <= 1).all()
    if not bool(rising):  # NaN doesn't rise either
        raise UsageError("the times don't rise within [0, 1]", "make them with time_grid")
    return times.to(x_start.device)
