"""The training loop: steps, checkpoints, metrics and samples of any task.

A step's randomness comes from (seed, name, step) alone, and the learning rate from the step, so
weights, optimizer, average and the step number are all that an exact continuation needs.
"""

import contextlib
import json
import logging
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from ursa_core.devices import pick_dtype
from ursa_core.errors import CheckpointError, UrsaError
from ursa_core.recipe import Recipe, fingerprint
from ursa_core.training.checkpoints import checkpoint_files, load_checkpoint, save_checkpoint
from ursa_core.training.optimizer import Ema, build_optimizer, learning_rate

log = logging.getLogger(__name__)


class Task(Protocol):
    """What is trained: a model, its loss, and the bundle it makes."""

    device: torch.device

    @property
    def model(self) -> nn.Module:
        """The network whose weights are trained."""

    def loss(self, index: int) -> tuple[Tensor, dict[str, float]]:
        """Loss of micro-batch ``index`` and figures to log."""

    def write_bundle(self, folder: Path, weights: dict[str, Tensor]) -> None:
        """Write ``weights`` as a model folder."""

    def write_sheet(self, file: Path) -> None:
        """Draw what the model makes now, with fixed seeds, as a picture."""


@dataclass(frozen=True)
class Progress:
    """State of a run after a step, for whoever shows it."""

    step: int
    steps: int
    loss: float
    items_per_second: float
    seconds_left: float


class Interrupted(UrsaError):  # noqa: N818  (not a failure: the run is saved)
    """Training was stopped from outside and has been saved."""

    exit_code = 130


class Trainer:
    """Trains a task as its recipe says, in a run folder.

    Args:
        recipe: the settings.
        task: model and loss.
        run: folder of checkpoints, metrics, samples and the finished bundle.
    """

    def __init__(self, recipe: Recipe, task: Task, run: Path) -> None:
        self.recipe, self.task, self.run_folder, self.device = recipe, task, run, task.device
        self.optimizer = build_optimizer(task.model, recipe.optimizer)
        self.ema = Ema(task.model, recipe.train.ema_decay)
        self.step = 0
        self.seconds = 0.0
        precision = recipe.train.precision
        self.is_half = pick_dtype(precision, self.device) == torch.bfloat16
        self._stop = False

    def resume(self) -> int:
        """Continue from the newest checkpoint, if any; the number of steps done.

        Raises:
            CheckpointError: the checkpoint is damaged or belongs to another recipe.
        """
        files = checkpoint_files(self.run_folder)
        if not files:
            return 0
        state = load_checkpoint(files[-1])
        if state["fingerprint"] != fingerprint(self.recipe):
            raise CheckpointError(
                f"the run in {self.run_folder} was started with another recipe",
                "use another -o, or --fresh to start over",
            )
        self.task.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema.average = {k: v.to(self.device) for k, v in state["ema"].items()}
        self.step, self.seconds = state["step"], state["seconds"]
        return self.step

    def save(self) -> None:
        """Write a checkpoint and the bundle of averaged weights."""
        state = {
            "fingerprint": fingerprint(self.recipe),
            "step": self.step,
            "seconds": self.seconds,
            "model": self.task.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.average,
        }
        save_checkpoint(self.run_folder, self.step, state, self.recipe.train.keep_checkpoints)
        self.task.write_bundle(self.run_folder, self.averaged())

    def averaged(self) -> dict[str, Tensor]:
        """Averaged weights by name."""
        return dict(self.ema.average)

    def train(self, on_step: Callable[[Progress], None]) -> None:
        """Train up to the recipe's number of steps, or hours.

        Raises:
            Interrupted: SIGINT or SIGTERM came; the run is saved.
            UrsaError: the loss is no longer a finite number.
        """
        plan = self.recipe.train
        limit = plan.max_hours * 3600 if plan.max_hours else float("inf")
        self.run_folder.mkdir(parents=True, exist_ok=True)
        with self._catching_signals(), (self.run_folder / "metrics.jsonl").open("a") as metrics:
            while self.step < plan.steps and self.seconds < limit:
                started = time.perf_counter()
                figures = self._train_step()
                self.step += 1
                elapsed = time.perf_counter() - started
                self.seconds += elapsed
                items = plan.batch_size * plan.accumulate / elapsed
                left = (plan.steps - self.step) * elapsed
                on_step(Progress(self.step, plan.steps, figures["loss"], items, left))
                if self.step % plan.log_every == 0 or self.step == plan.steps:
                    line = {"step": self.step, "seconds": round(self.seconds, 2), **figures}
                    metrics.write(json.dumps({**line, "items_per_second": round(items, 2)}) + "\n")
                    metrics.flush()
                done = self.step == plan.steps or self.seconds >= limit
                if self._stop or done or self.step % plan.checkpoint_every == 0:
                    self.save()
                if done or self.step % plan.sample_every == 0:
                    self._write_sheet()
                if self._stop:
                    raise Interrupted(
                        f"stopped after step {self.step} of {plan.steps}; the run is saved",
                        "run the same command again to continue",
                    )

    def _train_step(self) -> dict[str, float]:
        plan = self.recipe.train
        rate = learning_rate(self.step, plan.steps, self.recipe.optimizer)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.task.model.train()
        totals: dict[str, float] = {}
        for micro in range(plan.accumulate):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.is_half):
                loss, figures = self.task.loss(self.step * plan.accumulate + micro)
            (loss / plan.accumulate).backward()
            for name, value in {"loss": loss.item(), **figures}.items():
                totals[name] = totals.get(name, 0.0) + value / plan.accumulate
        norm = nn.utils.clip_grad_norm_(
            self.task.model.parameters(), self.recipe.optimizer.clip_norm
        ).item()
        if not torch.isfinite(torch.tensor([totals["loss"], norm])).all():
            raise UrsaError(
                f"the loss is {totals['loss']} and the gradient norm {norm} at step {self.step}",
                "lower optimizer.learning_rate and continue from the last checkpoint",
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update_(self.task.model.named_parameters(), self.step)
        return {**totals, "gradient_norm": norm, "learning_rate": rate}

    def _write_sheet(self) -> None:
        weights = {n: p.detach().clone() for n, p in self.task.model.named_parameters()}
        try:
            self.task.model.load_state_dict(self.averaged(), strict=False)
            self.task.model.eval()
            with torch.inference_mode():
                self.task.write_sheet(self.run_folder / "samples" / f"step-{self.step:07d}.png")
        finally:
            self.task.model.load_state_dict(weights, strict=False)

    @contextlib.contextmanager
    def _catching_signals(self) -> Iterator[None]:
        def stop(number: int, frame: object) -> None:
            if self._stop:
                raise KeyboardInterrupt
            self._stop = True
            log.info("stopping after this step; once more to stop at once")

        previous = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
