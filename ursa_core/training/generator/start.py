"""Initial weights of a generator: new ones, a model's, or a language model's."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ursa_core.bundle.bundle import load_bundle, resolve_model
from ursa_core.bundle.folder import URSA_MODEL, read_json
from ursa_core.bundle.qwen3 import (
    QWEN3_MODEL,
    Qwen3Config,
    check_qwen3,
    initialise_from_qwen3_,
    read_qwen3,
)
from ursa_core.errors import RecipeError
from ursa_core.models.presets import PRESETS
from ursa_core.models.transformer import Transformer, TransformerConfig
from ursa_core.recipe.fields import GeneratorRecipe
from ursa_core.seeding import stream
from ursa_core.tokenizers.text import BOV_WORD, TextTokenizer

BOV_WORDS = (BOV_WORD, "<|vision_start|>")


def find_start(init: str) -> Path:
    """Folder of the model that a recipe's ``init`` names.

    Raises:
        CheckpointError: There is no such model, or it is a language model that can't be used.
    """
    folder = resolve_model(init, layouts=(URSA_MODEL, QWEN3_MODEL))
    if _is_language_model(folder):
        check_qwen3(folder)
    return folder


def start_tokenizer(start: Path, max_prompt_length: int) -> TextTokenizer:
    """The text tokenizer of the model that training starts from."""
    folder = start if _is_language_model(start) else start / "tokenizer"
    return TextTokenizer.load(folder, max_prompt_length)


def build_network(
    recipe: GeneratorRecipe,
    start: Path | None,
    text_tokenizer: TextTokenizer,
    num_states: int,
    codebook: Tensor,
    *,
    empty: bool = False,
) -> Transformer:
    """The network that a recipe describes, with its initial weights.

    Another model also gives its rotary base and the epsilon of its norms.

    Args:
        recipe: Recipe of the run.
        start: Folder of a model or language model; None draws new weights.
        text_tokenizer: Tokenizer of the prompts.
        num_states: Number of codes, plus the mask if the path has one.
        codebook: float (K, C), vectors of the codes.
        empty: Whether to build it on the meta device, without memory or weights.

    Raises:
        RecipeError: The text tokenizer has no begin-of-video token, or the model to start from has
            another size than the recipe.
        CheckpointError: The model to start from is damaged.
    """
    config = _network_config(recipe, start, text_tokenizer, num_states)
    generator = stream(recipe.seed, "weights")
    if empty:
        with torch.device("meta"):
            return Transformer(config)
    if start is not None and not _is_language_model(start):
        return load_bundle(start).transformer
    model = Transformer(config)
    if start is None:
        model.initialise_(codebook, generator)
    else:
        initialise_from_qwen3_(model, start, codebook, generator)
    return model


def _network_config(
    recipe: GeneratorRecipe, start: Path | None, text_tokenizer: TextTokenizer, num_states: int
) -> TransformerConfig:
    """The recipe's configuration, which a model to start from has to share."""
    settings = recipe.model
    given = settings.model_dump(exclude={"preset", "max_prompt_length"}, exclude_none=True)
    size = replace(PRESETS[settings.preset], **given)
    bov = _bov_id(text_tokenizer, recipe.init or recipe.text_tokenizer)
    config = TransformerConfig.from_size(size, text_tokenizer.max_id + 1, num_states, bov)
    if start is None:
        return config
    if _is_language_model(start):
        language_model = read_qwen3(start)
        _require_equal(asdict(language_model.size), asdict(size), recipe)
        return _adopt(config, language_model)
    theirs = TransformerConfig.from_json(read_json(start / "transformer" / "config.json"))
    config = _adopt(config, theirs)
    _require_equal(asdict(theirs), asdict(config), recipe)
    return config


def _adopt(config: TransformerConfig, theirs: Qwen3Config | TransformerConfig) -> TransformerConfig:
    """The configuration, with values from the start that a recipe has no keys for."""
    return replace(config, rope_theta=theirs.rope_theta, rms_norm_eps=theirs.rms_norm_eps)


def _is_language_model(folder: Path) -> bool:
    return (folder / QWEN3_MODEL.mark).is_file() and not (folder / URSA_MODEL.mark).is_file()


def _bov_id(text_tokenizer: TextTokenizer, name: str) -> int:
    """Id of the begin-of-video token in the text tokenizer called ``name``."""
    for word in BOV_WORDS:
        found = text_tokenizer.token_id(word)
        if found is not None:
            return found
    raise RecipeError(
        f"the text tokenizer of {name} has no begin-of-video token",
        f"it needs one of {', '.join(BOV_WORDS)}",
    )


def _require_equal(theirs: dict[str, Any], ours: dict[str, Any], recipe: GeneratorRecipe) -> None:
    """Refuse a start whose size differs from the recipe's."""
    different = [f"{k} {theirs[k]}, not {ours[k]}" for k in ours if theirs[k] != ours[k]]
    if not different:
        return
    fitting = [name for name, size in PRESETS.items() if asdict(size).items() <= theirs.items()]
    raise RecipeError(
        f"the model {recipe.init} that training starts from has another size than the recipe:"
        f" {'; '.join(different)}",
        f"give model.preset={fitting[0]} and no other sizes"
        if fitting
        else "give the recipe that model's size",
    )
