"""A generator's network from a Qwen3 language model that transformers wrote."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from tiny_qwen3 import NUM_EMBEDDINGS, NUM_IDS, THETA, write_qwen3

from ursa_core.bundle.qwen3 import QWEN3_MODEL, initialise_from_qwen3_, read_qwen3
from ursa_core.errors import CheckpointError
from ursa_core.grids import LatentGrid
from ursa_core.models.presets import Size
from ursa_core.models.transformer import Transformer, TransformerConfig, positions, rotations

CODEBOOK = torch.randn(24, 3, generator=torch.Generator().manual_seed(1))
EMBEDDINGS, HEAD = "model.embed_tokens.weight", "lm_head.weight"
VARIANTS = {
    "one file": {"tied": False, "dtype": torch.float32, "shard_size": "1GB"},
    "tied shards": {"tied": True, "dtype": torch.bfloat16, "shard_size": "40KB"},
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Folder and language model of each variant."""
    folder = tmp_path_factory.mktemp("qwen3")
    return {
        name: (folder / name, write_qwen3(folder / name, **VARIANTS[name])) for name in VARIANTS
    }


@pytest.fixture
def shards(written, tmp_path):
    return shutil.copytree(written["tied shards"][0], tmp_path / "lm")


def empty_network(folder, num_ids=NUM_IDS):
    theirs = read_qwen3(folder)
    size = Size(**{name: getattr(theirs, name) for name in Size.__dataclass_fields__})
    config = TransformerConfig.from_size(size, num_ids, len(CODEBOOK) + 1, NUM_IDS - 1)
    return Transformer(
        replace(config, rope_theta=theirs.rope_theta, rms_norm_eps=theirs.rms_norm_eps)
    ).eval()


def start(folder, **sizes):
    model = empty_network(folder, **sizes)
    initialise_from_qwen3_(model, folder, CODEBOOK, torch.Generator().manual_seed(2))
    return model


def edit(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize("name", VARIANTS)
def test_text_embeddings_layers_and_norm_are_the_language_models(written, name):
    folder, language_model = written[name]
    assert (len(list(folder.glob("*.safetensors"))) > 1) == (name == "tied shards")
    state, theirs = start(folder).state_dict(), language_model.state_dict()
    assert set(state) == set(theirs) | {HEAD}
    for key in set(state) - {HEAD, EMBEDDINGS}:
        assert torch.equal(state[key], theirs[key].float()), key
    assert len(theirs[EMBEDDINGS]) == NUM_EMBEDDINGS
    assert torch.equal(state[EMBEDDINGS][:NUM_IDS], theirs[EMBEDDINGS][:NUM_IDS].float())


def test_code_embeddings_and_head_are_new_in_proportion_to_what_they_meet(written):
    folder, _ = written["one file"]
    state, new = start(folder).state_dict(), empty_network(folder)
    new.initialise_(CODEBOOK, torch.Generator().manual_seed(2))
    new = new.state_dict()
    spread = state[EMBEDDINGS][:NUM_IDS].square().mean().sqrt()
    gain = state["model.norm.weight"].square().mean().sqrt()
    assert spread < 0.5
    assert gain > 1.1
    for rows, expected in (
        (state[EMBEDDINGS][NUM_IDS:], new[EMBEDDINGS][NUM_IDS:] * spread),
        (state[HEAD], new[HEAD] / gain),
    ):
        torch.testing.assert_close(rows, expected, rtol=1e-5, atol=1e-6)


def test_hidden_states_of_text_are_the_language_models_with_full_attention(written):
    folder, language_model = written["one file"]
    model = start(folder)
    assert model.config.rope_theta == THETA
    assert model.config.rms_norm_eps == 1e-5
    ids = torch.randint(NUM_IDS, (2, 11), generator=torch.Generator().manual_seed(3))
    coordinates = positions(10, LatentGrid(1, 1, 1))[:11]
    with torch.no_grad():
        ours = model.model(ids, *rotations(coordinates, 16, model.config.rope_theta))
        all_seen = language_model.model(ids, attention_mask=torch.zeros(2, 1, 11, 11))
        causal = language_model.model(ids)
    torch.testing.assert_close(ours, all_seen.last_hidden_state, rtol=1e-4, atol=1e-5)
    assert (ours - causal.last_hidden_state).abs().max() > 0.1


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"model_type": "llama"}, "describes a model of type 'llama'"),
        ({"model_type": None}, "describes a model of type None"),
        ({"hidden_size": "32"}, "hidden_size can't be '32'"),
        ({"num_hidden_layers": None}, "num_hidden_layers can't be None"),
        ({"attention_bias": True}, "attention_bias can't be True"),
        ({"use_sliding_window": True}, "use_sliding_window can't be True"),
        ({"hidden_act": "gelu"}, "hidden_act can't be 'gelu'"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6}}, "rope_parameters can't be"),
        ({"rope_parameters": None, "rope_scaling": {"type": "linear"}}, "rope_scaling can't be"),
        ({"rope_parameters": None, "rope_theta": None}, "rope_theta can't be None"),
    ],
)
def test_another_kind_of_model_is_refused(shards, changes, match):
    edit(shards / "config.json", **changes)
    with pytest.raises(CheckpointError, match=match) as caught:
        QWEN3_MODEL.check(shards)
    assert caught.value.hint


def test_missing_files_are_named(shards):
    QWEN3_MODEL.check(shards)
    first, *_ = sorted(shards.glob("model-*.safetensors"))
    first.unlink()
    with pytest.raises(CheckpointError, match=f"lacks {first.name}"):
        QWEN3_MODEL.check(shards)
    with pytest.raises(CheckpointError, match=f"{first.name} is missing"):
        start(shards)
    (shards / "model.safetensors.index.json").unlink()
    (shards / "tokenizer.json").unlink()
    for name in ("vocab.json", "merges.txt"):
        (shards / name).unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match=r"lacks model\.safetensors, tokenizer\.json"):
        QWEN3_MODEL.check(shards)
    (shards / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"lacks config\.json"):
        QWEN3_MODEL.check(shards)


def test_damaged_files_are_named(shards):
    last = sorted(shards.glob("model-*.safetensors"))[-1]
    whole = last.read_bytes()
    for content in (whole[:100], whole[:-4]):
        last.write_bytes(content)
        with pytest.raises(CheckpointError, match=f"{last.name} is damaged"):
            start(shards)


def test_tensors_that_do_not_fit_the_config_are_named(shards):
    edit(shards / "config.json", num_hidden_layers=3)
    with pytest.raises(CheckpointError, match=r"lacks the tensor model\.layers\.2\."):
        start(shards)
    edit(shards / "config.json", num_hidden_layers=2, vocab_size=310)
    match = rf"{EMBEDDINGS} has shape \({NUM_EMBEDDINGS}, 32\), .* asks for \(310, 32\)"
    with pytest.raises(CheckpointError, match=match):
        start(shards)


def test_each_text_id_needs_an_embedding(shards):
    assert len(start(shards, num_ids=NUM_EMBEDDINGS).state_dict()[EMBEDDINGS]) == 325
    with pytest.raises(CheckpointError, match="has 300 embeddings for the 301 ids"):
        start(shards, num_ids=NUM_EMBEDDINGS + 1)
