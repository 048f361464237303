"""Networks of the official trainer and of others become models; what doesn't fit is refused."""

import json
import math
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_runs import train

from ursa_cli.main import main
from ursa_core.bundle.adapters import WEIGHTS as ADAPTER_WEIGHTS
from ursa_core.bundle.bundle import load_bundle, tokenizer_identity
from ursa_core.bundle.folder import WEIGHTS, folder_bytes
from ursa_core.bundle.settings import NEGATIVE, load_settings
from ursa_core.convert.checkpoint import convert_checkpoint
from ursa_core.errors import UrsaWarning
from ursa_core.sampling.generate import Request, generate

STEM = Path(WEIGHTS).stem
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


@pytest.fixture
def tuned(tiny_model):
    """Weights of a fine-tune of the tiny model, in float32 as averages are."""
    weights = load_file(tiny_model / "transformer" / WEIGHTS)
    drawn = torch.Generator().manual_seed(1)
    return {n: w.float() + 0.01 * torch.randn(w.shape, generator=drawn) for n, w in weights.items()}


@pytest.fixture
def checkpoint(tiny_model, tuned, tmp_path):
    """What the official trainer writes: ``checkpoint-N/transformer``."""
    folder = tmp_path / "checkpoint-5000" / "transformer"
    folder.mkdir(parents=True)
    config = json.loads((tiny_model / "transformer" / "config.json").read_text())
    stated = {**config, "attn_implementation": "flash", "_diffusers_version": "0.35"}
    (folder / "config.json").write_text(json.dumps(stated))
    torch.save(tuned, folder / f"{STEM}.bin")
    return folder


@pytest.fixture
def convert(tiny_model, tmp_path, capsys):
    """Call ``ursa models convert``: exit code, error lines, and the folder made."""

    def call(source, *words, base=tiny_model):
        out = tmp_path / "made"
        given = [] if base is None else ["--base", str(base)]
        code = main(["models", "convert", str(source), "-o", str(out), *given, *words])
        return code, capsys.readouterr().err.splitlines(), out

    return call


def weights(folder):
    return load_bundle(folder).transformer.state_dict()


def assert_equal(made, expected):
    assert made.keys() == expected.keys()
    assert all(torch.equal(made[name], expected[name]) for name in expected)


def shards(folder, state, names):
    halves = [dict(list(state.items())[k::2]) for k in range(2)]
    for name, half in zip(names, halves, strict=True):
        save = torch.save if name.endswith(".bin") else save_file
        save(half, folder / name)


@pytest.mark.parametrize("form", ["checkpoint", "transformer", "file", "no config"])
def test_an_official_fine_tune_becomes_a_model(form, checkpoint, tuned, convert, tiny_model):
    if form == "no config":
        (checkpoint / "config.json").unlink()
    sources = {"checkpoint": checkpoint.parent, "file": checkpoint / f"{STEM}.bin"}
    code, err, out = convert(sources.get(form, checkpoint))
    assert code == 0, err
    assert_equal(weights(out), tuned)
    assert tokenizer_identity(out) == tokenizer_identity(tiny_model)
    assert load_settings(out) == load_settings(tiny_model)
    assert sorted(p.name for p in (out / "transformer").iterdir()) == ["config.json", WEIGHTS]


@pytest.mark.parametrize(
    "names",
    [
        [f"{STEM}-00001-of-00002.bin", f"{STEM}-00002-of-00002.bin"],
        [f"{STEM}-00001-of-00002.safetensors", f"{STEM}-00002-of-00002.safetensors"],
        [f"{STEM}.fp16-00001-of-00002.safetensors", f"{STEM}.fp16-00002-of-00002.safetensors"],
        [f"{STEM}-00001-of-00002.fp16.safetensors", f"{STEM}-00002-of-00002.fp16.safetensors"],
        [f"{STEM}.fp16.safetensors"],
        [f"{STEM}.fp16.bin"],
    ],
)
def test_variants_and_lone_shards_are_joined(names, checkpoint, tuned, convert):
    file = checkpoint / f"{STEM}.bin"
    file.unlink()
    half = {name: value.half() for name, value in tuned.items()}
    if len(names) == 1:
        (torch.save if names[0].endswith("bin") else save_file)(half, checkpoint / names[0])
    else:
        shards(checkpoint, half, names)
    code, err, out = convert(checkpoint)
    assert code == 0, err
    assert_equal(weights(out), {name: value.float() for name, value in half.items()})
    assert load_file(out / "transformer" / WEIGHTS)["lm_head.weight"].dtype == torch.float16
    if len(names) == 2:
        shutil.rmtree(out)
        (checkpoint / names[1]).unlink()
        code, err, out = convert(checkpoint)
        assert (code, out.exists()) == (1, False)
        assert "1 of 2 shards" in err[0]


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "inside"])
def test_prefixes_of_a_training_are_taken_off(prefix, checkpoint, tuned, convert):
    def wrapped(name):
        return name.replace("model.", "model._orig_mod.") if prefix == "inside" else prefix + name

    torch.save({wrapped(name): value for name, value in tuned.items()}, checkpoint / f"{STEM}.bin")
    code, err, out = convert(checkpoint)
    assert code == 0, err
    assert_equal(weights(out), tuned)


