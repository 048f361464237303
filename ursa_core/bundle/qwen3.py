"""A Qwen3 language model, as Hugging Face publishes them, as the start of a generator's network.

Layers and weight names are the same. The rows of text ids are taken from the table of embeddings,
without the padding at its end; codes and head are new.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ursa_core.bundle.folder import Layout, opened, read_json
from ursa_core.bundle.weights import check_tensors, weight_files
from ursa_core.configs import Whole, index_of, read_config, unusable
from ursa_core.errors import CheckpointError
from ursa_core.models.presets import Size
from ursa_core.models.transformer import NormEps, RopeTheta, Transformer

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
EMBEDDINGS = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
_FIXED = {"hidden_act": "silu", "attention_bias": False, "use_sliding_window": False}


@dataclass(frozen=True, kw_only=True)
class Qwen3Config(Size):
    """A Qwen3 ``config.json``; ``vocab_size`` counts all rows of embeddings, padding included."""

    vocab_size: Whole
    rope_theta: RopeTheta
    rms_norm_eps: NormEps


def read_qwen3(folder: Path) -> Qwen3Config:
    """The configuration of a Qwen3 folder; CheckpointError for what our network doesn't have."""
    file, config = folder / CONFIG, read_json(folder / CONFIG)
    if config.get("model_type") != "qwen3":
        raise CheckpointError(
            f"{file} describes a model of type {config.get('model_type')!r}",
            "start from a language model of type 'qwen3', as Qwen/Qwen3-0.6B",
        )
    for key, value in _FIXED.items():
        if config.get(key, value) != value:
            raise unusable(str(file), key, config[key], f"a model where it is {value!r}")
    key = "rope_parameters" if config.get("rope_parameters") else "rope_scaling"
    rope = config.get(key) or {}
    kind = rope.get("rope_type", rope.get("type", "default")) if isinstance(rope, dict) else None
    if kind != "default":
        raise unusable(str(file), key, rope, "a model whose rotary frequencies aren't scaled")
    return read_config(Qwen3Config, {**rope, **config}, str(file))


QWEN3_MODEL = Layout(
    kind="language model",
    example="Qwen/Qwen3-0.6B",
    mark=CONFIG,
    descriptions=(
        *(CONFIG, "README.md", "LICENSE*", index_of(WEIGHTS)),
        *("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"),
    ),
    weights=(WEIGHTS, "model-*.safetensors"),
    plain=(CONFIG,),
    networks=(WEIGHTS,),
    tokenizer="",
    check_kind=read_qwen3,
)


def initialise_from_qwen3_(
    model: Transformer, folder: Path, codebook: Tensor, generator: torch.Generator
) -> None:
    """Fill a network with a language model's text embeddings, layers and last norm.

    Code embeddings and head are drawn as for a new network, then scaled: the embeddings get the
    spread of the text's, and the head is divided by the last norm's gain, so that layers and logits
    begin with numbers of the usual size. The language model's weights are read one at a time.

    The codebook is float (K, C), the generator the CPU's. Weights that are damaged or don't fit, or
    fewer embeddings than text ids, are a CheckpointError.
    """
    state, num_ids = model.state_dict(), model.config.lm_vocab_size
    num_embeddings = read_qwen3(folder).vocab_size
    if num_embeddings < num_ids:
        raise CheckpointError(
            f"{folder} has {num_embeddings} embeddings for the {num_ids} ids of its text tokenizer",
            "get the model again; its parts are of two models",
        )
    shapes = {name: tuple(value.shape) for name, value in state.items() if name != HEAD}
    shapes[EMBEDDINGS] = (num_embeddings, model.config.hidden_size)
    files = weight_files(folder, WEIGHTS)
    files.pop(HEAD, None)  # predicts text
    check_tensors(shapes, folder, files)
    model.initialise_(codebook, generator)
    text, codes = state[EMBEDDINGS].split([num_ids, model.config.lm_head_size])
    for name, file in files.items():
        target = text if name == EMBEDDINGS else state[name]
        with opened(file) as tensors:
            target.copy_(tensors.get_slice(name)[: len(target)])
    codes.mul_(_root_mean_square(text))
    state[HEAD].div_(_root_mean_square(state["model.norm.weight"]))


def _root_mean_square(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x) / x.numel() ** 0.5
