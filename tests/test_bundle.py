"""Model folders: the shipped one is whole, and a damaged one is refused by name."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from ursa_core.bundle import (
    WEIGHTS,
    load_bundle,
    load_settings,
    load_tokenizer,
    resolve_model,
    shipped_models,
)
from ursa_core.errors import CheckpointError
from ursa_core.path.metric import MetricPath

NANO = resolve_model("nano")


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(NANO, tmp_path / "nano")


def edit(file, **changes):
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, **changes}))


def test_nano_is_shipped_whole():
    assert "nano" in shipped_models()
    bundle = load_bundle("nano")
    assert isinstance(bundle.path, MetricPath)
    shape = bundle.settings.shape
    assert shape.frames >= 17
    assert min(shape.height, shape.width) >= 64
    assert bundle.grid(shape).frames == (shape.frames - 1) // 4 + 1
    size = sum(file.stat().st_size for file in NANO.rglob("*") if file.is_file())
    assert size <= 16_000_000
    assert not list(NANO.rglob("*.pth"))


def test_the_stored_codebook_is_the_tokenizers():
    tokenizer, _, _ = load_tokenizer("nano")
    stored = load_file(NANO / "scheduler" / "scheduler_model.safetensors")["path.emb"]
    assert torch.equal(stored, tokenizer.codebook)


def test_identity_changes_with_the_weights(copy):
    _, _, before = load_tokenizer(copy)
    file = copy / "vae" / WEIGHTS
    state = load_file(file)
    name = next(iter(state))
    save_file({**state, name: state[name] + 1}, file)
    assert load_tokenizer(copy)[2] != before


@pytest.mark.parametrize(
    "part",
    [
        "model_index.json",
        "vae/config.json",
        f"vae/{WEIGHTS}",
        "transformer/config.json",
        f"transformer/{WEIGHTS}",
        "scheduler/scheduler_config.json",
        "tokenizer/tokenizer.json",
    ],
)
def test_a_missing_or_cut_part_is_named(copy, part):
    file = copy / part
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    if part != "model_index.json":  # the rest stays valid JSON by chance never
        with pytest.raises(CheckpointError) as caught:
            load_bundle(copy)
        assert caught.value.hint
    file.unlink()
    with pytest.raises(CheckpointError) as caught:
        load_bundle(copy)
    assert file.name in str(caught.value) or "tokenizer" in str(caught.value)


def test_a_wrong_shape_names_tensor_and_shapes(copy):
    edit(copy / "transformer" / "config.json", intermediate_size=128)
    with pytest.raises(CheckpointError, match=r"proj\.weight has shape .*asks for"):
        load_bundle(copy)


def test_foreign_tensors_are_named(copy):
    edit(copy / "transformer" / "config.json", num_hidden_layers=1)
    with pytest.raises(CheckpointError, match=r"foreign tensor model\.layers\.1"):
        load_bundle(copy)


def test_parts_of_two_models_are_refused(copy):
    edit(copy / "vae" / "config.json", levels=[5, 5, 5, 5, 5], num_vq_embeddings=3125)
    with pytest.raises(CheckpointError):
        load_bundle(copy)


def test_an_unknown_model_lists_the_shipped_ones():
    with pytest.raises(CheckpointError, match="no model 'nanoo'") as caught:
        resolve_model("nanoo")
    assert "nano" in caught.value.hint


def test_without_settings_the_published_defaults_hold(copy):
    (copy / "ursa.json").unlink()
    settings = load_settings(copy)
    assert (settings.frames, settings.height, settings.width) == (49, 320, 512)
    assert settings.max_prompt_length == 320
    assert settings.guidance == 7.0


def test_a_damaged_or_foreign_codebook_is_refused(copy):
    file = copy / "scheduler" / "scheduler_model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    with pytest.raises(CheckpointError, match="is damaged"):
        load_bundle(copy)
    file.write_bytes(whole)
    save_file({"path.emb": load_file(file)["path.emb"] + 1}, file)
    with pytest.raises(CheckpointError, match="another codebook"):
        load_bundle(copy)


@pytest.mark.parametrize(
    ("name", "value"),
    [("frames", "many"), ("steps", 0), ("fps", None), ("guidance_interval", 3), ("shift", -1.0)],
)
def test_settings_that_cannot_be_used_are_named(copy, name, value):
    edit(copy / "ursa.json", **{name: value})
    with pytest.raises(CheckpointError, match=name):
        load_bundle(copy)


@pytest.mark.parametrize("change", [{"alpha": "x"}, {"c": 0}, {"c": None}])
def test_a_path_that_cannot_be_is_refused(copy, change):
    edit(copy / "scheduler" / "scheduler_config.json", **change)
    with pytest.raises(CheckpointError, match="can't shape a path"):
        load_bundle(copy)
