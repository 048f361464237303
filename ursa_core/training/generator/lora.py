"""LoRA, of peft's layers: low-rank changes to those of a model, whose own weights are frozen."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ursa_core import __version__
from ursa_core.bundle.adapters import NEW_WORDS, PREFIX, WORDS, save_adapter
from ursa_core.bundle.folder import model_identity, read_json, tokenizer_identity
from ursa_core.bundle.path_files import path_to_json
from ursa_core.bundle.settings import load_settings
from ursa_core.errors import RecipeError, unimportable
from ursa_core.models.transformer import Transformer
from ursa_core.path.base import ProbPath
from ursa_core.recipe.fields import GeneratorRecipe, RewardRecipe
from ursa_core.seeding import stream

_PATH_KEYS = ("path", "alpha", "c", "schedule")


class LoraTraining:
    """The adapter that a run trains: layers in the network that change nothing at first."""

    def __init__(
        self,
        recipe: GeneratorRecipe | RewardRecipe,
        start: Path,
        network: Transformer,
        words: Sequence[str] = (),
    ) -> None:
        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ImportError as error:
            raise unimportable(error, "peft", "lora.rank") from error
        rank = recipe.lora.rank or 1
        self._config = LoraConfig(
            r=rank,
            lora_alpha=recipe.lora.alpha or rank,  # type: ignore[arg-type]  # may be a fraction
            target_modules=list(recipe.lora.targets),
            base_model_name_or_path=str(recipe.init),
        )
        self.base, self._words = model_identity(start, ("transformer",)), list(words)
        inject_adapter_in_model(self._config, network)
        if words:
            train_last_words_(network, len(words))
        generator = stream(recipe.seed, "adapter")
        for name, parameter in network.named_parameters():
            if ".lora_A." in name and not parameter.is_meta:
                bound = parameter.shape[1] ** -0.5
                drawn = torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator)
                parameter.detach().copy_(drawn)

    def save(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        """Write the adapter in float32; ``weights`` have the network's names."""
        read: Callable[[], dict[str, Any]] = self._config.to_dict
        config = {**read(), "inference_mode": True}
        config["target_modules"] = sorted(config["target_modules"])
        base = config["base_model_name_or_path"]
        origin = {"base": base, "base_identity": self.base, "ursa": __version__}
        origin |= {WORDS: self._words} if self._words else {}
        named = {f"{PREFIX}{name.replace('.default.', '.')}": w for name, w in weights.items()}
        save_adapter(folder, named, config, origin)


def train_last_words_(network: Transformer, count: int) -> None:
    """Train a change of the embeddings of the last ``count`` text ids; the table stays frozen."""
    table, first = network.model.embed_tokens, network.config.lm_vocab_size - count
    table.register_parameter(NEW_WORDS, nn.Parameter(torch.zeros_like(table.weight[:count])))

    def add(module: nn.Module, given: tuple[Tensor], output: Tensor) -> Tensor:
        place = given[0] - first
        is_new = (place >= 0) & (place < count)
        changes = F.embedding(place.clamp(0, count - 1), module.get_parameter(NEW_WORDS))
        return output + changes * is_new[..., None]

    table.register_forward_hook(add)


def check_start(recipe: GeneratorRecipe, start: Path, tokenizer: Path, path: ProbPath) -> None:
    """Refuse a recipe whose path, or whose adapter, wouldn't fit the model that it starts from."""
    if not (start / "model_index.json").is_file():
        if recipe.lora.rank is None:
            return
        raise RecipeError(
            f"lora.rank asks for an adapter, but {recipe.init} is a language model, without codes",
            "train a model from it first, without lora.rank",
        )
    settings = load_settings(start)
    theirs = read_json(start / "scheduler" / "scheduler_config.json")
    ours = path_to_json(path, 1.0)
    pairs = {f"path.{key}": (ours.get(key), theirs.get(key)) for key in _PATH_KEYS}
    if is_adapter := recipe.lora.rank is not None:
        length = (recipe.model.max_prompt_length, settings.max_prompt_length)
        prefix = (recipe.data.motion_prefix, settings.motion_prefix)
        pairs |= {"model.max_prompt_length": length, "data.motion_prefix": prefix}
    faults = [f"{key} {given}, not {own}" for key, (given, own) in pairs.items() if given != own]
    if is_adapter and tokenizer_identity(tokenizer) != tokenizer_identity(start):
        faults.append(f"the tokenizer of {recipe.tokenizer}")
    if faults:
        raise RecipeError(
            f"what starts from {recipe.init} can't be trained with {'; '.join(faults)}",
            "give the recipe what that model has, or leave init out",
        )
