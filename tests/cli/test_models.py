"""`ursa models`: what a model's folder says, without loading it."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from ursa_cli.main import main
from ursa_core.bundle import resolve_model

NANO = resolve_model("nano")


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
    assert shown["num_codes"] == 4_375
    assert (shown["path"], shown["alpha"], shown["c"]) == ("metric", 1.0, 3.5)
    # The published defaults hold where a folder has no ursa.json.
    assert shown["grid"] == [13, 20, 32]
    assert shown["settings"]["max_prompt_length"] == 320
    assert shown["memory_bytes"] > shown["file_bytes"]


def test_show_is_readable(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "show", "nano"]) == 0
    text = capsys.readouterr().out
    for name in ("transformer", "video tokenizer", "path", "latent grid", "licence", "memory"):
        assert name in text


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
    assert "no weights" in capsys.readouterr().err
