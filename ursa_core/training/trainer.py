"""The training loop: steps, checkpoints, metrics and samples of any task, on one rank or many.

A step's randomness comes from (seed, name, step) alone, and the learning rate from the step, so
weights, optimizer, average and the step number are all that an exact continuation needs. A step is
made of numbered micro-batches, whichever ranks compute them, so a run is the same on any number.
"""

import contextlib
import logging
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from ursa_core.devices import matmul_rates, pick_dtype
from ursa_core.errors import CheckpointError
from ursa_core.media import write_media
from ursa_core.recipe.loading import Recipe, differing_keys
from ursa_core.training.checkpoints import (
    CheckpointWriter,
    checkpoints,
    load_checkpoint_,
    read_about,
)
from ursa_core.training.distributed import Interrupted, Ranks
from ursa_core.training.figures import (
    CLIPS,
    OF_A_PASS,
    OPERATIONS,
    TOKENS,
    WAITED,
    Figures,
    means,
    weighed,
)
from ursa_core.training.guards import Guard
from ursa_core.training.learner import Progress, Task
from ursa_core.training.metrics import cut_figures, log_figures
from ursa_core.training.optimizer import (
    Ema,
    build_optimizer,
    learning_rate,
    optimizer_tensors,
    trained,
)
from ursa_core.training.sharding import (
    gathered,
    halve_frozen_,
    is_sharded,
    recompute_,
    spread,
    synchronising,
    whole,
)
from ursa_core.training.tracking import Tracker, open_trackers

log = logging.getLogger(__name__)


