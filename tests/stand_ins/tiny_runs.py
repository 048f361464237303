"""Recipes that train in a second, and calls that train them."""

from pathlib import Path

import torch
from torch.distributed.checkpoint import HuggingFaceStorageReader

from ursa_core.recipe.loading import load_recipe
from ursa_core.training.checkpoints import load_checkpoint_
from ursa_core.training.distributed import Ranks
from ursa_core.training.run import train_recipe

TOKENIZER = Path(__file__).with_name("tiny_tokenizer.yaml").read_text(encoding="utf-8")
REWARD = Path(__file__).with_name("tiny_reward.yaml").read_text(encoding="utf-8")

GENERATOR = """
kind: generator
name: tiny
tokenizer: TOKENIZER
model:
  preset: nano
  hidden_size: 32
  intermediate_size: 32
  num_hidden_layers: 2
  num_attention_heads: 2
  num_key_value_heads: 1
  head_dim: 16
  max_prompt_length: 12
data: {shards: SHARDS}
optimizer: {learning_rate: 1.0e-3, warmup_steps: 0}
train:
  {steps: 6, batch_size: 4, accumulate: 2, log_every: 1, checkpoint_every: 100, sample_every: 100}
sampling: {steps: 3, guidance: 2.0}
samples: {prompts: [a red circle grows on a navy background]}
"""


def silent(*_):
    pass


def recipe_of(text: str, folder: Path, *overrides: str):
    file = folder / "recipe.yaml"
    file.write_text(text)
    return load_recipe(file, list(overrides))


def train(
    text: str, folder: Path, name: str, *overrides: str, fresh: bool = False, on_step=silent, **more
):
    folder.mkdir(exist_ok=True)
    recipe = recipe_of(text, folder, *overrides)
    return train_recipe(recipe, folder / name, fresh, silent, on_step, **more)


def stored(checkpoint: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint, whole."""
    found = HuggingFaceStorageReader(str(checkpoint)).read_metadata().state_dict_metadata
    tensors = {n: torch.empty(m.size, dtype=m.properties.dtype) for n, m in found.items()}
    load_checkpoint_(checkpoint, tensors, Ranks())
    return tensors
