"""The training loop: steps, checkpoints, metrics and samples of any learner, on one rank or many.

The randomness of a step depends only on (seed, name, step), so a checkpoint continues a run
exactly. It doesn't matter which rank computes which of a step's numbered micro-batches.
"""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ursa_core.batches.run import stops
from ursa_core.devices import matmul_rates, pick_dtype
from ursa_core.errors import UrsaError
from ursa_core.media import write_media
from ursa_core.recipe.fields import Recipe
from ursa_core.training import checkpoints, distributed, metrics
from ursa_core.training import optimizer as optimizers
from ursa_core.training.card import write_card
from ursa_core.training.distributed import Interrupted, Ranks, gathered, whole
from ursa_core.training.learner import Learner
from ursa_core.training.metrics import Metrics, Progress, weighed
from ursa_core.training.optimizer import trained

log = logging.getLogger(__name__)
_MEASURED_SECONDS = 60.0
MOST_IN_A_ROW = 10  # faults, after which a run stops
_MEMORY = 0.98  # of the mean loss
_LEARNING_STEPS = 20  # sound ones, before which nothing is a spike
LossOf = Callable[[int, nn.Module], tuple[Tensor, Metrics]]
_ON_CARD = {
    "loss", "psnr", "reward", "kl", "validation_loss", "validation_psnr", "validation_reward",
    "validation_score_held_out", "validation_diversity", "validation_start_diversity",
}  # fmt: skip

STOP_HINT = "with --allow-change, it goes on with another objective.kl or watch.min_diversity"


class Guard:
    """Judges each step before the weights change; a loss of ``spike`` times the mean is a fault."""

    def __init__(self, on_fault: str, spike: float | None) -> None:
        self.on_fault, self.spike = on_fault, spike
        # State to store in checkpoints: sound steps, their mean loss, faults in a row.
        self.state = {"seen": 0.0, "mean": 0.0, "in_a_row": 0.0}

    def fault(self, step: int, loss: float, norm: float) -> str | None:
        """Why a step (from 1) is skipped, None if it is sound; an UrsaError if the run stops."""
        seen, mean = self.state["seen"], self.state["mean"]
        if not (math.isfinite(loss) and math.isfinite(norm)):
            reason = f"the loss is {loss} and the gradient norm {norm}"
        elif self.spike and seen >= _LEARNING_STEPS and loss > self.spike * mean > 0:
            reason = f"the loss is {loss:.4g}, {loss / mean:.3g} times its recent mean,"
        else:
            memory = min(_MEMORY, seen / (1 + seen))
            mean = memory * mean + (1 - memory) * loss
            self.state = {"seen": seen + 1, "mean": mean, "in_a_row": 0.0}
            return None
        self.state["in_a_row"] += 1
        restart = "start another run with a lower optimizer.learning_rate"
        if self.on_fault == "stop":
            hint = f"give the same command with train.on_fault=skip, or {restart}"
            raise UrsaError(f"{reason} at step {step}", hint)
        if self.state["in_a_row"] >= MOST_IN_A_ROW:
            several = f"the last of {MOST_IN_A_ROW} such steps in a row"
            raise UrsaError(f"{reason} at step {step}, {several}", restart)
        return reason