class Trainer:
    """Trains a task as its recipe says, in a run folder.

    Args:
        recipe: the settings.
        task: model and loss.
        run: folder of checkpoints, metrics, samples and the finished bundle.
        ranks: that train together.

    Raises:
        UsageError: the ranks can't share a step.
        CheckpointError: the newest checkpoint of the run is damaged.
    """

    def __init__(self, recipe: Recipe, task: Task, run: Path, ranks: Ranks) -> None:
        plan = recipe.train
        self.recipe, self.task, self.run_folder, self.device = recipe, task, run, task.device
        self.ranks, self.micros = ranks, ranks.share(plan.accumulate)
        self._found = checkpoints(run)
        self._about = read_about(self._found[-1]) if self._found else {}
        precision = plan.precision
        if precision == "auto":  # measured once a run, by one
            precision = self._about.get("precision", precision)
        is_half = pick_dtype(precision, self.device) == torch.bfloat16
        self.is_half = ranks.any(is_half and ranks.is_first)
        self.precision = "bfloat16" if self.is_half else "float32"
        if plan.recompute:
            recompute_(task.blocks)
        if self.is_half and (plan.distributed == "ddp" or ranks.count == 1):
            halve_frozen_(task.blocks)
        self.objective = spread(
            task.objective, task.blocks, plan.distributed, ranks, self.device, self.is_half
        )
        self.optimizer = build_optimizer(task.model, recipe.optimizer)
        self.ema = Ema(task.model, plan.ema_decay)
        self.step = 0
        self.seconds = 0.0
        self.checkpoints = CheckpointWriter(
            run, ranks, plan.keep_checkpoints, plan.keep_every, self.device.type == "cuda"
        )
        self.guard = Guard(plan.on_fault, plan.spike)
        self.trackers: list[Tracker] = []
        self._matrix_rate = 0.0
        self._fault: str | None = None
        self._stop = False

    def tensors(self) -> dict[str, Tensor]:
        """All tensors that a continuation needs, by name; not copied.

        Weights that aren't trained aren't among them: they are the start's.
        """
        frozen = {n for n, p in self.task.model.named_parameters() if not p.requires_grad}
        state = self.task.model.state_dict()
        parts = {
            "model": {name: tensor for name, tensor in state.items() if name not in frozen},
            "ema": self.ema.average,
            "optimizer": optimizer_tensors(self.optimizer, self.task.model),
        }
        return {f"{part}.{name}": tensor for part in parts for name, tensor in parts[part].items()}

    def resume(self, on_note: Callable[[str], None] = lambda _: None) -> int:
        """Continue from the newest checkpoint, if any; the number of steps done.

        Args:
            on_note: called with what makes the continuation differ from an unbroken run.

        Raises:
            CheckpointError: the checkpoint is damaged or belongs to another recipe.
        """
        if not self._found:
            return 0
        about = self._about
        different = differing_keys(self.recipe, about["recipe"])
        if different:
            raise CheckpointError(
                f"the run in {self.run_folder} has another recipe: {'; '.join(different)}",
                "use another -o, or --fresh to start over",
            )
        if about.get("base") != self.task.base:
            raise CheckpointError(
                f"the run in {self.run_folder} adapts a model whose files were {about.get('base')};"
                f" {self.recipe.init} is {self.task.base}",
                "get those files back, use another -o, or --fresh to start over",
            )
        load_checkpoint_(self._found[-1], self.tensors(), self.ranks)
        self.step, self.seconds = about["step"], about["seconds"]
        self.guard.state = about["guard"]
        before, now = about.get("num_clips"), self.task.num_clips
        if before not in (None, now):
            on_note(
                f"the shards hold {now} clips, and {before} at step {self.step}: from here on"
                " batches are drawn from all of these"
            )
        if self.ranks.is_first:
            cut_figures(self.run_folder, self.step)
        return self.step

    def save(self) -> None:
        """Write a checkpoint and the bundle of averaged weights."""
        about = {
            "step": self.step,
            "seconds": self.seconds,
            "precision": self.precision,
            "guard": self.guard.state,
            "base": self.task.base,
            "num_clips": self.task.num_clips,
            "recipe": self.recipe.model_dump(mode="json"),
        }
        self.checkpoints.save(self.step, self.tensors(), about)
        self._write_bundle()

    def _write_bundle(self) -> None:
        averaged = self.averaged()
        if self.ranks.is_first:
            self.task.write_bundle(self.run_folder, averaged)

    def averaged(self) -> dict[str, Tensor]:
        """Averaged weights by name; on ranks other than the first, nothing."""
        weights = {}
        for name, tensor in self.ema.average.items():
            value = whole(tensor)
            if self.ranks.is_first:
                weights[name] = value
        return weights

    def train(self, on_step: Callable[[Progress], None]) -> None:
        """Train up to the recipe's number of steps, or hours.

        Raises:
            Interrupted: SIGINT or SIGTERM came; the run is saved.
            UrsaError: a step is at fault and the recipe says stop, or a tracker isn't there.
        """
        if self.ranks.is_first:
            self.trackers = open_trackers(self.recipe, self.run_folder, self.step)
            rates = matmul_rates(self.device)
            self._matrix_rate = rates[self.precision] * self.ranks.count
        try:
            self._train(on_step)
        finally:
            for tracker in self.trackers:
                tracker.close()

    def _train(self, on_step: Callable[[Progress], None]) -> None:
        plan = self.recipe.train
        limit = plan.max_hours * 3600 if plan.max_hours else float("inf")
        is_cut = self.ranks.is_first and not self._sheet.exists()
        if self.step >= plan.steps and self.ranks.any(is_cut):
            # The run was killed after its last checkpoint, and before the rest of that step.
            self._write_bundle()
            self._write_sheet()
        with self._catching_signals():
            while self.step < plan.steps and self.seconds < limit:
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
                stop = self.ranks.any(self._stop)
                if stop or done or self.step % plan.checkpoint_every == 0:
                    self.save()
                if done or self.step % plan.validate_every == 0:
                    self._validate()
                if done or self.step % plan.sample_every == 0:
                    self._write_sheet()
                if stop:
                    self.checkpoints.finish()
                    raise Interrupted(
                        f"stopped after step {self.step} of {plan.steps}; the run is saved",
                        "run the same command again to continue",
                    )
            self.checkpoints.finish()

    def _train_step(self) -> dict[str, float]:
        plan = self.recipe.train
        rate = learning_rate(self.step, plan.steps, self.recipe.optimizer)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.objective.train()
        found: list[Figures] = []
        for micro in self.micros:
            is_last = micro == self.micros[-1]
            with synchronising(self.objective, is_last):
                with self._autocast():
                    index = self.step * plan.accumulate + micro
                    loss, told = self.task.loss(index, self.objective)
                (loss / len(self.micros)).backward()
            found.append({"loss": weighed(loss), **told})
        parameters = self.task.model.parameters()
        norm = whole(nn.utils.clip_grad_norm_(parameters, self.recipe.optimizer.clip_norm)).item()
        figures = means(found, self.ranks)
        self._fault = self.guard.fault(self.step + 1, figures["loss"], norm)
        if self._fault is None:
            self.optimizer.step()
            self.ema.update_(trained(self.task.model), self.step)
        self.optimizer.zero_grad(set_to_none=True)
        return {**figures, "gradient_norm": norm, "learning_rate": rate}

    def _autocast(self) -> torch.autocast:
        is_on = self.is_half and not is_sharded(self.objective)  # FSDP2 has a way of its own
        return torch.autocast(self.device.type, torch.bfloat16, enabled=is_on)

    def _progress(self, figures: dict[str, float], elapsed: float) -> Progress:
        plan = self.recipe.train
        of_a_pass = {name: figures.pop(name) for name in OF_A_PASS if name in figures}
        tokens, waited = of_a_pass.get(TOKENS), of_a_pass.get(WAITED)
        operations, share = of_a_pass.get(OPERATIONS), None
        if operations is not None and self._matrix_rate:
            share = operations * plan.accumulate / elapsed / self._matrix_rate
        return Progress(
            self.step,
            plan.steps,
            figures["loss"],
            of_a_pass.get(CLIPS, plan.batch_size) * plan.accumulate / elapsed,
            None if tokens is None else tokens * plan.accumulate / elapsed,
            (plan.steps - self.step) * elapsed,
            None if waited is None else waited * len(self.micros) / elapsed,
            share,
            self._fault,
        )

    def _log(self, figures: dict[str, float], now: Progress | None = None) -> None:
        if self.ranks.is_first:
            log_figures(self.run_folder, self.step, self.seconds, figures, now)
            for tracker in self.trackers:
                tracker.log(self.step, figures)

    @torch.no_grad()
    def _validate(self) -> None:
        """Log the averaged weights' loss on data that isn't trained on."""
        passes = -(-self.recipe.train.validation_passes // self.ranks.count)
        found: list[Figures] = []
        with self._averaged_weights(), gathered(self.objective), self._autocast():
            for turn in range(passes):
                index = turn * self.ranks.count + self.ranks.rank
                figures = self.task.validation_loss(index, self.objective)
                if figures is None:
                    return
                found.append(figures)
        told = means(found, self.ranks)
        self._log({f"validation_{n}": value for n, value in told.items() if n not in OF_A_PASS})

    def _write_sheet(self) -> None:
        """Draw with the averaged weights; where no rank holds all weights, all draw alike."""
        if not (self.ranks.is_first or is_sharded(self.objective)):
            return
        with self._averaged_weights(), gathered(self.objective), self._autocast(), torch.no_grad():
            sheet = self.task.draw_sheet()
        if sheet is not None and self.ranks.is_first:
            self._sheet.parent.mkdir(parents=True, exist_ok=True)
            write_media(self._sheet, sheet[None], 1.0)

    @property
    def _sheet(self) -> Path:
        return self.run_folder / "samples" / f"step-{self.step:07d}.png"

    @contextlib.contextmanager
    def _averaged_weights(self) -> Iterator[None]:
        """The model has the averaged weights meanwhile, and is in evaluation mode."""
        parameters = trained(self.task.model)
        kept = {name: p.detach().clone() for name, p in parameters.items()}
        try:
            _set_(parameters, self.ema.average)
            self.objective.eval()
            yield
        finally:
            _set_(parameters, kept)

    @contextlib.contextmanager
    def _catching_signals(self) -> Iterator[None]:
        def stop(number: int, frame: object) -> None:
            # A launcher hands on what the terminal has already sent to all of its ranks.
            if self._stop and self.ranks.count == 1:
                raise KeyboardInterrupt
            self._stop = True
            log.info("stopping after this step; once more to stop at once")

        previous = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


@torch.no_grad()
def _set_(parameters: dict[str, nn.Parameter], values: dict[str, Tensor]) -> None:
    """Give parameters other values."""
    for name, parameter in parameters.items():
        parameter.copy_(values[name])
