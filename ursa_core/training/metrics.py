"""Metrics of training: averaged over micro-batches and ranks, logged, and shown by trackers."""

import contextlib
import importlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ursa_core import files
from ursa_core.errors import UrsaError, unimportable
from ursa_core.files import parse_json
from ursa_core.recipe.fields import Recipe
from ursa_core.training.distributed import Ranks

# Metrics of a micro-batch by name: float (2,) on the device, a weighted sum and its weight.
Metrics = dict[str, Tensor]

# Metrics of a micro-batch that are reported as rates per step only.
TOKENS = "tokens_per_pass"  # tokens that go through the network, prompts included
CLIPS = "clips_per_pass"  # clips, if their number may differ from train.batch_size
WAITED = "seconds_waited_per_pass"  # seconds that training waited for the data
OPERATIONS = "operations_per_pass"  # floating-point operations, forward and backward
PER_PASS = (TOKENS, CLIPS, WAITED, OPERATIONS)
METRICS = "metrics.jsonl"


def weighed(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """A metric: the sum of values times weights, and the sum of the weights (1 each if None)."""
    values = values.detach()
    weights = torch.ones_like(values) if weights is None else weights
    return torch.stack([(values * weights).sum(), weights.sum()]).float()


def means(micros: list[Metrics], ranks: Ranks) -> dict[str, float]:
    """Means by name over micro-batches and ranks, without metrics whose weights are all 0."""
    names = list(micros[0])
    sums = torch.stack([torch.stack([micro[n] for micro in micros]).sum(0) for n in names])
    totals = ranks.sum_(sums).tolist()
    pairs = zip(names, totals, strict=True)
    return {name: total / weight for name, (total, weight) in pairs if weight}


@dataclass(frozen=True)
class Progress:
    """State of a run after a step; what its learner doesn't count is None."""

    step: int  # number of steps done
    loss: float  # loss of the step
    items_per_second: float  # clips per second of this step
    tokens_per_second: float | None = None  # tokens per second of this step, prompts included
    data_wait: float | None = None  # share of the step spent waiting for data
    # Rate of operations, as a share of that of a large matrix product on all devices together.
    matrix_rate_share: float | None = None
    fault: str | None = None  # why the step was skipped, if it was


_DIGITS = {"items_per_second": 2, "tokens_per_second": 1, "data_wait": 5, "matrix_rate_share": 4}


def log_metrics(
    run: Path, step: int, seconds: float, metrics: dict[str, float], now: Progress | None = None
) -> None:
    """Append a JSON object to ``metrics.jsonl``, with the rates of the step, and its fault."""
    line: dict[str, float | str | None] = {"step": step, "seconds": round(seconds, 2), **metrics}
    if now is not None:
        rates = {name: getattr(now, name) for name in _DIGITS}
        line |= {n: round(rate, _DIGITS[n]) for n, rate in rates.items() if rate is not None}
        if now.fault is not None:
            line["skipped"] = now.fault
    for name, value in line.items():
        if isinstance(value, float) and not math.isfinite(value):
            line[name] = None  # JSON has no numbers that aren't finite
    path = run / METRICS
    with files.writing(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def cut_metrics(run: Path, steps: int) -> None:
    """Drop what a killed run logged after its last checkpoint: these steps are repeated."""
    file = run / METRICS
    if not file.exists():
        return
    kept = []
    for line in file.read_text(encoding="utf-8").split("\n"):
        with contextlib.suppress(ValueError):  # the last one may be cut short
            kept += [line + "\n"] if parse_json(line, finite=False)["step"] <= steps else []
    files.write(file, "".join(kept))


class Tracker(NamedTuple):
    """A viewer of metrics by step; closing it writes everything that is buffered."""

    log: Callable[[int, dict[str, float]], None]
    close: Callable[[], None]


def open_trackers(recipe: Recipe, run: Path, step: int) -> list[Tracker]:
    """The trackers that a recipe names; what they showed of steps after ``step`` is dropped."""
    makers = {"tensorboard": _tensorboard, "wandb": _weights_and_biases}
    return [makers[name](recipe, run, step) for name in recipe.train.track]


def check_trackers(recipe: Recipe) -> None:
    """Refuse trackers that can't be imported."""
    for name in recipe.train.track:
        try:
            importlib.import_module(name)
        except Exception as error:  # of any kind, as it runs the tracker's own code
            raise unimportable(error, name, "train.track") from error


def _tensorboard(_: Recipe, run: Path, step: int) -> Tracker:
    from torch.utils.tensorboard.writer import SummaryWriter

    writer: Any = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1 if step else None)

    def log(step: int, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return Tracker(log, writer.close)


def _weights_and_biases(recipe: Recipe, run: Path, step: int) -> Tracker:
    import wandb

    id_file = run / "wandb_id"
    try:
        own = id_file.read_text(encoding="utf-8") if step and id_file.exists() else None
        begun = wandb.init(
            project="ursa", name=recipe.name, id=own, resume="allow", dir=run,
            config=recipe.model_dump(mode="json"),
        )  # fmt: skip
    except wandb.Error as error:
        raise UrsaError(
            f"Weights & Biases can't start: {str(error).splitlines()[0]}",
            "run `wandb login`, set WANDB_MODE=offline, or leave wandb out of train.track",
        ) from error
    files.write(id_file, begun.id)
    return Tracker(lambda step, metrics: begun.log(metrics, step=step), begun.finish)
