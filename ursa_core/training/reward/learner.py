"""The learner of reward tuning: clips are sampled, scored, and made likelier or less likely."""

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ursa_core.bundle.bundle import Bundle, load_bundle, resolve_model
from ursa_core.bundle.folder import model_identity
from ursa_core.encoding.caption_fit import CaptionFit, measure_captions
from ursa_core.errors import RecipeError, UrsaError, UrsaWarning
from ursa_core.media.frames import Frames
from ursa_core.models.transformer import Transformer
from ursa_core.recipe.fields import RewardRecipe
from ursa_core.sampling.generate import Request, Sampler, decode, full_prompt
from ursa_core.sampling.time_grid import time_grid
from ursa_core.seeding import stream, stream_seed
from ursa_core.training.distributed import gathered
from ursa_core.training.generator.estimates import pass_operations, training_memory, with_held
from ursa_core.training.generator.lora import LoraTraining
from ursa_core.training.learner import ModelLearner, check_corrector
from ursa_core.training.metrics import OPERATIONS, Metrics, weighed
from ursa_core.training.prompts import prompts_of
from ursa_core.training.reward.objective import ClipLikelihood, advantages, diversity, reward_loss

# Scores of clips by their prompts; a text is why a clip has none.
Scorer = Callable[[Sequence[Frames], Sequence[str]], Sequence[float | str]]
Scorers = Mapping[str, tuple[float, Scorer]]  # weights and scorers by name
MOST_IN_A_ROW = 3  # micro-batches without any score
HELD_OUT = "held_out"  # name of the score that isn't among the rewards


