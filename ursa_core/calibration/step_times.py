"""Step times by a model's uncertainty: short steps where its guesses change, long ones elsewhere.

A step draws by the posterior of its first time. Where H(t) is the mean entropy of the posterior,
``stale`` = Σ (t_{n+1} − t_n)·H(t_n) − ∫ H(t) dt is what N steps guess in excess of ever finer ones,
in nats a code; the best times have the least. Jump Your Steps (arXiv 2410.07761) chooses times by a
bound of this kind, too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ursa_core.bundle.bundle import Bundle
from ursa_core.bundle.folder import tokenizer_identity
from ursa_core.calibration.codebooks import save_figure
from ursa_core.errors import DataError
from ursa_core.path.draws import chunks
from ursa_core.sampling.generate import Request, full_prompt
from ursa_core.sampling.time_grid import time_grid
from ursa_core.seeding import stream
from ursa_core.tokens.shards import read_shards

Array = NDArray[np.float64]

MOST_CLIPS = 64
TIMES = np.linspace(0, 1, 33)
"""Times at which the entropy is measured; at the last one nothing is left to guess."""
_FINE = np.linspace(0, 1, 401)
_CHUNK_BYTES = 16 << 20


@dataclass(frozen=True)
class StepTimes:
    """Times for a number of steps, and what they save."""

    times: tuple[float, ...]  # (steps + 1,) rising from 0 to 1
    even: tuple[float, ...]  # the same number of even times, or those of the model's time shift
    entropy: tuple[float, ...]  # (33,) at `TIMES`, nats a code, mean over all clips
    stale: float  # of ``times``, on clips that they weren't chosen by, nats a code
    stale_even: float  # of ``even``, on these clips
    saved: tuple[float, float]  # 95 % interval of the latter minus the former, by clips
    num_clips: int


def measure_entropy(
    bundle: Bundle,
    shards: str | Path,
    num_clips: int = MOST_CLIPS,
    on_clip: Callable[[], object] | None = None,
) -> Array:
    """Entropy of the posterior, nats a code, float64 (clips, 33) at `TIMES`: without guidance.

    The clips should be held out of the model's training: of the most frequent grid in ``shards``,
    evenly spread. `DataError` for codes of another tokenizer, or fewer than four clips.
    """
    table = read_shards(shards)
    if table.identity.tokenizer != tokenizer_identity(bundle.folder):
        hint = f"make them with: ursa tokenize … --model {bundle.name}"
        raise DataError(f"the shards in {shards} are of another tokenizer than the model's", hint)
    grid, network, path = table.grids[0], bundle.transformer, bundle.path
    rows = table.rows(grid)
    if len(rows) < 4:
        raise DataError(f"{shards} has {len(rows)} clips of {grid}", "give four or more")
    rows = rows[np.linspace(0, len(rows) - 1, min(num_clips, len(rows))).astype(np.int64)]
    bundle.take_turn(network)
    found = np.zeros((len(rows), len(TIMES)))
    for place, row in enumerate(rows.tolist()):
        x_1 = table.codes([row]).to(bundle.device)
        text = full_prompt(bundle, Request(next(iter(table.captions(row)), "")))
        ids = bundle.text_tokenizer.encode([text]).to(bundle.device)
        with torch.inference_mode():
            for k, t in enumerate(TIMES[:-1].tolist()):
                # The same numbers for all times, so that noise tips fewer differences.
                x_t = path.corrupt(x_1, t, stream(0, "step times", place))
                hidden = network(ids, x_t, grid)[0]
                open_codes = path.loss_mask(x_t)
                states = hidden if open_codes is None else hidden[open_codes[0]]
                total = 0.0
                for part in chunks(len(states), path.num_codes, _CHUNK_BYTES):
                    logits = network.head(states[part].float())[..., : path.num_codes].float()
                    logs = logits.log_softmax(-1)
                    total -= float((logs.exp() * logs).sum())
                found[place, k] = total / x_1.shape[1]
        if on_clip:
            on_clip()
    return found


def propose_times(entropy: Array, steps: int, shift: float = 1.0) -> StepTimes:
    """The best times for 1 to 100 steps by the ``entropy`` (clips, 33) of `measure_entropy`.

    They are chosen on every other clip, and compared with even ones, or those of a time shift, on
    the rest.
    """
    chosen, others = np.interp(_FINE, TIMES, entropy[::2].mean(0)), entropy[1::2]
    best, even = _least_stale(chosen, steps), time_grid(steps, shift).double().numpy()
    of_best, of_even = (stale(times, others) for times in (best, even))
    saved = of_even - of_best
    reach = 1.96 * saved.std(ddof=1) / len(saved) ** 0.5
    return StepTimes(
        tuple(best.tolist()), tuple(even.tolist()), tuple(entropy.mean(0).tolist()),
        float(of_best.mean()), float(of_even.mean()),
        (float(saved.mean() - reach), float(saved.mean() + reach)), len(entropy),
    )  # fmt: skip


def stale(times: Array, entropy: Array) -> Array:
    """Nats a code that steps at ``times`` (N + 1,) guess in excess, of each clip: (clips,)."""
    used = np.stack([np.interp(times[:-1], TIMES, each) for each in entropy])
    return np.asarray(used @ np.diff(times) - np.trapezoid(entropy, TIMES, axis=1))


def _least_stale(entropy: Array, steps: int) -> Array:
    """The fine times (N + 1,) with the least sum of products of length and entropy, exactly."""
    cost = (_FINE[None] - _FINE[:, None]) * entropy[:, None]
    cost[np.tril_indices(len(_FINE))] = np.inf  # a step leads onwards
    total, froms = cost[0], []
    for _ in range(steps - 1):
        reached = total[:, None] + cost
        froms.append(reached.argmin(0))
        total = reached.min(0)
    places = [len(_FINE) - 1]
    for back in reversed(froms):
        places.append(int(back[places[-1]]))
    return _FINE[[0, *reversed(places)]].round(4)


def draw_entropy(file: Path, found: StepTimes) -> None:
    """Plot the entropy over time, with both kinds of times."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(TIMES, found.entropy, "k", label="entropy of the posterior")
    for times, label, kind in ((found.times, "proposed", "C1o-"), (found.even, "now", "C0s--")):
        heights = np.interp(times, TIMES, found.entropy)
        axes.plot(times, heights, kind, drawstyle="steps-post", lw=1, ms=4, label=label)
    axes.set(xlabel="t", ylabel="nats a code", title=f"{len(found.times) - 1} steps")
    axes.legend(fontsize=8)
    save_figure(figure, file)
