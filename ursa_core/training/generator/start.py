"""Initial weights of a generator: new ones, a model's, or a language model's."""

from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from ursa_core.bundle import qwen3
from ursa_core.bundle.bundle import load_bundle, resolve_model
from ursa_core.bundle.folder import URSA_MODEL, read_json
from ursa_core.bundle.qwen3 import QWEN3_MODEL, Qwen3Config
from ursa_core.errors import RecipeError
from ursa_core.models.presets import PRESETS
from ursa_core.models.transformer import Transformer, TransformerConfig
from ursa_core.recipe.fields import GeneratorRecipe
from ursa_core.seeding import stream
from ursa_core.tokenizers.text import BOV_WORD, TextTokenizer

BOV_WORDS = (BOV_WORD, "<|vision_start|>")


def find_start(init: str) -> Path:
    """Folder of the model that a recipe's ``init`` names; a CheckpointError if it can't be used."""
    folder = resolve_model(init, layouts=(URSA_MODEL, QWEN3_MODEL))
    if _is_language_model(folder):
        QWEN3_MODEL.check(folder)
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
    """The network that a recipe describes, with its initial weights; ``empty`` on the meta device.

    A model to start from also gives its rotary base and the epsilon of its norms; without one
    weights are drawn, by the vectors ``codebook`` (K, C) of the codes.
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
        qwen3.initialise_from_qwen3_(model, start, codebook, generator)
    return model


def _network_config(
    recipe: GeneratorRecipe, start: Path | None, text_tokenizer: TextTokenizer, num_states: int
) -> TransformerConfig:
    given = recipe.model.model_dump(exclude={"preset", "max_prompt_length"}, exclude_none=True)
    size = replace(PRESETS[recipe.model.preset], **given)
    ids = map(text_tokenizer.token_id, BOV_WORDS)
    if (bov := next((found for found in ids if found is not None), None)) is None:
        raise RecipeError(
            f"the text tokenizer of {recipe.init or recipe.text_tokenizer} has no begin-of-video"
            " token",
            f"it needs one of {', '.join(BOV_WORDS)}",
        )
    config = TransformerConfig.from_size(size, text_tokenizer.max_id + 1, num_states, bov)
    if start is None:
        return config
    own: Qwen3Config | TransformerConfig
    if _is_language_model(start):
        own = qwen3.read_qwen3(start)
    else:
        own = TransformerConfig.from_json(read_json(start / "transformer" / "config.json"))
    # A recipe has no keys for these.
    config = replace(config, rope_theta=own.rope_theta, rms_norm_eps=own.rms_norm_eps)
    same = size if isinstance(own, Qwen3Config) else config
    theirs, ours = asdict(own), asdict(same)
    if different := [f"{k} {theirs[k]}, not {ours[k]}" for k in ours if theirs[k] != ours[k]]:
        fitting = [name for name, each in PRESETS.items() if asdict(each).items() <= theirs.items()]
        preset = f"give model.preset={fitting[0]} and no other sizes" if fitting else ""
        raise RecipeError(
            f"the model {recipe.init} that training starts from has another size than the recipe:"
            f" {'; '.join(different)}",
            preset or "give the recipe that model's size",
        )
    return config


def _is_language_model(folder: Path) -> bool:
    return (folder / QWEN3_MODEL.mark).is_file() and not (folder / URSA_MODEL.mark).is_file()