class Trainer:
    """Trains a learner by its recipe, in a run folder."""

    def __init__(self, recipe: Recipe, learner: Learner, run: Path, ranks: Ranks) -> None:
        plan = recipe.train
        self.recipe, self.learner, self.run_folder = recipe, learner, run
        self.device = learner.device
        self.ranks, self.micros = ranks, ranks.share(plan.accumulate)
        self._checkpoints = checkpoints.checkpoints(run)
        self._about = checkpoints.read_about(self._checkpoints[-1]) if self._checkpoints else {}
        precision = plan.precision
        if precision == "auto":  # measured once per run, by one rank
            precision = self._about.get("precision", precision)
        is_faster = pick_dtype(precision, self.device) == torch.bfloat16
        self.is_bfloat16 = ranks.any(is_faster and ranks.is_first)
        self.precision = "bfloat16" if self.is_bfloat16 else "float32"
        if plan.recompute:
            distributed.recompute_(learner.blocks)
        self.is_sharded = plan.distributed == "fsdp" and ranks.count > 1
        reference = learner.reference
        held = [*learner.blocks, *(reference.model.layers if reference else ())]
        if self.is_bfloat16 and not self.is_sharded:
            distributed.cast_frozen_to_bfloat16_(held)
        elif self.is_bfloat16 and reference:
            reference.bfloat16()  # as FSDP2 casts the model
        hardware = (plan.distributed, ranks, self.device, self.is_bfloat16)
        self.objective = distributed.spread(learner.objective, learner.blocks, *hardware)
        self.optimizer = optimizers.build_optimizer(learner.model, recipe.optimizer)
        self.ema = optimizers.Ema(learner.model, plan.ema_decay)
        self.step, self.seconds = 0, 0.0
        self.best: dict[str, float] | None = None  # step and loss of the lowest validation loss
        self.changes: list[dict[str, Any]] = []  # of recipe and data, by step
        self.checkpoints = checkpoints.CheckpointWriter(
            run, ranks, plan.keep_checkpoints, plan.keep_every, self.device.type == "cuda"
        )
        self.guard = Guard(plan.on_fault, plan.spike)
        self.trackers: list[metrics.Tracker] = []
        self._matrix_rate = 0.0
        self._fault: str | None = None
        self._figures: dict[str, float] = {}
        self._stop_reason: str | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Tensors of a checkpoint by name, not copied; frozen ones are those of the start."""
        frozen = {n for n, p in self.learner.model.named_parameters() if not p.requires_grad}
        state = self.learner.model.state_dict()
        parts = {
            "model": {name: tensor for name, tensor in state.items() if name not in frozen},
            "ema": self.ema.average,
            "optimizer": optimizers.optimizer_tensors(self.optimizer, self.learner.model),
            "learner": self.learner.state(self.micros),
        }
        return {f"{part}.{name}": tensor for part in parts for name, tensor in parts[part].items()}

    def resume(
        self, on_note: Callable[[str], None] = lambda _: None, allow_change: bool = False
    ) -> int:
        """Load the newest checkpoint, if there is one, and return the number of steps done.

        ``allow_change`` allows changes of recipe and data where they can be; ``on_note`` gets them.
        """
        if not self._checkpoints:
            return 0
        about = self._about
        different = checkpoints.check_changes(
            self.run_folder, self.recipe, self.learner, allow_change
        )
        checkpoints.load_checkpoint_(self._checkpoints[-1], self.tensors(), self.ranks)
        self.step, self.seconds = about["step"], about["seconds"]
        self.guard.state = about["guard"]
        self.best, self.changes = about.get("best"), about.get("changes", [])
        self._figures = about.get("figures", {})
        self._stop_reason = None if different else about.get("stop_reason")
        if different:
            on_note(f"changed from step {self.step} on: {'; '.join(different)}")
            self.changes = [*self.changes, {"step": self.step, "changes": different}]
        if self.ranks.is_first:
            metrics.cut_metrics(self.run_folder, self.step)
        return self.step

    def save(self) -> None:
        """Write a checkpoint, and the model with the averaged weights."""
        about = {
            "step": self.step, "seconds": self.seconds, "precision": self.precision,
            "guard": self.guard.state, "base": self.learner.base,
            "num_clips": self.learner.num_clips, "data": self.learner.data_identity,
            "vocabulary": self.learner.vocabulary, "best": self.best, "figures": self._figures,
            "stop_reason": self._stop_reason, "changes": self.changes,
            "recipe": self.recipe.model_dump(mode="json"),
        }  # fmt: skip
        self.checkpoints.save(self.step, self.tensors(), about)
        self._write_bundle()

    def _write_bundle(self) -> None:
        if self.recipe.train.keep_best and self.best and self.best["step"] != self.step:
            return
        gathered_by_all = ((name, whole(tensor)) for name, tensor in self.ema.average.items())
        averaged = {name: value for name, value in gathered_by_all if self.ranks.is_first}
        if self.ranks.is_first:
            self.learner.write_bundle(self.run_folder, averaged)
            done = {"step": self.step, "hours": self.seconds / 3600, **self._figures}
            write_card(self.run_folder, self.recipe, self.learner.counts, done, self.changes)

    def train(self, on_step: Callable[[Progress], None]) -> None:
        """Train up to the recipe's steps, or hours; a signal saves, and raises Interrupted."""
        if self.ranks.is_first:
            self.trackers = metrics.open_trackers(self.recipe, self.run_folder, self.step)
            self._matrix_rate = matmul_rates(self.device)[self.precision] * self.ranks.count
        try:
            self._train(on_step)
        finally:
            for tracker in self.trackers:
                tracker.close()

    def _train(self, on_step: Callable[[Progress], None]) -> None:
        plan = self.recipe.train
        limit = plan.max_hours * 3600 if plan.max_hours else float("inf")
        is_same = self._about.get("recipe") == self.recipe.model_dump(mode="json")
        is_cut = self.ranks.is_first and not (is_same and self._grid_file.exists())
        if (self.step >= plan.steps or self.seconds >= limit) and self.ranks.any(is_cut):
            # It was killed after its last checkpoint, before the bundle and grid of that step, or
            # the recipe has another licence now.
            self._write_bundle()
            self._write_grid()
        if self.step == 0 and not self.is_sharded:  # FSDP's first pass must be whole
            self._write_grid()
        note = partial(log.info, "stopping after this step; press again to stop at once")
        # A launcher passes on signals that the terminal has already sent to all ranks.
        with stops(note, may_interrupt=self.ranks.count == 1) as is_stopped:
            while self._stop_reason is None and self.step < plan.steps and self.seconds < limit:
                started = time.perf_counter()
                figures = self._train_step()
                self.step += 1
                elapsed = self.ranks.mean(time.perf_counter() - started)
                self.seconds += elapsed
                now = self._progress(figures, elapsed)
                on_step(now)
                done = self.step == plan.steps or self.seconds >= limit
                if now.fault or done or self.step % plan.log_every == 0:
                    self._log(figures, now)
                self.checkpoints.poll()
                stop = self.ranks.any(is_stopped())
                is_best = (done or self.step % plan.validate_every == 0) and self._validate()
                if stop or done or self.step % plan.checkpoint_every == 0:
                    self.save()
                elif is_best and plan.keep_best:
                    self._write_bundle()
                if done or self.step % plan.sample_every == 0:
                    self._write_grid()
                if self._stop_reason:
                    self.save()
                elif stop:
                    self.checkpoints.finish()
                    raise Interrupted(
                        f"stopped after step {self.step} of {plan.steps}; the run is saved",
                        "run the same command again to continue",
                    )
            self.checkpoints.finish()
            if reason := self._stop_reason:
                raise UrsaError(f"stopped after step {self.step}: {reason}", STOP_HINT)

    def measure(self) -> float:
        """Seconds per micro-batch of the largest shape, of the later ones of up to three steps."""
        times: list[float] = []
        while len(times) < 3 and sum(times) + max(times, default=0.0) < _MEASURED_SECONDS:
            started = time.perf_counter()
            self._train_step(lambda _, objective: self.learner.largest_loss(objective))
            times.append(time.perf_counter() - started)
        later = times[1:] or times
        return sum(later) / len(later) / len(self.micros)

    def _train_step(self, loss_of: LossOf | None = None) -> dict[str, float]:
        plan, loss_of = self.recipe.train, loss_of or self.learner.loss
        rate = optimizers.learning_rate(self.step, plan.steps, self.recipe.optimizer)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.objective.train()
        micros: list[Metrics] = []
        for micro in self.micros:
            with distributed.synchronising(self.objective, micro == self.micros[-1]):
                with self._autocast():
                    index = self.step * plan.accumulate + micro
                    loss, figures = loss_of(index, self.objective)
                (loss / len(self.micros)).backward()
            micros.append({"loss": weighed(loss), **figures})
        parameters = self.learner.model.parameters()
        limit = self.recipe.optimizer.clip_norm or math.inf
        norm = whole(nn.utils.clip_grad_norm_(parameters, limit)).item()
        averaged = metrics.means(micros, self.ranks)
        self._fault = self.guard.fault(self.step + 1, averaged["loss"], norm)
        if self._fault is None:
            self.optimizer.step()
            self.ema.update_(trained(self.learner.model), self.step)
        self.optimizer.zero_grad(set_to_none=True)
        return {**averaged, "gradient_norm": norm, "learning_rate": rate}

    def _autocast(self) -> torch.autocast:
        is_on = self.is_bfloat16 and not self.is_sharded  # FSDP2 casts by itself
        return torch.autocast(self.device.type, torch.bfloat16, enabled=is_on)

    def _progress(self, figures: dict[str, float], elapsed: float) -> Progress:
        """Rates of a step, which are taken out of its metrics."""
        plan = self.recipe.train
        passes = plan.accumulate / elapsed
        rates = {name: figures.pop(name) * passes for name in metrics.PER_PASS if name in figures}
        waited, operations = rates.get(metrics.WAITED), rates.get(metrics.OPERATIONS)
        share = operations / self._matrix_rate if operations and self._matrix_rate else None
        return Progress(
            self.step,
            figures["loss"],
            items_per_second=rates.get(metrics.CLIPS, plan.batch_size * passes),
            tokens_per_second=rates.get(metrics.TOKENS),
            data_wait=None if waited is None else waited / self.ranks.count,
            matrix_rate_share=share,
            fault=self._fault,
        )

    def _log(self, figures: dict[str, float], now: Progress | None = None) -> None:
        self._figures |= {name: figures[name] for name in _ON_CARD & figures.keys()}
        if self.ranks.is_first:
            metrics.log_metrics(self.run_folder, self.step, self.seconds, figures, now)
            for tracker in self.trackers:
                tracker.log(self.step, figures)

    @torch.no_grad()
    def _validate(self) -> bool:
        """Log the averaged weights' loss on the validation data; whether it is the lowest yet."""
        count = self.ranks.count
        passes = -(-self.recipe.train.validation_passes // count)
        figures: list[Metrics] = []
        with self._averaged_weights(), gathered(self.objective), self._autocast():
            for index in range(self.ranks.rank, passes * count, count):
                of_pass = self.learner.validation_loss(index, self.objective)
                if of_pass is None:
                    return False
                figures.append(of_pass)
        means = metrics.means(figures, self.ranks)
        self._log({f"validation_{n}": m for n, m in means.items() if n not in metrics.PER_PASS})
        self._stop_reason = self.learner.stop_reason(means)
        if not means.get("loss", math.inf) < (self.best or {"loss": math.inf})["loss"]:
            return False
        self.best = {"step": self.step, "loss": means["loss"]}
        return True

    def _write_grid(self) -> None:
        # If the averaged weights are sharded, all ranks have to sample.
        if not (self.ranks.is_first or self.is_sharded):
            return
        with self._averaged_weights(), gathered(self.objective), self._autocast(), torch.no_grad():
            grid = self.learner.sample_grid()
        if grid is not None and self.ranks.is_first:
            self._grid_file.parent.mkdir(parents=True, exist_ok=True)
            write_media(self._grid_file, grid[None], 1.0)

    @property
    def _grid_file(self) -> Path:
        return self.run_folder / "samples" / f"step-{self.step:07d}.png"

    @contextlib.contextmanager
    def _averaged_weights(self) -> Iterator[None]:
        parameters = {n: p.detach() for n, p in trained(self.learner.model).items()}
        kept = {name: p.clone() for name, p in parameters.items()}
        try:
            for name, parameter in parameters.items():
                parameter.copy_(self.ema.average[name])
            self.objective.eval()
            yield
        finally:
            for name, parameter in parameters.items():
                parameter.copy_(kept[name])
