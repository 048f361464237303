"""Numbers at the ends of their ranges give finite results; beyond, they are refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from ursa_cli.main import main
from ursa_core.grids import ALPHA_RANGE, C_RANGE
from ursa_core.media import read_media

Captured = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("option", "ends", "beyond"),
    [
        ("--temperature", ("0.001", "1000"), ("1e-39", "0", "1e4", "nan", "inf")),
        ("--shift", ("0.001", "1000"), ("1e-300", "0", "1e308", "nan")),
        ("--top-p", ("0.000001", "1"), ("1e-320", "0", "1.1", "nan")),
        ("--guidance", ("0", "100"), ("-1", "1e30", "nan")),
        ("--correct", ("0", "1"), ("-0.1", "1.5", "nan")),
        ("--fps", ("0.1", "1000"), ("1e-9", "1e9", "nan")),
        ("--motion", (), ("-1", "1e308", "nan")),
    ],
)
def test_ends_of_ranges_sample_and_what_is_beyond_is_refused(
    option: str, ends: tuple[str, ...], beyond: tuple[str, ...], tiny_model: Path, tmp_path: Path,
    capsys: Captured,
) -> None:  # fmt: skip
    base = ["sample", "a red circle", "--model", str(tiny_model), "--seed", "1", "--device", "cpu"]
    for value in ends:
        out = tmp_path / f"{value}.mkv"
        assert main([*base, "-o", str(out), option, value]) == 0
        assert np.ptp(read_media(out).frames) > 0  # no flat picture
    for value in beyond:
        capsys.readouterr()
        assert main([*base, "-o", str(tmp_path / "a.mkv"), option, value]) == 2
        error, hint = capsys.readouterr().err.splitlines()
        assert f"{option} can't be" in error
        assert "to " in hint
    assert not (tmp_path / "a.mkv").exists()


def calibrate(tmp_path: Path, *arguments: str) -> int:
    vectors = tmp_path / "codes.npy"
    if not vectors.exists():
        np.save(vectors, np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32))
    out = ["-o", str(tmp_path / "out"), "--force"]
    return main(["calibrate-path", "--tokenizer", str(vectors), *out, *arguments])


def test_paths_stay_finite_at_the_ends_of_alpha_and_c(tmp_path: Path, capsys: Captured) -> None:
    recipe = tmp_path / "recipe.yaml"
    for alpha in ("0.01:0.01:1", "0.01:2:2", "100:100:1"):
        for c in ("0.0001:0.0001:1", "10000:10000:1"):
            recipe.write_text("path: {kind: metric}\n")
            given = ("--alpha", alpha, "--c", c, "--write-to", str(recipe))
            assert calibrate(tmp_path, *given) == 0
            shown = capsys.readouterr()
            assert "nan" not in shown.out
            assert "Warning" not in shown.err
            report = json.loads((tmp_path / "out" / "report.json").read_text())
            for each in [report["best"], report["paper"], *report["grid"]]:
                assert all(np.isfinite(value).all() for value in each.values())
            written = yaml.safe_load(recipe.read_text())["path"]
            assert ALPHA_RANGE[0] <= written["alpha"] <= ALPHA_RANGE[1]
            assert C_RANGE[0] <= written["c"] <= C_RANGE[1]


@pytest.mark.parametrize("text", ["1e-320:2:2", "0.004:2:2", "1:1e5:2", "nan:2:2", "1:2:1e3"])
def test_alphas_beyond_are_refused(text: str, tmp_path: Path, capsys: Captured) -> None:
    assert calibrate(tmp_path, "--alpha", text) == 2
    assert "give LO:HI:N with 0.01 <= LO <= HI <= 100" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_codebook_of_one_vector_is_refused_not_written_as_nan(
    tmp_path: Path, capsys: Captured
) -> None:
    np.save(tmp_path / "codes.npy", np.ones((8, 4), np.float32))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("path: {kind: metric}\n")
    assert calibrate(tmp_path, "--write-to", str(recipe)) in (1, 2)
    assert capsys.readouterr().err.splitlines()[-1].startswith("hint: ")
    assert recipe.read_text() == "path: {kind: metric}\n"
    assert not (tmp_path / "out" / "report.json").exists()


@pytest.mark.parametrize(
    "given",
    [
        ("--num", "1000000000000"), ("--seed", "9223372036854775808"), ("--frames", "10000000"),
        ("--stride", "1000000000000", "--clips", "slide"),
        ("--clips-per-file", "1000000000000", "--clips", "uniform"),
    ],
)  # fmt: skip
def test_counts_that_no_memory_holds_are_refused(
    given: tuple[str, ...], tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / "films").mkdir()
    source = "shapes:train" if given[0] in ("--num", "--seed") else str(tmp_path / "films")
    assert main(["tokenize", source, "-o", str(tmp_path / "out"), *given]) == 2
    assert f"{given[0]} can't be" in capsys.readouterr().err


def test_a_working_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    program = "import os, sys; os.rmdir(os.getcwd()); from ursa_cli.__main__ import run; run()"
    done = subprocess.run(
        [sys.executable, "-c", program, "sample", "x", "-o", "a.mp4"], capture_output=True,
        text=True, cwd=tmp_path / "gone", check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (
        1, "error: the working folder is gone\nhint: change to one that exists\n",
    )  # fmt: skip


def test_a_folder_for_temporary_files_that_is_not_there_is_no_hindrance(
    tiny_model: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ursa_cli", "sample", "a red circle", "-o", str(tmp_path / "a.mp4"),
         "--model", str(tiny_model), "--device", "cpu"],
        capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False,
        env={**os.environ, "TMPDIR": str(tmp_path / "none")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
