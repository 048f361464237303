"""Ten losses of each kind of training, pinned: a change of code must not change what is learned."""

import json
from pathlib import Path

import pytest
import torch
from tiny_runs import GENERATOR, TOKENIZER, train

from ursa_core.bundle.bundle import load_tokenizer
from ursa_core.encoding.encode import token_identity
from ursa_core.tokens.writer import ShardWriter, TokenRow

GOLDEN = Path(__file__).parents[1] / "golden" / "losses.json"
PINNED = ("train.steps=10", "train.precision=float32", "train.sample_every=99", "seed=7")
KINDS = {
    "metric": (),
    "metric, asynchronous": ("objective.async_probability=1",),
    "mixture": ("path.kind=mixture",),
    "masked": ("path.kind=masked",),
    "muon": ("optimizer.kind=muon",),
}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """A generator recipe on codes drawn at random, which no rounding of a tokenizer changes."""
    folder = tmp_path_factory.mktemp("golden")
    train(TOKENIZER, folder, "tokenizer", "train.steps=1", "train.precision=float32")
    tokenizer, _, digest = load_tokenizer(folder / "tokenizer")
    generator = torch.Generator().manual_seed(0)
    with ShardWriter(folder / "shards", token_identity(tokenizer, digest)) as writer:
        for clip in range(24):
            codes = torch.randint(9, (3, 2, 2), generator=generator)
            caption = f"a {'red' if clip % 2 else 'blue'} circle grows on a navy background"
            writer.add(TokenRow(codes, (caption,), 8.0, 0.1, f"clip {clip}"))
    return GENERATOR.replace("TOKENIZER", str(folder / "tokenizer")).replace(
        "SHARDS", str(folder / "shards")
    )


def losses(text: str, folder: Path, *overrides: str) -> list[float]:
    train(text, folder, "run", *PINNED, *overrides)
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def pinned(name: str) -> list[float]:
    found: list[float] = json.loads(GOLDEN.read_text())[name]
    assert len(found) == 10
    return found


@pytest.mark.parametrize("name", KINDS)
def test_a_generator_learns_as_it_did(name, recipe, tmp_path):
    assert losses(recipe, tmp_path, *KINDS[name]) == pytest.approx(pinned(name), rel=1e-4)


def test_a_tokenizer_learns_as_it_did(tmp_path):
    assert losses(TOKENIZER, tmp_path) == pytest.approx(pinned("tokenizer"), rel=1e-4)


def test_an_adapter_learns_as_it_did(recipe, tmp_path):
    train(recipe, tmp_path, "base", *PINNED, "train.steps=2")
    lora = (f"init={tmp_path / 'base'}", "lora.rank=2", "lora.alpha=4", "name=mine")
    assert losses(recipe, tmp_path, *lora) == pytest.approx(pinned("lora"), rel=1e-4)