def test_a_whole_model_in_another_form_needs_no_base(tiny_model, convert, tmp_path):
    model = shutil.copytree(tiny_model, tmp_path / "halves")
    for part in ("transformer", "vae"):
        (model / part / WEIGHTS).rename(model / part / f"{STEM}.fp16.safetensors")
    assert main(["models", "show", str(model)]) == 1
    code, err, out = convert(model, base=None)
    assert code == 0, err
    assert_equal(weights(out), weights(tiny_model))


def test_the_way_to_load_another_form_is_told(checkpoint, tiny_model, tmp_path, capsys):
    model = shutil.copytree(tiny_model, tmp_path / "pickled")
    (model / "transformer" / WEIGHTS).unlink()
    shutil.copy(checkpoint / f"{STEM}.bin", model / "transformer")
    words = ["sample", "red", "--model", str(model), "-o", str(tmp_path / "a.png"), "--frames", "1"]
    assert main(words) == 1
    hint = capsys.readouterr().err.splitlines()[-1]
    assert f"ursa models convert {model} -o NEW" in hint
    assert main(["models", "convert", str(model), "-o", str(tmp_path / "new")]) == 0
    words[3] = str(tmp_path / "new")
    assert main([*words, "--force"]) == 0


def test_the_folder_that_is_meant_is_named(checkpoint, adapted, tiny_model, tmp_path, capsys):
    def hint(*words):
        assert main(["sample", "red", "-o", str(tmp_path / "a.mp4"), *map(str, words)]) == 1
        error, found = capsys.readouterr().err.splitlines()
        return error, found

    source = checkpoint.parent
    convert = f"ursa models convert {source} --base MODEL"
    assert convert in hint("--model", source)[1]
    cut = shutil.copytree(tiny_model, tmp_path / "cut") / "transformer"
    index = {"metadata": {}, "weight_map": {"a": f"{STEM}-00001-of-00002.safetensors"}}
    (cut / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    error, found = hint("--model", cut.parent)
    assert f"{STEM}-00001-of-00002.safetensors" in error
    assert "convert" not in found
    shutil.rmtree(checkpoint)
    shutil.copytree(adapted[1], checkpoint)
    assert hint("--model", source)[1].endswith(f"--lora {checkpoint}")
    assert hint("--model", adapted[0], "--lora", source)[1] == f"hint: give {checkpoint}"


def test_a_pickle_beside_tensors_is_said_to_be_left_out(checkpoint, tuned, tiny_model, tmp_path):
    save_file(tuned, checkpoint / WEIGHTS)
    with pytest.warns(UrsaWarning, match=f"{re.escape(STEM)}.bin is left out"):
        convert_checkpoint(checkpoint, tmp_path / "made", tiny_model)
    assert_equal(weights(tmp_path / "made"), tuned)


class Call:
    """Pickles into a call, as hostile checkpoints do."""

    def __reduce__(self):
        return print, ("the pickle was run",)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"a": Call()}, "holds more than tensors"),
        (b"cut", "it is damaged"),
        (LFS, "can't be read"),
        ([torch.zeros(1)], "holds no tensors by name"),
        ({"a": [1]}, "a is no plain tensor"),
        ({"a": torch.zeros(2).to_sparse()}, "a is no plain tensor"),
        ({"a": torch.zeros(2)}, "has the foreign tensor a"),
        ({}, "holds no weights"),
        ({"a": torch.tensor([1.0, math.nan])}, "a holds numbers that aren't finite"),
        ({"a": torch.ones(1), "module.a": torch.zeros(1)}, "holds a twice"),
    ],
    ids=[
        "objects", "cut", "pointer", "list", "other values", "sparse", "foreign", "empty",
        "diverged", "twice",
    ],
)  # fmt: skip
def test_hostile_and_damaged_pickles_are_refused(content, match, checkpoint, convert, capsys):
    file = checkpoint / f"{STEM}.bin"
    file.write_bytes(content) if isinstance(content, bytes) else torch.save(content, file)
    code, err, out = convert(checkpoint)
    assert (code, out.exists()) == (1, False)
    error, hint = err
    assert re.search(match, error), error
    assert ("git lfs pull" in hint) == (content == LFS)
    assert "the pickle was run" not in capsys.readouterr().out


