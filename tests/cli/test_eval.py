"""`ursa eval` on the command line: shapes, and the measures that need no suite."""

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ursa_cli.main import main
from ursa_core.bundle.bundle import load_bundle
from ursa_core.evaluation.suites import shapes as shapes_suite
from ursa_core.evaluation.suites.shapes_judge import judge
from ursa_core.media import read_media, write_media
from ursa_core.sampling.generate import Request, decode, generate

Captured = pytest.CaptureFixture[str]
TRIAL = ["--limit", "2", "--steps", "2", "--device", "cpu", "--dtype", "float32"]


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips of each split of shapes, with nano in two steps; copy it to change it."""
    out = tmp_path_factory.mktemp("shapes") / "out"
    assert main(["eval", "shapes", "-o", str(out), *TRIAL]) == 0
    return out


def report_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "report.json").read_text())


def test_shapes_are_sampled_as_the_benchmark_does_and_judged(scored: Path) -> None:
    report = report_of(scored)
    clips = [each for split in shapes_suite.SPLITS for each in shapes_suite.wanted(split, 2)]
    assert [sample["name"] for sample in report["samples"]] == [each.name for each in clips]
    file = shapes_suite.plan().files[
        [f.name for f in shapes_suite.plan().files].index(clips[0].name)
    ]
    bundle = load_bundle("nano")
    options = replace(bundle.settings.defaults, steps=2)
    codes = generate(bundle, Request(clips[0].prompt, file.seed(0), options=options))
    again = scored.parent / "again.mp4"
    write_media(again, decode(bundle, codes), bundle.settings.fps)
    written = read_media(scored / "samples" / clips[0].name)
    assert np.array_equal(read_media(again).frames, written.frames)
    verdict = judge(written.frames)
    values = report["samples"][0]["values"]
    assert values["heldout colour"] == (verdict.colour == clips[0].colour)
    shares = {score["name"]: score for score in report["scores"]}
    for name in shapes_suite.ATTRIBUTES:
        for split in shapes_suite.SPLITS:
            right = [
                sample["values"][f"{split} {name}"]
                for sample in report["samples"]
                if f"{split} {name}" in sample["values"]
            ]
            assert shares[f"{split} {name}"]["value"] == sum(right) / 2
            assert shares[f"{split} {name}"]["low"] < shares[f"{split} {name}"]["high"]
    assert "The judge's own error on 4 rendered clips" in report["notes"][1]
    assert not report["complete"]
    assert report["settings"]["steps"] == 2
    assert report["settings"]["limit"] == 2


def test_two_runs_with_one_seed_agree_exactly(scored: Path, tmp_path: Path) -> None:
    assert main(["eval", "shapes", "-o", str(tmp_path / "b"), *TRIAL, "--batch-size", "4"]) == 0
    for name in ("report.json", "scores/scores.json"):
        assert (tmp_path / "b" / name).read_bytes() == (scored / name).read_bytes()
    assert main(["eval", "compare", str(scored), str(tmp_path / "b")]) == 0


@pytest.fixture
def out(scored: Path, tmp_path: Path) -> Path:
    """A copy of the scored clips."""
    return shutil.copytree(scored, tmp_path / "out")


def part(name: str, out: Path) -> int:
    return main(["eval", "shapes", "-o", str(out), "--only", name, "--quiet"])


def test_the_report_is_made_again_as_it_was(scored: Path, out: Path, capsys: Captured) -> None:
    (out / "report.json").unlink()
    assert part("report", out) == 0
    assert capsys.readouterr().out.split() == [str(out / "report.json"), str(out / "report.html")]
    assert (out / "report.json").read_bytes() == (scored / "report.json").read_bytes()


def test_changed_clips_are_noticed_and_scored_again(out: Path, capsys: Captured) -> None:
    clip = next((out / "samples" / "train").iterdir())
    write_media(clip, np.zeros((17, 64, 64, 3), np.uint8), 8.0)
    assert part("report", out) == 1
    assert "aren't those scored" in capsys.readouterr().err
    assert part("score", out) == 0
    assert part("report", out) == 0
    assert "seen: nothing nothing nothing on black" in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"format": 0}, "has format 0, this version reads 1"),
        ({"samples": "0" * 16}, "aren't those scored"),
        ({"samples": None}, "is damaged: samples"),
        ({"verdicts": {}}, "is damaged: it has no verdict on 'heldout/"),
        ({"verdicts": {"a.mp4": {"colour": "red"}}}, "is damaged: verdicts.a.mp4.background"),
        ({"judge_on_rendered": None}, "is damaged: judge_on_rendered"),
    ],
)
def test_damaged_scores_are_refused(
    changed: dict[str, Any], words: str, out: Path, capsys: Captured
) -> None:
    scores = out / "scores" / "scores.json"
    scores.write_text(json.dumps({**json.loads(scores.read_text()), **changed}))
    assert part("report", out) == 1
    assert words in capsys.readouterr().err


def test_parts_need_those_before_them(out: Path, tmp_path: Path, capsys: Captured) -> None:
    (out / "scores" / "scores.json").unlink()
    assert part("report", out) == 1
    assert "nothing was scored" in capsys.readouterr().err
    assert part("score", tmp_path / "new") == 1
    assert "nothing was sampled" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_dry_run_writes_nothing(tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "out"
    assert main(["eval", "shapes", "-o", str(out), *TRIAL, "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told["items"]) == 4
    assert told["task"] == "eval shapes"
    assert not out.exists()


def test_the_seed_of_a_folder_holds(tmp_path: Path) -> None:
    given = ["eval", "shapes", "-o", str(tmp_path), *TRIAL, "--limit", "1", "--only", "sample"]
    assert main([*given, "--seed", "3"]) == 0
    clip = min((tmp_path / "samples").rglob("*.mp4"))
    content = clip.read_bytes()
    clip.unlink()
    assert main(given) == 0
    assert clip.read_bytes() == content


def test_disks_that_can_not_be_written_are_named(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    inside = tmp_path / "file" / "out"
    assert main(["eval", "shapes", "-o", str(inside), *TRIAL]) == 1
    assert "can't be written" in capsys.readouterr().err

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ursa_core.media.writing._write_h264", full)
    out = tmp_path / "out"
    assert main(["eval", "shapes", "-o", str(out), *TRIAL]) == 1
    assert "the disk is full" in capsys.readouterr().err
    assert not list((out / "samples").rglob("*.mp4"))


def test_reconstruction_measures_a_tokenizer(tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "kept"
    given = ["eval", "reconstruction", "--device", "cpu", "--limit", "2"]
    assert main([*given, "-o", str(out)]) == 0
    report = report_of(out)
    scores = {score["name"]: score for score in report["scores"]}
    assert 25 < scores["psnr"]["low"] <= scores["psnr"]["value"] <= scores["psnr"]["high"] < 45
    assert 0.7 < scores["ssim"]["value"] < 1
    num_codes = int(scores["perplexity"]["unit"].split()[1])
    assert 1 < scores["perplexity"]["value"] <= 2 * report["settings"]["codes_per_clip"]
    bits = np.log2(num_codes) * report["settings"]["codes_per_clip"]
    expected = bits / report["settings"]["pixels_per_clip"]
    assert scores["bits per pixel"]["value"] == pytest.approx(expected)
    assert scores["entropy per pixel"]["value"] < expected
    sheets = sorted((out / "samples").iterdir())
    with Image.open(sheets[0]) as image:
        assert image.height == 2 * 64 + 3 * 4  # a clip above what came back
    assert main([*given, "-o", str(out)]) == 2
    assert "holds a report already" in capsys.readouterr().err


def test_clips_that_can_not_be_used_are_left_out(tmp_path: Path, capsys: Captured) -> None:
    given = ["eval", "reconstruction", "--device", "cpu", "--limit", "2"]
    films = tmp_path / "films"
    films.mkdir()
    write_media(films / "short.mp4", np.zeros((3, 64, 64, 3), np.uint8), 8.0)
    assert main([*given, str(films), "-o", str(tmp_path / "none")]) == 1
    shown = capsys.readouterr().err
    assert "short.mp4 has 3 frames" in shown
    assert "no clip could be used" in shown
    write_media(films / "whole.mp4", np.zeros((17, 64, 64, 3), np.uint8), 8.0)
    assert main([*given, str(films), "-o", str(tmp_path / "one")]) == 0
    report = report_of(tmp_path / "one")
    assert not report["complete"]
    assert report["notes"][-1] == "1 clips could not be used: films/short.mp4."


def test_sizes_that_do_not_fit_are_refused(tmp_path: Path, capsys: Captured) -> None:
    given = ["eval", "reconstruction", "--device", "cpu", "--limit", "2"]
    assert main([*given, "-o", str(tmp_path / "b"), "--size", "60x64"]) == 2
    assert "height of 60" in capsys.readouterr().err


def test_path_is_linear_on_real_tokens(tmp_path: Path) -> None:
    out = tmp_path / "path"
    assert main(["eval", "path", "-o", str(out), "--device", "cpu", "--limit", "2"]) == 0
    report = report_of(out)
    scores = {score["name"]: score["value"] for score in report["scores"]}
    assert -1 <= scores["correlation"] < -0.95
    rows = report["tables"][0]["rows"]
    distances = [row[1] for row in rows]
    assert all(before > after for before, after in itertools.pairwise(distances))
    with Image.open(out / "linearity.png") as image:
        assert image.width > 400
    assert (out / "report.html").read_text().count("data:image/png") >= 1


def test_videos_are_measured_and_damaged_ones_named(
    scored: Path, tmp_path: Path, capsys: Captured
) -> None:
    folder = tmp_path / "clips"
    shutil.copytree(scored / "samples" / "train", folder)
    (folder / "bad.mp4").write_bytes(b"no film")
    write_media(folder / "still.png", np.zeros((1, 16, 16, 3), np.uint8), 8.0)
    out = tmp_path / "out"
    assert main(["eval", "videos", str(folder), "-o", str(out), "--json"]) == 0
    captured = capsys.readouterr()
    assert "bad.mp4 is no film" in captured.err
    assert "still.png is a still image" in captured.err
    report = json.loads(captured.out)
    assert len(report["samples"]) == 2
    assert not report["complete"]
    names = [score["name"] for score in report["scores"]]
    assert names == ["flicker", "motion", "dynamic", "colour drift"]
    assert report["notes"][-1] == "2 files could not be measured."
    page = (out / "report.html").read_text()
    assert page.count("data:image/png") == 4  # two plots, two strips
    assert 'class="wrong"' not in page
    assert main(["eval", "videos", str(tmp_path / "nothing"), "-o", str(tmp_path / "o")]) == 1
    assert "doesn't exist" in capsys.readouterr().err
