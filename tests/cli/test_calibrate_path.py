"""`ursa calibrate-path`: the report it writes, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from ursa_cli.main import main
from ursa_core.calibration.codebooks import load_codebook
from ursa_core.media import read_media, write_media

SMALL = ["--alpha", "0.6:1.4:5", "--c", "2:6:5"]


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    file = tmp_path / "codes.npy"
    np.save(file, np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32))
    return file


def test_the_suffix_of_a_codebook_file_has_any_case(vectors: Path) -> None:
    upper = vectors.rename(vectors.with_suffix(".NPY"))
    assert load_codebook(str(upper)).vectors.shape == (40, 4)


def test_a_report_of_a_codebook_file(
    vectors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report"
    command = ["calibrate-path", "--tokenizer", str(vectors), "-o", str(out), *SMALL]
    assert main([*command, "--shift", "1", "--shift", "3", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((out / "report.json").read_text())
    assert len(printed["grid"]) == 25
    assert printed["exact"]
    assert printed["best"]["score"] >= max(each["score"] for each in printed["grid"])
    assert len(printed["mean_distance"]) == 50
    for name in ("curves.png", "heatmap.png"):
        assert read_media(out / name).frames.shape[1] > 200
    assert main(command) == 2
    assert "holds a report already" in capsys.readouterr().err
    assert main([*command, "--force"]) == 0
    assert "the paper's" in capsys.readouterr().out


def test_preview_and_recipe_of_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip, recipe = tmp_path / "clip.png", tmp_path / "recipe.yaml"
    write_media(clip, np.full((1, 70, 64, 3), (20, 25, 70), np.uint8), 1.0)
    recipe.write_text("path: {kind: metric, alpha: 1.0, c: 9}  # tuned\n")
    command = ["calibrate-path", "--tokenizer", "nano", "-o", str(tmp_path / "r"), *SMALL]
    assert main([*command, "--preview", str(clip), "--write-to", str(recipe), "--quiet"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "r")
    sheet = read_media(tmp_path / "r" / "preview.png").frames[0]
    assert sheet.shape[1] > 11 * 64
    best = json.loads((tmp_path / "r" / "report.json").read_text())["best"]
    written = yaml.safe_load(recipe.read_text())["path"]
    assert written["alpha"] == pytest.approx(best["alpha"], rel=1e-3)
    assert written["c"] == pytest.approx(best["c"], rel=1e-3)
    assert recipe.read_text().endswith("# tuned\n")
    assert main([*command, "--force", "--linear", "--write-to", str(recipe)]) == 0
    assert yaml.safe_load(recipe.read_text())["path"] == {"kind": "linear"}


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--alpha", "0:1:3"], 2, "--alpha can't be"),
        (["--c", "1:2"], 2, "--c can't be"),
        (["--shift", "-1"], 2, "--shift can't be"),
        (["--linear"], 2, "--linear writes nothing"),
        (["--preview", "x.mp4"], 2, "only a codebook"),
        (["--tokens", "nowhere"], 1, "no token shard"),
    ],
)
def test_wrong_options(
    options: list[str],
    code: int,
    message: str,
    vectors: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    given = ["calibrate-path", "--tokenizer", str(vectors), "-o", str(out), *options]
    assert main(given) == code
    lines = capsys.readouterr().err.splitlines()
    assert message in lines[0]
    assert lines[1].startswith("hint: ")
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.npy", None, "there is no file"),
        ("bad.npy", b"no array", "can't be read"),
        ("bad.safetensors", b"no tensors", "can't be read"),
        ("nan.npy", np.full((4, 2), np.nan, np.float32), "NaN"),
        ("cube.npy", np.zeros((2, 2, 2), np.float32), "matrices"),
        ("objects.npy", np.array([{}, {}]), "can't be read"),
    ],
)
def test_wrong_codebooks(
    name: str,
    content: bytes | np.ndarray | None,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / name
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        np.save(file, content)
    out = tmp_path / "out"
    assert main(["calibrate-path", "--tokenizer", str(file), "-o", str(out), *SMALL]) in (1, 2)
    assert message in capsys.readouterr().err.splitlines()[0]
    assert not out.exists()


def test_twins_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vectors = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    vectors[7], vectors[9] = 2 * vectors[3], 0.5 * vectors[11]
    save_file({"codes": vectors}, tmp_path / "codes.safetensors")
    command = ["calibrate-path", "--tokenizer", str(tmp_path / "codes.safetensors"), *SMALL]
    assert main([*command, "-o", str(tmp_path / "r"), "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["num_twins"] == 4
    assert "4 of 20 codes share a direction" in captured.err


def test_the_published_codebooks_twins(tmp_path: Path) -> None:
    from ursa_core.calibration.codebooks import load_codebook

    found = load_codebook("cosmos")
    assert found.vectors.shape == (64_000, 6)
    unit = torch.nn.functional.normalize(found.vectors.double(), dim=1).mul(1e6).round()
    _, counts = unit.unique(dim=0, return_counts=True)
    assert found.num_twins == int(counts[counts > 1].sum())