def test_what_does_not_fit_is_refused(checkpoint, tuned, convert, tmp_path, capsys):
    def refused(match, code, *words, **given):
        found, err, out = convert(checkpoint, *words, **given)
        assert (found, out.exists(), len(err)) == (code, False, 2)
        assert match in err[0], err

    refused("without the other parts of a model", 2, base=None)
    file = checkpoint / f"{STEM}.bin"
    found, err, out = convert(file.rename(checkpoint / "mine.bin"))  # a file may have any name
    assert (found, out.exists()) == (0, True), err
    shutil.rmtree(out)
    (checkpoint / "mine.bin").rename(file)
    for words in ([], ["--base", "nano"]):
        assert main(["models", "convert", str(tmp_path / "gone"), "-o", str(out), *words]) == 1
        assert "there is no file or folder" in capsys.readouterr().err
    name = "model.layers.0.mlp.up_proj.weight"
    wide = {**tuned, name: torch.zeros(48, 32)}
    torch.save(wide, checkpoint / f"{STEM}.bin")
    refused(f"{name} has shape (48, 32)", 1)
    torch.save({**tuned, name: tuned[name].to(torch.int8)}, checkpoint / f"{STEM}.bin")
    refused(f"{name} is stored as I8", 1)
    torch.save({**tuned, "model.layers.1.extra": torch.zeros(2)}, checkpoint / f"{STEM}.bin")
    refused("has the foreign tensor model.layers.1.extra", 1)
    refused("lm_vocab_size is 12, 33 in", 1, base="nano")
    (checkpoint / f"{STEM}.bin").unlink()
    refused("holds no weights", 1)
    (checkpoint / "adapter_config.json").write_text("{}")
    refused("is an adapter, not a network", 2)


def test_what_is_known_by_the_bases_id_is_kept(
    published_image_model, home, tmp_path, monkeypatch, capsys
):
    from ursa_core.bundle.hub import models_folder

    base = models_folder() / "BAAI--URSA-1.7B-IBQ512"
    shutil.copytree(published_image_model, base)
    part = base / "transformer"
    state = load_file(part / WEIGHTS)
    torch.save(state, tmp_path / f"{STEM}.bin")
    words = ["models", "convert", str(tmp_path / f"{STEM}.bin"), "-o", str(tmp_path / "made")]
    assert main([*words, "--base", "BAAI/URSA-1.7B-IBQ512"]) == 0
    settings = load_settings(tmp_path / "made")
    assert (settings.height, settings.steps, settings.negative) == (512, 25, NEGATIVE)
    assert folder_bytes(tmp_path / "made") > folder_bytes(part)


@pytest.fixture(scope="module")
def adapted(generator_recipe, tmp_path_factory):
    """A model, and the run of an adapter of it."""
    folder = tmp_path_factory.mktemp("adapted")
    train(generator_recipe, folder, "base", "train.steps=1", "train.sample_every=9")
    words = (f"init={folder / 'base'}", "lora.rank=2", "optimizer.learning_rate=0.02")
    return folder / "base", train(generator_recipe, folder, "run", *words).run_folder


@pytest.mark.parametrize("form", ["{}", "module.{}", "default"])
def test_an_official_adapter_is_added(form, adapted, tmp_path):
    from ursa_core.bundle.adapters import adding, read_adapter

    base, run = adapted
    pickled = tmp_path / "adapter"
    pickled.mkdir()
    shutil.copy(run / "adapter_config.json", pickled)
    state = load_file(run / ADAPTER_WEIGHTS)

    def named(name):
        default = name.replace(".weight", ".default.weight")
        return default if form == "default" else form.format(name)

    torch.save({named(n): w for n, w in state.items()}, pickled / "adapter_model.bin")
    one, other = (load_bundle(base, adapters=[read_adapter(each)]) for each in (run, pickled))
    request = Request("a red circle", options=one.settings.defaults)
    assert torch.equal(generate(one, request), generate(other, request))
    key = "model.layers.0.mlp.up_proj.weight"
    plain, changed = (m.transformer.state_dict()[key] for m in (load_bundle(base), one))
    assert not torch.equal(plain, changed)
    assert torch.equal(adding([read_adapter(pickled)])(key, plain), changed)


def test_a_pickled_adapter_of_another_kind_or_size_is_refused(adapted, tmp_path, capsys):
    base, run = adapted
    pickled = tmp_path / "adapter"
    pickled.mkdir()
    shutil.copy(run / "adapter_config.json", pickled)
    state, file = load_file(run / ADAPTER_WEIGHTS), pickled / "adapter_model.bin"
    call = ["sample", "red", "--lora", str(pickled), "--model", str(base), "-o"]

    def refused(match):
        assert main([*call, str(tmp_path / "a.mp4")]) == 1
        error, hint = capsys.readouterr().err.splitlines()
        assert match in error
        assert hint

    refused("lacks adapter_model.safetensors")
    wide = {n: torch.zeros(w.shape[0], 2 * w.shape[1]) for n, w in state.items()}
    torch.save(wide, file)
    refused("the model base has")
    torch.save({**state, "object": Call()}, file)
    refused("holds more than tensors")
    file.write_bytes(LFS)
    refused("can't be read")
    torch.save({}, file)
    refused("changes nothing")
    config = json.loads((run / "adapter_config.json").read_text())
    (pickled / "adapter_config.json").write_text(json.dumps({**config, "use_dora": True}))
    refused("use_dora can't be True")
