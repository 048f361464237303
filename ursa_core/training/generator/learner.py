"""The generator's learner: its data, network and path; the step itself is in ``objective``."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ursa_core.bundle.bundle import Bundle, load_tokenizer, resolve_model
from ursa_core.bundle.path_files import make_path
from ursa_core.bundle.settings import BundleSettings, motion_prompt
from ursa_core.bundle.subjects import load_subjects
from ursa_core.encoding.caption_fit import CaptionFit, measure_captions
from ursa_core.errors import CheckpointError, DataError, RecipeError
from ursa_core.grids import LatentGrid
from ursa_core.places import mirror_of
from ursa_core.recipe.fields import GeneratorRecipe
from ursa_core.seeding import stream, stream_seed
from ursa_core.tokenizers.text import TextTokenizer
from ursa_core.tokens.shards import read_shards
from ursa_core.training.generator.batches import Mixture, TokenBatch, TokenBatches
from ursa_core.training.generator.estimates import pass_operations
from ursa_core.training.generator.lora import LoraTraining, check_start
from ursa_core.training.generator.objective import DenoisingObjective
from ursa_core.training.generator.start import build_network, find_start, start_tokenizer
from ursa_core.training.learner import ModelLearner
from ursa_core.training.metrics import CLIPS, OPERATIONS, TOKENS, WAITED, Metrics, weighed
from ursa_core.training.prefetch import Prefetcher

Batch = tuple[Tensor, Tensor, Tensor, LatentGrid, Tensor | None]


class GeneratorLearner(ModelLearner):
    """Denoising of token clips; an ``empty`` network, for a plan, takes no memory."""

    recipe: GeneratorRecipe
    objective: DenoisingObjective
    words: Sequence[str] = ()  # words that the data add to the vocabulary of the start

    def __init__(self, recipe: GeneratorRecipe, device: torch.device, *, empty: bool) -> None:
        self.recipe, self.device = recipe, device
        self.start = find_start(recipe.init) if recipe.init else None
        self.tokenizer_folder = _tokenizer_folder(recipe.tokenizer)
        self.video_tokenizer, _, identity = load_tokenizer(self.tokenizer_folder, device)
        data = recipe.data
        lanes, mixture = recipe.train.accumulate, recipe.mixture
        self.batches = _batches(recipe, mixture, identity, lanes)
        self.num_clips, self.data_identity = self.batches.num_clips, self.batches.data_identity
        self.validation: TokenBatches | None = None
        if data.validation_shards:
            always = recipe.objective.model_copy(update={"caption_dropout": 0.0})
            changes = {"objective": always, "seed": stream_seed(recipe.seed, "validation")}
            again = recipe.model_copy(update=changes)
            self.validation = _batches(again, [(data.validation_shards, 1.0)], identity)
            self.data_identity += self.validation.data_identity
        folders = [mirror_of(folder) for shards, _ in mixture for folder in shards]
        folders += [self.start] if self.start else []
        self.subjects = tuple(dict.fromkeys(s for each in folders for s in load_subjects(each)))
        self._own_tokenizer = self.text_tokenizer = self._text_tokenizer()
        if recipe.vocabulary == "extend":
            if self.text_tokenizer.unknown_id is None:
                fault = f"vocabulary: {recipe.init} knows every text, there is nothing to extend"
                raise RecipeError(fault, "leave it out")
            self.words = self.text_tokenizer.new_words(sorted(set(self.batches.captions())))
        if self.words:
            self.text_tokenizer = self.text_tokenizer.extended(self.words)
        self.vocabulary = self.text_tokenizer.identity
        if data.motion_prefix and self.text_tokenizer.unknown_words(motion_prompt(9.5, "")):
            raise RecipeError(
                "data.motion_prefix: the recipe's text tokenizer has no numbers",
                "start from a language model, or name a text_tokenizer that has",
            )
        self._prefetcher = Prefetcher(lambda k: self._encoded(self.batches.batch(k)), data.workers)
        codebook, shape = self.video_tokenizer.codebook, recipe.path
        self.path = make_path(shape.kind, codebook, shape.alpha, shape.c).to(device)
        codes = (self.path.num_states, codebook)
        self.model = build_network(recipe, self.start, self._own_tokenizer, *codes, empty=empty)
        if self.words:
            width = self.model.config.hidden_size
            none = torch.zeros(len(self.words), width, device="meta" if empty else "cpu")
            self.model.add_words_(self._own_tokenizer.unknown_id or 0, none)
        self.blocks = list(self.model.model.layers)
        if self.start is not None:
            check_start(recipe, self.start, self.tokenizer_folder, self.path)
        if recipe.lora.rank is not None and self.start is not None:
            self.adapter = LoraTraining(recipe, self.start, self.model, self.words)
            self.base = self.adapter.base
        if not empty:
            self.model.to(device)
        if recipe.train.compile and not empty:
            self.model.model.compile()
        self.objective = DenoisingObjective(self.model, self.path)

    def _text_tokenizer(self) -> TextTokenizer:
        length = self.recipe.model.max_prompt_length
        if self.start is not None:
            return start_tokenizer(self.start, length)
        if self.recipe.text_tokenizer != "words":
            return TextTokenizer.load(Path(self.recipe.text_tokenizer), length)
        return TextTokenizer.from_words(sorted(set(self.batches.captions())), length)

    def caption_fit(self) -> CaptionFit:
        """Captions that the text tokenizer cuts or doesn't know, with motion prefix if asked."""
        prefix = motion_prompt(self.batches.motion, "") if self.recipe.data.motion_prefix else ""
        texts, is_extended = self._own_tokenizer, bool(self.words)
        fit = measure_captions(texts, self.batches.captions(), prefix.__add__)
        return replace(fit, is_extended=is_extended)

    @property
    def counts(self) -> dict[str, int]:
        """Counts of the data by name."""
        named = {"without a caption": self.batches.num_uncaptioned}
        named["shorter than latent_frames"] = self.batches.num_left_out
        sets = self.batches.sets if len(self.batches.sets) > 1 else ()
        of_sets = {f"of {name}, {share:.0%} of what a run takes": n for name, n, share in sets}
        return {**super().counts, **of_sets, **{name: num for name, num in named.items() if num}}

    def batch(self, index: int) -> Batch:
        """Codes (B, L), prompt ids (B, S), times (B, L), grid and noise of a micro-batch."""
        return self._prefetcher.take(index)

    def _encoded(self, made: TokenBatch) -> Batch:
        ids = self.text_tokenizer.encode(made.prompts)
        return made.codes, ids, made.times, made.grid, made.x_0

    def check_shapes(self) -> None:
        """Read a batch of each grid and run its shape through the empty network."""
        for bucket in self.batches.order.buckets:
            codes, ids, _, grid, _ = self._encoded(self.batches.example(bucket))
            self.model(ids.to("meta"), codes.to("meta"), grid)

    def loss(self, index: int, objective: nn.Module) -> tuple[Tensor, Metrics]:
        """Mean cross-entropy of micro-batch ``index`` in nats, and metrics."""
        generator = stream(self.recipe.seed, "corruption", index)
        loss, metrics = self._loss(self.batch(index), generator, objective)
        waited = weighed(loss.new_tensor(self._prefetcher.seconds_waited))
        return loss, {**metrics, WAITED: waited}

    def largest_loss(self, objective: nn.Module) -> tuple[Tensor, Metrics]:
        """As ``loss``, of the grid with the most tokens per pass."""
        buckets = self.batches.order.buckets
        largest = max(buckets, key=lambda each: each.batch_size * self.batches.tokens(each.grid))
        batch = self._encoded(self.batches.example(largest))
        return self._loss(batch, stream(self.recipe.seed, "corruption", 0), objective)

    def validation_loss(self, index: int, objective: nn.Module) -> Metrics | None:
        """Metrics of pass ``index`` over the validation shards; None without them."""
        if self.validation is None:
            return None
        generator = stream(self.recipe.seed, "validation corruption", index)
        batch = self._encoded(self.validation.batch(index))
        loss, metrics = self._loss(batch, generator, objective)
        return {"loss": weighed(loss), **metrics}

    def _loss(
        self, batch: Batch, generator: torch.Generator, objective: nn.Module
    ) -> tuple[Tensor, Metrics]:
        *tensors, grid, noise = batch
        x_1, prompt_ids, times = (each.to(self.device) for each in tensors)
        x_0 = None if noise is None else noise.to(self.device)
        loss, by_time = objective(prompt_ids, x_1, times, grid, generator, x_0)
        recompute, lora = self.recipe.train.recompute, self.recipe.lora
        per_clip = pass_operations(self.model.config, grid, prompt_ids.shape[1], recompute, lora)
        sizes = {
            TOKENS: prompt_ids.numel() + x_1.numel(),
            CLIPS: len(x_1),
            OPERATIONS: len(x_1) * per_clip,
        }
        metrics = {name: weighed(loss.new_tensor(value)) for name, value in sizes.items()}
        return loss, {**metrics, **by_time}

    def settings(self) -> BundleSettings:
        """Sampling defaults of the model that this run makes."""
        shape = self.video_tokenizer.strides.pixels(self.batches.grid)
        return BundleSettings(
            max_prompt_length=self.recipe.model.max_prompt_length,
            **vars(shape),
            **vars(self.recipe.sampling),
            motion_prefix=self.recipe.data.motion_prefix,
            motion=round(self.batches.motion, 1),
            chain="tokens" if self.batches.has_middles else "pixels",
            licence=self.recipe.licence or "not stated",
        )

    @property
    def made(self) -> Bundle:
        """The model that the run makes, with the present weights."""
        parts = (self.model, self.video_tokenizer, self.text_tokenizer, self.path)
        return Bundle(self.tokenizer_folder, *parts, self.settings(), self.device)


def _batches(
    recipe: GeneratorRecipe, mixture: Mixture, identity: str, lanes: int = 1
) -> TokenBatches:
    """Batches of token shards, which the tokenizer of that identity has to have made."""
    shards = [folder for folders, _ in mixture for folder in folders]
    table = read_shards(*shards)
    if table.identity.tokenizer != identity:
        hint = f"make them again: ursa tokenize … --model {recipe.tokenizer}"
        raise DataError(f"the shards in {', '.join(shards)} were made by another tokenizer", hint)
    return TokenBatches(recipe, table, lanes, mixture)


def _tokenizer_folder(tokenizer: str) -> Path:
    """Folder of the recipe's video tokenizer; errors also say how to train one."""
    try:
        return resolve_model(tokenizer)
    except CheckpointError as error:
        error.hint += "; or train it first, by a recipe of `kind: tokenizer`"
        raise
