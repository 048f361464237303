"""Model folders: the shipped one is whole, and a damaged one is refused by name."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ursa_core.bundle.bundle import load_bundle, load_tokenizer, resolve_model
from ursa_core.bundle.folder import WEIGHTS, shipped_models
from ursa_core.bundle.path_files import stored_codebook
from ursa_core.bundle.settings import load_settings
from ursa_core.errors import CheckpointError
from ursa_core.path.metric import MetricPath
from ursa_core.sampling.generate import Request, decode, generate
from ursa_core.tokenizers.image_vq import ImageTokenizer
from ursa_core.worlds.emoji import BACKGROUNDS

NANO = resolve_model("nano")


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(NANO, tmp_path / "nano")


def edit(file, **changes):
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, **changes}))


@pytest.mark.parametrize(("model", "most"), [("nano", 16_000_000), ("emoji", 32_000_000)])
def test_models_are_shipped_whole(model, most):
    bundle = load_bundle(model)
    assert isinstance(bundle.path, MetricPath)
    shape = bundle.settings.shape
    assert shape.frames >= 17
    assert min(shape.height, shape.width) >= 64
    assert bundle.grid(shape).frames == (shape.frames - 1) // 4 + 1
    folder = shipped_models()[model]
    files = {file: file.stat().st_size for file in folder.rglob("*") if file.is_file()}
    assert sum(files.values()) <= most
    assert max(files.values()) <= 15_000_000
    assert (folder / "README.md") in files
    assert not list(folder.rglob("*.pth"))


@pytest.mark.parametrize("model", ["nano", "emoji"])
def test_the_stored_codebook_is_the_tokenizers(model):
    tokenizer, _, _ = load_tokenizer(model)
    scheduler = shipped_models()[model] / "scheduler"
    stored = load_file(scheduler / "scheduler_model.safetensors")["path.emb"]
    assert torch.equal(stored, tokenizer.codebook)


def test_emoji_draws_the_background_it_is_told_and_another_figure_for_another_name():
    bundle = load_bundle("emoji")
    prompts = [f"a {name} on a purple background" for name in ("fox", "frog")]
    still = replace(bundle.settings.defaults, frames=1)
    images = [
        decode(bundle, generate(bundle, Request(prompt, options=still)))[0].astype(float)
        for prompt in prompts
    ]
    for image in images:
        assert np.abs(image[:4].mean((0, 1)) - BACKGROUNDS["purple"]).max() < 16
    (fox, frog) = (image[20:44, 20:44].mean((0, 1)) for image in images)
    assert fox[0] - fox[1] > 40, "a fox is orange"
    assert frog[1] > frog[2], "a frog isn't purple"


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


@pytest.fixture
def image(published_image_model, tmp_path):
    return shutil.copytree(published_image_model, tmp_path / "image")


def test_a_published_image_model_loads_with_the_papers_defaults(image):
    bundle = load_bundle(image, dtype=torch.bfloat16)
    assert isinstance(bundle.video_tokenizer, ImageTokenizer)
    assert {p.dtype for p in bundle.transformer.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in bundle.video_tokenizer.parameters()} == {torch.float32}
    settings = bundle.settings
    assert (settings.frames, settings.height, settings.width) == (1, 1024, 1024)
    assert (settings.steps, settings.guidance, settings.shift) == (25, 7.0, 2.0)
    assert not settings.motion_prefix
    assert bundle.grid(settings.shape).num_codes == 64 * 64
    # The path takes the codebook as it was stored, in float16.
    codebook = bundle.video_tokenizer.codebook
    stored = stored_codebook(image / "scheduler", codebook)
    assert torch.equal(stored, codebook.half().float())
    assert not torch.equal(stored, codebook)


def test_what_ursa_json_gives_comes_before_the_published_defaults(image):
    (image / "ursa.json").write_text('{"steps": 3}')
    settings = load_settings(image)
    assert (settings.steps, settings.frames, settings.shift) == (3, 1, 2.0)
    edit(image / "scheduler" / "scheduler_config.json", shift=None)
    with pytest.raises(CheckpointError, match="shift can't be None"):
        load_settings(image)


def test_a_tokenizer_of_unknown_class_is_refused_with_the_known_ones(image):
    edit(image / "vae" / "config.json", _class_name="AutoencoderKL")
    with pytest.raises(CheckpointError, match="AutoencoderKL") as caught:
        load_tokenizer(image)
    assert "AutoencoderVQCosmos3D" in caught.value.hint


class Evil:
    """Pickles into a call, as hostile checkpoints do."""

    def __reduce__(self):
        return print, ("the pickle was run",)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (Evil(), "more than tensors"),
        ({"path.emb": Evil()}, "more than tensors"),
        ({"emb": torch.zeros(512, 16)}, r"no tensor path\.emb"),
        ([1], r"no tensor path\.emb"),
        ({"path.emb": torch.zeros(512, 16).to_sparse()}, r"no tensor path\.emb"),
        ({"path.emb": torch.zeros(512, 16)}, "another codebook"),
        ({"path.emb": torch.zeros(512, 8)}, "another codebook"),
    ],
)
def test_a_pickled_codebook_is_read_as_tensors_alone(image, content, match, capfd):
    file = image / "scheduler" / "scheduler_model.pth"
    torch.save(content, file)
    with pytest.raises(CheckpointError, match=match) as caught:
        load_bundle(image)
    assert caught.value.hint
    assert "was run" not in capfd.readouterr().out


def test_a_cut_pickle_is_refused(image):
    file = image / "scheduler" / "scheduler_model.pth"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"scheduler_model\.pth can't be read"):
        load_bundle(image)


@pytest.mark.parametrize(
    ("name", "value"),
    [("frames", "many"), ("steps", 0), ("fps", None), ("guidance_interval", 3), ("shift", -1.0)],
)
def test_settings_that_cannot_be_used_are_named(copy, name, value):
    edit(copy / "ursa.json", **{name: value})
    with pytest.raises(CheckpointError, match=name):
        load_bundle(copy)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"alpha": "x"}, "alpha can.t be .x."),
        ({"c": 0}, "c can.t be 0"),
        ({"c": None}, "shape a path"),
    ],
)
def test_a_path_that_cannot_be_is_refused(copy, change, match):
    edit(copy / "scheduler" / "scheduler_config.json", **change)
    with pytest.raises(CheckpointError, match=match):
        load_bundle(copy)
