"""Trains a generator: cross-entropy on x_1 from x_t along a probability path.

Source: Sec. 3.2 of the paper. Each clip draws one time for all its frames, or one for each
(asynchronous), and with some probability loses its caption, for guidance.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ursa_core.bundle import Bundle, load_tokenizer, resolve_model, save_bundle
from ursa_core.bundle_settings import BundleSettings
from ursa_core.data.shards import read_shards
from ursa_core.errors import CheckpointError, DataError
from ursa_core.grids import LatentGrid
from ursa_core.media import write_media
from ursa_core.media.frames import contact_sheet
from ursa_core.path.base import Path as ProbabilityPath
from ursa_core.path_files import build_path
from ursa_core.recipe import GeneratorRecipe
from ursa_core.sampling.generate import GenerateOptions, decode, generate
from ursa_core.seeding import stream
from ursa_core.subjects import Subject, load_subjects
from ursa_core.tokenizers.text import TextTokenizer
from ursa_core.training.generator_start import build_network, find_start, start_tokenizer
from ursa_core.training.token_batches import TokenBatches

TIME_BINS = 4


class GeneratorTask:
    """Denoising of token clips.

    Args:
        recipe: model, data, path and objective.
        device: to train on.

    Raises:
        CheckpointError: the tokenizer or the model to start from can't be had or used.
        DataError: the shards are empty or belong to another tokenizer.
        RecipeError: the parts don't fit together.
    """

    def __init__(self, recipe: GeneratorRecipe, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        self.start = find_start(recipe.init) if recipe.init else None
        self.tokenizer_folder = _tokenizer_folder(recipe.tokenizer)
        self.video_tokenizer, _, identity = load_tokenizer(self.tokenizer_folder, device)
        self.table = read_shards(*recipe.data.shards)
        if self.table.identity.tokenizer != identity:
            raise DataError(
                f"the shards in {', '.join(recipe.data.shards)} were made by another tokenizer",
                f"make them anew: ursa tokenize … --model {recipe.tokenizer}",
            )
        self.batches = TokenBatches(recipe, self.table)
        self.subjects = _subjects(recipe.data.shards)
        self.text_tokenizer = self._text_tokenizer()
        codebook = self.video_tokenizer.codebook
        path = {"path": recipe.path.kind, "alpha": recipe.path.alpha, "c": recipe.path.c}
        self.path: ProbabilityPath = build_path(path, codebook).to(device)
        self.model = build_network(
            recipe, self.start, self.text_tokenizer, self.path.num_states, codebook
        ).to(device)
        self._forward = torch.compile(self.model) if recipe.train.compile else self.model

    def _text_tokenizer(self) -> TextTokenizer:
        length = self.recipe.model.max_prompt_length
        if self.start is not None:
            return start_tokenizer(self.start, length)
        if self.recipe.text_tokenizer != "words":
            return TextTokenizer.load(Path(self.recipe.text_tokenizer), length)
        captions = {caption for several in self.batches.captions for caption in several}
        return TextTokenizer.from_words(sorted(captions), length)

    def batch(self, index: int) -> tuple[Tensor, Tensor, Tensor, LatentGrid]:
        """Codes (B, L), prompt ids (B, S), times (B, L) and grid of micro-batch ``index``."""
        made, to = self.batches.batch(index), self.device
        ids = self.text_tokenizer.encode(made.prompts)
        return made.codes.to(to), ids.to(to), made.times.to(to), made.grid

    def loss(self, index: int) -> tuple[Tensor, dict[str, float]]:
        """Mean cross-entropy of micro-batch ``index`` in nats, also by time bin."""
        x_1, prompt_ids, times, grid = self.batch(index)
        noise = stream(self.recipe.seed, "corruption", index, self.device)
        x_t = self.path.corrupt(x_1, times, noise)
        logits = self.model.head(self._forward(prompt_ids, x_t, grid))
        each = F.cross_entropy(logits.flatten(0, 1).float(), x_1.flatten(), reduction="none")
        figures = {}
        bins = (times.flatten() * TIME_BINS).long().clamp_max(TIME_BINS - 1)
        for number in range(TIME_BINS):
            inside = each.detach()[bins == number]
            if len(inside):
                figures[f"loss_time_{number + 1}_of_{TIME_BINS}"] = float(inside.mean())
        return each.mean(), figures

    def settings(self) -> BundleSettings:
        """Defaults of the bundle that this run makes."""
        shape = self.video_tokenizer.strides.pixels(self.batches.grid)
        sampling = self.recipe.sampling
        return BundleSettings(
            max_prompt_length=self.recipe.model.max_prompt_length,
            frames=shape.frames,
            height=shape.height,
            width=shape.width,
            fps=sampling.fps,
            steps=sampling.steps,
            guidance=sampling.guidance,
            guidance_interval=sampling.guidance_interval,
            shift=sampling.shift,
            temperature=sampling.temperature,
            motion_prefix=False,
            chain="tokens" if self.batches.has_middles else "pixels",
        )

    def write_bundle(self, folder: Path, weights: dict[str, Tensor]) -> None:
        """Write the whole model folder."""
        save_bundle(
            folder,
            self.model,
            weights,
            self.path,
            self.video_tokenizer.codebook,
            self.text_tokenizer,
            self.tokenizer_folder,
            self.settings(),
            self.subjects,
        )

    def write_sheet(self, file: Path) -> None:
        """A clip for each sample prompt, seed 0."""
        bundle = Bundle(
            file.parent,
            self.model,
            self.video_tokenizer,
            self.text_tokenizer,
            self.path,
            self.settings(),
            self.device,
        )
        clips = [
            decode(bundle, made.codes)
            for prompt in self.recipe.samples.prompts
            for made in generate(bundle, GenerateOptions(prompt))
        ]
        if clips:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_media(file, contact_sheet(clips, columns=2)[None], 1.0)


def _tokenizer_folder(tokenizer: str) -> Path:
    """Folder of the recipe's video tokenizer; its errors also tell how to make one."""
    try:
        return resolve_model(tokenizer)
    except CheckpointError as error:
        error.hint += "; or train it first, as recipes/nano_tokenizer.yaml"
        raise


def _subjects(shards: Sequence[str]) -> tuple[Subject, ...]:
    """The subjects that folders of shards list, each once."""
    listed = [subject for folder in shards for subject in load_subjects(Path(folder))]
    return tuple(dict.fromkeys(listed))
