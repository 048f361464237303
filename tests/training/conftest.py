"""What the tests of training share."""

import pytest
from tiny_runs import GENERATOR, TOKENIZER, train

from ursa_core.bundle import load_tokenizer
from ursa_core.data.cuts import Cut
from ursa_core.data.items import find_items
from ursa_core.data.shard_writer import ShardWriter
from ursa_core.data.tokenizing import Tokenizing, token_identity
from ursa_core.grids import PixelShape


@pytest.fixture(scope="session")
def generator_recipe(tmp_path_factory):
    """Text of a generator recipe whose tokenizer and shards exist."""
    folder = tmp_path_factory.mktemp("generator")
    train(TOKENIZER, folder, "tokenizer", "train.steps=1")
    tokenizer, _, digest = load_tokenizer(folder / "tokenizer")
    cut = Cut(8.0, PixelShape(9, 32, 32))
    writer = ShardWriter(folder / "shards", token_identity(tokenizer, digest))
    items = find_items(["shapes:train"], num=24, seed=3, fps=8.0)
    for _ in Tokenizing(tokenizer, cut, writer, num_checked=0).run(items):
        pass
    return GENERATOR.replace("TOKENIZER", str(folder / "tokenizer")).replace(
        "SHARDS", str(folder / "shards")
    )
