"""What the trainer asks of what it trains."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ursa_core.bundle.bundle import Bundle, save_bundle
from ursa_core.bundle.options import SamplingOptions
from ursa_core.bundle.subjects import Subject
from ursa_core.encoding.caption_fit import CaptionFit
from ursa_core.errors import RecipeError, UsageError
from ursa_core.media.frames import Frames, contact_sheet
from ursa_core.models.transformer import Transformer
from ursa_core.recipe.fields import GeneratorRecipe, Recipe, RewardRecipe
from ursa_core.sampling.generate import Request, decode, generate
from ursa_core.training.generator.lora import LoraTraining
from ursa_core.training.metrics import Metrics


def check_corrector(key: str, options: SamplingOptions, solvers: Sequence[str]) -> None:
    """Refuse, as a RecipeError of ``key``, a corrector that a model's solver can't have."""
    try:
        options.solver_of(solvers)
    except UsageError as error:
        raise RecipeError(f"{key}.correct: {error.message}", f"give {key}.correct=0") from error


class Learner(ABC):
    """A model, its data and loss, and the model folder that it makes."""

    recipe: Recipe
    device: torch.device
    model: nn.Module  # the network whose weights are trained
    objective: nn.Module  # the module around the model, or the model, that `loss` calls
    reference: Transformer | None = None  # a frozen network next to the model
    blocks: Sequence[nn.Module] = ()  # parts of the model that run one after another
    base: str | None = None  # identity of frozen weights that checkpoints don't hold
    num_clips: int | None = None  # clips of the data
    data_identity: str | None = None  # digits that change with the data
    vocabulary: str | None = None  # digits that change with the text tokenizer

    @abstractmethod
    def loss(self, index: int, objective: nn.Module) -> tuple[Tensor, Metrics]:
        """Loss of micro-batch ``index`` and metrics to log, with the same names each time."""

    @property
    def counts(self) -> dict[str, int]:
        """Counts of the data by name."""
        return {} if self.num_clips is None else {"clips": self.num_clips}

    def largest_loss(self, objective: nn.Module) -> tuple[Tensor, Metrics]:
        """As ``loss``, of a micro-batch that takes the most memory."""
        return self.loss(0, objective)

    def validation_loss(self, index: int, objective: nn.Module) -> Metrics | None:
        """Metrics of pass ``index`` over the validation data; None without such data."""
        return None

    def caption_fit(self) -> CaptionFit | None:
        """What the text tokenizer loses of captions; None without a text tokenizer."""
        return None

    def state(self, micros: Sequence[int]) -> dict[str, Tensor]:
        """Tensors that checkpoints hold for these micro-batches of a step, if there are any."""
        return {}

    def stop_reason(self, validation: Mapping[str, float]) -> str | None:
        """Why metrics of the validation have to stop the run; None if they don't."""
        return None

    @abstractmethod
    def write_bundle(self, folder: Path, weights: dict[str, Tensor]) -> None:
        """Write ``weights`` as a model folder."""

    @abstractmethod
    def sample_grid(self) -> Frames | None:
        """Picture of what the model makes now, with fixed seeds; None if there is none to make."""


class ModelLearner(Learner):
    """A learner of a network that samples clips."""

    recipe: GeneratorRecipe | RewardRecipe
    model: Transformer
    adapter: LoraTraining | None = None
    subjects: tuple[Subject, ...] = ()  # those that the model draws by name

    @property
    @abstractmethod
    def made(self) -> Bundle:
        """The model that the run makes, with the present weights."""

    def write_bundle(self, folder: Path, weights: dict[str, Tensor]) -> None:
        """Write the model folder, or that of the adapter."""
        if self.adapter is not None:
            self.adapter.save(folder, weights)
            return
        made = self.made
        parts = (made.path, made.video_tokenizer.codebook, made.text_tokenizer)
        save_bundle(folder, self.model, weights, *parts, made.folder, made.settings, self.subjects)

    def sample_grid(self) -> Frames | None:
        """One clip per sample prompt, with seed 0; None without prompts."""
        made, prompts = self.made, self.recipe.samples.prompts
        clips = [decode(made, generate(made, Request(prompt))) for prompt in prompts]
        return contact_sheet(clips, columns=2) if clips else None
