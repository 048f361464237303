"""`ursa models`: what a model's folder says, without loading it."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from ursa_cli.main import main
from ursa_core.bundle.bundle import resolve_model

FIXTURES = Path(__file__).parents[3] / "shared" / "fixtures"
NANO = resolve_model("nano")


@pytest.fixture(autouse=True)
def no_models(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which no model was pulled or put by hand."""
    import huggingface_hub.constants

    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("URSA_HOME", str(home / "ursa"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(home / "cache"))


def test_list_names_the_shipped_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["models"]
    assert "nano" in [model["name"] for model in listed]
    assert main(["models", "list"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split()[0] == "NAME"
    assert [row.split()[0] for row in rows] == [model["name"] for model in listed]


def test_show_counts_what_the_files_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copytree(NANO, tmp_path / "model")
    (model / "ursa.json").unlink()
    assert main(["models", "show", str(model), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    for part, key in (("transformer", "transformer_parameters"), ("vae", "tokenizer_parameters")):
        weights = load_file(NANO / part / "diffusion_pytorch_model.safetensors")
        assert shown[key] == sum(tensor.size for tensor in weights.values())
    assert shown["num_codes"] == 1_024
    assert (shown["path"], shown["alpha"], shown["c"]) == ("metric", 1.0, 4.0)
    # The published defaults hold where a folder has no ursa.json.
    assert shown["grid"] == [13, 40, 64]
    assert shown["settings"]["max_prompt_length"] == 320
    assert shown["memory_bytes"] > shown["file_bytes"]


def test_show_is_readable(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "show", "nano"]) == 0
    text = capsys.readouterr().out
    for name in ("transformer", "vae", "codes", "path", "latent grid", "licence", "memory"):
        assert name in text


@pytest.mark.parametrize(
    ("name", "path", "codes", "grid", "steps", "shift"),
    [
        ("ursa-tiny-random-fsq", ("metric", 1.0, 5.0), 64_000, [13, 40, 64], 50, 3.0),
        ("ursa-tiny-random-ibq", ("metric", 0.5, 6.0), 512, [1, 64, 64], 25, 2.0),
    ],
)
@pytest.mark.skipif(not FIXTURES.is_dir(), reason="the reference's checkpoints aren't here")
def test_show_reads_what_the_reference_wrote(
    name: str,
    path: tuple[str, float, float],
    codes: int,
    grid: list[int],
    steps: int,
    shift: float,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["models", "show", str(FIXTURES / name), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["path"], shown["alpha"], shown["c"]) == path
    assert (shown["num_codes"], shown["grid"]) == (codes, grid)
    assert (shown["settings"]["steps"], shown["shift"]) == (steps, shift)
    assert shown["licence"] == "not stated"
    memory = shown["memory"]
    assert memory["total"] == shown["memory_bytes"] > memory["decoding"] > 0
    assert set(shown["parts"]) == {"transformer", "vae", "scheduler", "tokenizer"}


def test_show_tells_the_licence_of_the_model_card(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copytree(NANO, tmp_path / "model")
    (model / "ursa.json").unlink()
    (model / "README.md").write_text("---\ntags: [video]\nlicense: cc-by-4.0\n---\n# Model\n")
    assert main(["models", "show", str(model), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["licence"] == "cc-by-4.0"


def test_models_of_other_kinds_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copytree(NANO, tmp_path / "model")
    for file, name in (("model_index.json", "FluxPipeline"), ("vae/config.json", "AutoencoderKL")):
        kept = (model / file).read_text()
        (model / file).write_text(json.dumps({**json.loads(kept), "_class_name": name}))
        assert main(["models", "show", str(model)]) == 1
        error, hint = capsys.readouterr().err.splitlines()
        assert file in error
        assert name in error
        assert "this version reads" in hint
        (model / file).write_text(kept)


def test_unknown_and_damaged_models_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "show", ""]) == 2
    assert "the model is empty" in capsys.readouterr().err
    assert main(["models", "show", "nanoo"]) == 1
    assert "'nanoo'" in capsys.readouterr().err
    assert main(["models", "show", str(tmp_path)]) == 1
    assert "model_index.json" in capsys.readouterr().err
    model = tmp_path / "model"
    shutil.copytree(NANO, model)
    weights = model / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert main(["models", "show", str(model)]) == 1
    error, hint = capsys.readouterr().err.splitlines()
    assert weights.name in error
    assert hint.startswith("hint: ")
    weights.unlink()
    assert main(["models", "show", str(model)]) == 1
    assert f"lacks transformer/{weights.name}" in capsys.readouterr().err