class RewardLearner(ModelLearner):
    """Tunes a network to the weighted sum of the scores of ``scorers``; ``empty`` is for a plan."""

    recipe: RewardRecipe
    objective: ClipLikelihood

    def __init__(
        self, recipe: RewardRecipe, device: torch.device, scorers: Scorers, *, empty: bool = False
    ) -> None:
        self.recipe, self.device, self.scorers = recipe, device, scorers
        start = resolve_model(recipe.init or "")
        self.bundle = load_bundle(start, device, empty=empty)
        self.model, self.path = self.bundle.transformer, self.bundle.path
        self.subjects = self.bundle.subjects
        self.prompts = self._read("prompts", recipe.prompts)
        self.watched = self._read("watch.prompts", recipe.watch.prompts) if recipe.watch else []
        self._read("samples.prompts", recipe.samples.prompts)
        trained = {tuple(ids) for ids in self._ids(self.prompts)}
        pairs = zip(self.watched, self._ids(self.watched), strict=True)
        if both := [text for text, ids in pairs if tuple(ids) in trained]:
            known = f"{both[0]!r} is among the prompts, too, as the model reads it"
            raise RecipeError(f"watch.prompts: {known}", "hold it out")
        texts = json.dumps([self.prompts, self.watched])
        self.data_identity = hashlib.sha256(texts.encode()).hexdigest()[:16]
        rollout, settings = recipe.rollout, self.bundle.settings
        changed = rollout.model_dump(exclude={"group_size", "updates"}, exclude_none=True)
        self.options = replace(settings.defaults, **changed)
        self.grid = self.bundle.grid(self.options.shape)
        own = vars(recipe.sampling) if recipe.sampling else changed
        licence = recipe.licence or "not stated"
        self.settings = replace(settings, **own, times=None, licence=licence)
        check_corrector("rollout", self.options, self.path.solvers)
        check_corrector("sampling", self.settings.defaults, self.path.solvers)
        early = time_grid(self.options.steps, self.options.shift)[:-1]
        self.early = early[early <= recipe.objective.latest]
        if len(self.early) < recipe.objective.states:
            known = f"{len(self.early)} of the times of rollout.steps are up to objective.latest"
            raise RecipeError(f"objective.states: {known}", "give fewer states or more steps")
        clips = recipe.objective.states * recipe.train.batch_size  # each clip at all its states
        self._plan = recipe.train.model_copy(update={"batch_size": clips})
        if recipe.lora.rank is not None:
            self.adapter = LoraTraining(recipe, start, self.model)
            self.model.to("meta" if empty else device)
        elif not empty:
            self.reference = load_bundle(start, device).transformer.requires_grad_(False)
        self.base = self.adapter.base if self.adapter else model_identity(start, ("transformer",))
        self.blocks = list(self.model.model.layers)
        if recipe.train.compile and not empty:
            self.model.model.compile()
        self.objective = ClipLikelihood(self.model)
        self._kept: dict[int, dict[str, Tensor]] = {}
        self._of_start: dict[int, Metrics] = {}
        self._without_score = 0
        self._is_begun = recipe.train.distributed == "ddp"

    def _read(self, key: str, given: Sequence[str]) -> list[str]:
        """The texts that a key of the recipe names, all of which the model can read."""
        texts = prompts_of(given, self.bundle.subjects) if given else []
        if given and not texts:
            raise RecipeError(f"{key}: {given[0]} has none for this model", "give other prompts")
        for text in texts:
            prompt = full_prompt(self.bundle, Request(text))
            if unknown := self.bundle.text_tokenizer.unknown_words(prompt):
                raise RecipeError(
                    f"{key}: the model doesn't know {', '.join(unknown)} of {text!r}",
                    "leave it out, or start from a model that was trained with these words",
                )
        return texts

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts as the model reads them."""
        return self.bundle.text_tokenizer.encode(self._full(texts)).tolist() if texts else []

    def _full(self, texts: Sequence[str]) -> list[str]:
        return [full_prompt(self.bundle, Request(text)) for text in texts]

    def caption_fit(self) -> CaptionFit:
        """Prompts that the text tokenizer cuts."""
        prompts = self._full([*self.prompts, *self.watched])
        return measure_captions(self.bundle.text_tokenizer, prompts)

    def loss(self, index: int, objective: nn.Module) -> tuple[Tensor, Metrics]:
        """Loss of micro-batch ``index``, whose clips are sampled at the first of their updates."""
        micros, updates = self.recipe.train.accumulate, self.recipe.rollout.updates
        (step, micro), states = divmod(index, micros), self.recipe.objective.states
        turn, update = divmod(step, updates)
        metrics: Metrics = {}
        number = turn * micros + micro
        sampler = self.sampler(number)
        if not self._is_begun:  # FSDP2 has to run the whole before its blocks
            none = self._empty_rollout()["codes"]
            with torch.no_grad():
                objective(sampler.prompt_ids, none, none, sampler.grid, None)
            self._is_begun = True
        if update == 0:
            with gathered(objective), torch.no_grad():
                self._kept[micro], metrics = self.rollout(number, sampler)
        kept = self._kept[micro]
        x_1, x_t = self.states(number, kept["codes"])
        prompt_ids, mask = sampler.prompt_ids.repeat(states, 1), self.path.loss_mask(x_t)
        inputs = (prompt_ids, x_t, x_1, sampler.grid, mask)
        if update == 0:
            with torch.no_grad(), self._as_start() as start:
                network = objective if start is None else ClipLikelihood(start)
                kept["reference"].copy_(network(*inputs).view(states, -1))
        own = objective(*inputs).view(states, -1)
        if update == 0:
            kept["old"].copy_(own.detach())
        rest = (kept["old"], kept["reference"], kept["advantages"], self.recipe.objective)
        loss, of_loss = reward_loss(own, *rest)
        return loss, {**metrics, **of_loss, OPERATIONS: weighed(loss.new_tensor(self.cost()[1]))}

    def _empty_rollout(self) -> dict[str, Tensor]:
        clips, states = self.recipe.train.batch_size, self.recipe.objective.states
        sizes = {"advantages": (clips,), "old": (states, clips), "reference": (states, clips)}
        rest = {name: torch.zeros(size, device=self.device) for name, size in sizes.items()}
        codes = torch.zeros(clips, self.grid.num_codes, dtype=torch.int64, device=self.device)
        return {"codes": codes, **rest}

    def state(self, micros: Sequence[int]) -> dict[str, Tensor]:
        """Clips of these micro-batches and what is known of them, with several updates per clip."""
        if self.recipe.rollout.updates == 1:
            return {}
        kept = {micro: self._kept.setdefault(micro, self._empty_rollout()) for micro in micros}
        return {f"{m}.{name}": tensor for m in micros for name, tensor in kept[m].items()}

    def sampler(self, number: int) -> Sampler:
        """Sampler of the clips of rollout ``number``: groups of one prompt each."""
        clips, size = self.recipe.train.batch_size, self.recipe.rollout.group_size
        texts = []
        for group in range(number * clips // size, (number + 1) * clips // size):
            epoch, place = divmod(group, len(self.prompts))
            drawn = stream(self.recipe.seed, "prompts", epoch)
            order = torch.randperm(len(self.prompts), generator=drawn)
            texts += [self.prompts[int(order[place])]] * size
        return self._sampler(texts, "rollouts", number, self.bundle)

    def _sampler(self, texts: Sequence[str], name: str, number: int, bundle: Bundle) -> Sampler:
        seed, first = stream_seed(self.recipe.seed, name), number * len(texts)
        requests = [Request(text, seed, first + k, self.options) for k, text in enumerate(texts)]
        return Sampler(bundle, requests)

    def rollout(self, number: int, sampler: Sampler) -> tuple[dict[str, Tensor], Metrics]:
        """Sampled clips with their advantages, and metrics."""
        kept, group = self._empty_rollout(), self.recipe.rollout.group_size
        metrics, rewards, codes = self._scored(sampler, f"rollout {number}")
        kept["codes"].copy_(codes)
        kept["advantages"].copy_(advantages(rewards, group, self.recipe.objective.normalise))
        still = kept["advantages"].view(-1, group).eq(0).all(1).float()
        return kept, {**metrics, "groups_without_variation": weighed(still)}

    def _scored(self, sampler: Sampler, where: str, *others: str) -> tuple[Metrics, Tensor, Tensor]:
        """Metrics, ``others`` among them, rewards (B,) float64 on the CPU, and codes (B, L)."""
        made = sampler.sample()
        codes = torch.stack(made).flatten(1)
        prompts = [request.prompt for request in sampler.requests]
        clips = [decode(self.bundle, each) for each in made]
        rewards, metrics = torch.zeros(len(clips), dtype=torch.float64), {}
        failed = torch.zeros(len(clips), dtype=torch.bool)
        for name, (weight, scorer) in self.scorers.items():
            if name == HELD_OUT and name not in others:
                continue
            scores = []
            for k, score in enumerate(scorer(clips, prompts)):
                if is_failure := isinstance(score, str) or not math.isfinite(score):
                    self._failed(f"{name} of clip {k} of {where}, {prompts[k]!r}: {score}")
                scores.append(math.nan if is_failure else score)
            found = torch.tensor(scores, dtype=torch.float64)
            metrics[f"score_{name}"] = _known(found)
            failed |= found.isnan()
            rewards += 0.0 if name == HELD_OUT else weight * found
        self._without_score = self._without_score + 1 if failed.all() else 0
        if self._without_score == MOST_IN_A_ROW:
            hint = "correct the scorer; without any score there is nothing to learn"
            raise UrsaError(f"no clip has a score, up to {where}", hint)
        differing = diversity(codes, self.recipe.rollout.group_size)
        metrics |= {"reward": _known(rewards), "diversity": weighed(differing)}
        metrics["failed"] = weighed(failed.float())
        return {k: v.to(self.device) for k, v in metrics.items()}, rewards, codes

    def _failed(self, what: str) -> None:
        if self.recipe.on_failure == "stop":
            hint = "correct the scorer, or leave such clips out with on_failure=skip"
            raise UrsaError(f"there is no score {what}", hint)
        warnings.warn(f"left out, no score {what}", UrsaWarning, stacklevel=2)

    def states(self, number: int, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Targets x_1 and states x_t (T·B, L): each clip at neighbouring early times."""
        states, generator = self.recipe.objective.states, stream(self.recipe.seed, "states", number)
        first = int(torch.randint(len(self.early) - states + 1, (), generator=generator))
        times = self.early[first : first + states].repeat_interleave(len(codes))
        x_1 = codes.repeat(states, 1)
        return x_1, self.path.corrupt(x_1, times[:, None].to(self.device), generator)

    @contextmanager
    def _as_start(self) -> Iterator[Transformer | None]:
        """The network with the weights of the start; None is the adapted one, adapter off."""
        parts: list[Any] = list(self.model.modules())
        layers = [part for part in parts if self.adapter and hasattr(part, "set_scale")]
        for layer in layers:
            layer.set_scale("default", 0.0)
        try:
            yield self.reference
        finally:
            for layer in layers:
                layer.set_scale("default", 1.0)

    def validation_loss(self, index: int, objective: nn.Module) -> Metrics | None:
        """Scores of fixed clips of held-out prompts, now and at the start; None without such."""
        if not self.watched:
            return None
        size = self.recipe.rollout.group_size
        groups, where = range(self.recipe.train.batch_size // size), f"validation pass {index}"
        chosen = [self.watched[(index * len(groups) + g) % len(self.watched)] for g in groups]
        texts = [text for text in chosen for _ in range(size)]
        if index not in self._of_start:
            with self._as_start() as start:
                bundle = replace(self.bundle, transformer=start or self.model)
                sampler = self._sampler(texts, "watch", index, bundle)
                self._of_start[index] = self._scored(sampler, where, HELD_OUT)[0]
        now = self._scored(self._sampler(texts, "watch", index, self.bundle), where, HELD_OUT)[0]
        weight, _ = self.scorers.get(HELD_OUT, (1.0, None))
        worth = now[f"score_{HELD_OUT}" if HELD_OUT in self.scorers else "reward"]
        loss = worth * worth.new_tensor([-weight, 1.0])  # so that lower is better, as elsewhere
        before = {f"start_{name}": metric for name, metric in self._of_start[index].items()}
        return {"loss": loss, **now, **before}

    def stop_reason(self, validation: Mapping[str, float]) -> str | None:
        """Why a run has to stop: the clips of one prompt have become too similar."""
        if self.recipe.watch is None:
            return None
        now, start = validation["diversity"], validation["start_diversity"]
        if now >= self.recipe.watch.min_diversity * start:
            return None
        return f"diversity is {now:.3g}, and was {start:.3g}: under watch.min_diversity of it"

    @property
    def made(self) -> Bundle:
        """The model that the run makes."""
        return replace(self.bundle, settings=self.settings)

    def cost(self) -> tuple[int, float]:
        """Tokens and mean floating-point operations of a pass, without the scorers' own."""
        recipe, states = self.recipe, self.recipe.objective.states
        sizes = (self.model.config, self.grid, self.bundle.settings.max_prompt_length)
        clips = self._plan.batch_size
        forward = clips * pass_operations(*sizes, recompute=False) / 3
        calls = self.options.steps * (1 if self.options.guidance == 1 else 2) / states + 1
        operations = clips * pass_operations(*sizes, recipe.train.recompute, recipe.lora)
        tokens = clips * (sizes[2] + 1 + self.grid.num_codes)
        return tokens, operations + calls * forward / recipe.rollout.updates

    def memory(self, ranks: int, is_bfloat16: bool) -> dict[str, int]:
        """Estimated bytes on each rank's device by part, as ``training_memory``."""
        recipe, hardware = self.recipe, (ranks, is_bfloat16, self.device.type)
        sizes = (self.model.config, self.grid, self.bundle.settings.max_prompt_length)
        parts = training_memory(*sizes, self._plan, recipe.optimizer, *hardware, recipe.lora)
        start = {} if self.adapter else {"start": self.model}
        tokenizer = self.bundle.video_tokenizer
        parts = with_held(parts, self.bundle.path, tokenizer=tokenizer, **start)
        if start and is_bfloat16:  # the start's matrices are held in it, too
            layers = self.model.model.layers.parameters()
            spared = 2 * sum(each.numel() for each in layers if each.ndim == 2)
            parts |= {"start": parts["start"] - spared, "total": parts["total"] - spared}
        return parts


def _known(values: Tensor) -> Tensor:
    return weighed(values.nan_to_num(0.0), (~values.isnan()).double())
