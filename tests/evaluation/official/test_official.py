"""The official suites from sampling to the report, scored by stand-ins in their own processes."""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import layouts
import pytest
import stand_in_scorers as stand_ins
from PIL import Image

from ursa_cli.main import main
from ursa_core.evaluation.official import totals
from ursa_core.media import read_media

Captured = pytest.CaptureFixture[str]

NUM_PROMPTS = 22
"""The fewest whose fixed random part has all 16 dimensions; 170 files."""


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


def evaluate(suite: str, model: Path, out: Path, *more: object) -> int:
    place = ["--model", str(model), "-o", str(out), "--device", "cpu"]
    return main(["eval", suite, *place, *map(str, more)])


def report_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "report.json").read_text())


@pytest.fixture(scope="module")
def vbench_repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stand_ins.write_vbench(tmp_path_factory.mktemp("checkout") / "VBench")


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """VBench with all dimensions in few prompts; copy it to change it."""
    out = tmp_path_factory.mktemp("vbench") / "out"
    given = ("--limit", NUM_PROMPTS, "--only", "sample", "--frames", 5, "--steps", 1)
    assert evaluate("vbench", tiny_model, out, *given, "--batch-size", 8) == 0
    return out


def scorer(repo: Path) -> tuple[str, ...]:
    return ("--scorer-repo", str(repo), "--scorer-python", sys.executable)


def test_vbench_goes_from_prompts_to_totals(
    sampled: Path, vbench_repo: Path, tiny_model: Path, tmp_path: Path, capsys: Captured
) -> None:
    out = tmp_path / "out"
    shutil.copytree(sampled, out)
    names = {path.name for path in (out / "samples").iterdir()}
    entries = {row["prompt"]: row for row in layouts.rows("vbench.jsonl")}
    prompts = {name.rpartition("-")[0] for name in names}
    assert prompts <= set(entries)
    assert len(prompts) == NUM_PROMPTS
    for prompt in prompts:
        num = 25 if "temporal_flickering" in entries[prompt]["dimensions"] else 5
        assert {f"{prompt}-{index}.mp4" for index in range(num)} <= names
    clip = read_media(out / "samples" / sorted(names)[0])
    assert clip.frames.shape == (5, 16, 16, 3)
    assert clip.metadata["prompt"] == sorted(names)[0].rpartition("-")[0]

    assert evaluate("vbench", tiny_model, out, "--only", "score", *scorer(vbench_repo)) == 0
    assert {path.name for path in (out / "samples").iterdir()} == names
    log = (out / "scores" / "scene" / "log.txt").read_text()
    assert "start evaluation ['scene']" in log
    assert "WARNING" not in log  # the scorer was told of the sampled prompts alone
    capsys.readouterr()
    assert evaluate("vbench", tiny_model, out, "--only", "report") == 0
    printed = capsys.readouterr().out
    assert "URSA" in printed
    assert "82.4" in printed
    report = report_of(out)
    found = {score["name"]: score["value"] for score in report["scores"]}
    dimensions = {name: value for name, value in found.items() if name not in totals.vbench({})}
    assert len(dimensions) == 16
    expected = totals.vbench(dimensions)
    assert {name: found[name] for name in expected} == expected
    assert expected["total"] is not None
    assert not report["complete"]  # a trial
    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") > 10
    assert not re.search(r'(src|url)[=(]"?(?!"?data:)', page)  # nothing is loaded

    # The same command keeps what is scored, and nothing is sampled again.
    marks = {path: path.read_bytes() for path in (out / "scores").rglob("scored.json")}
    assert evaluate("vbench", tiny_model, out, "--only", "score", *scorer(vbench_repo)) == 0
    assert capsys.readouterr().err.count("scored already") == 16
    assert all(path.read_bytes() == content for path, content in marks.items())


def test_a_scorer_that_crashes_keeps_what_it_scored(
    sampled: Path, vbench_repo: Path, tiny_model: Path, tmp_path: Path, capsys: Captured
) -> None:
    out, repo = tmp_path / "out", tmp_path / "repo"
    shutil.copytree(sampled, out)
    shutil.copytree(vbench_repo, repo)
    (repo / "crash").write_text("color")
    shutil.rmtree(repo / "scenedetect")
    (repo / "detectron2" / "__init__.py").rename(repo / "unused")
    (repo / "detectron2").rmdir()
    assert evaluate("vbench", tiny_model, out, "--only", "score", *scorer(repo)) == 1
    shown = capsys.readouterr().err
    assert "pip install 'git+https://github.com/facebookresearch/detectron2.git'" in shown
    assert "4 of 16 parts of vbench have no score" in shown
    assert "can't be scored: object_class, multiple_objects, color, spatial_relationship" in shown
    (repo / "detectron2").mkdir()
    (repo / "detectron2" / "__init__.py").touch()
    assert evaluate("vbench", tiny_model, out, "--only", "score", *scorer(repo)) == 1
    shown = capsys.readouterr().err
    assert "color failed: it ended with 3: CUDA error: out of luck" in shown
    assert "CUDA error" in (out / "scores" / "color" / "log.txt").read_text()
    assert shown.count("scored already") == 12
    assert evaluate("vbench", tiny_model, out, "--only", "report", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    found = {score["name"]: score["value"] for score in report["scores"]}
    assert found["color"] is found["semantic"] is found["total"] is None
    assert found["quality"] is not None
    assert "Nothing is counted as 0" in report["notes"][0]
    assert report["tables"][0]["rows"][0][0] == "this model (incomplete)"
    (repo / "crash").unlink()
    assert evaluate("vbench", tiny_model, out, "--only", "score", *scorer(repo)) == 0
    assert capsys.readouterr().err.count("scored already") == 15


def test_folders_that_would_be_scored_wrongly_are_refused(
    sampled: Path, vbench_repo: Path, tiny_model: Path, tmp_path: Path, capsys: Captured
) -> None:
    out = tmp_path / "out"
    shutil.copytree(sampled, out)
    samples = sorted((out / "samples").iterdir())
    kept = samples[0].read_bytes()

    def refused(*words: str) -> None:
        assert evaluate("vbench", tiny_model, out, "--only", "score", *scorer(vbench_repo)) == 1
        error, hint = capsys.readouterr().err.splitlines()[-2:]
        assert all(word in error for word in words), error
        assert hint.startswith("hint: ")
        assert not (out / "scores").exists()

    (out / "samples" / "notes.json").write_text("{}")
    refused("1 is not part of the suite (notes.json)")
    (out / "samples" / "notes.json").unlink()
    (out / "samples" / ".cache").mkdir()  # the scorer would take the suffix from any name
    refused("1 is not part of the suite (.cache/)")
    (out / "samples" / ".cache").rmdir()
    samples[0].unlink()
    refused(f"1 is missing ({samples[0].name})")
    samples[0].with_name(samples[0].name.upper()).write_bytes(kept)
    refused("named like others but for upper case", f"should be {samples[0].name}")
    samples[0].with_name(samples[0].name.upper()).unlink()
    samples[0].write_bytes(kept[: len(kept) // 2])
    refused(samples[0].name)
    samples[0].write_bytes(b"")
    refused(f"1 is damaged ({samples[0].name}")
    from ursa_core.media import write_media

    clip = read_media(samples[1])
    write_media(samples[0], clip.frames[:3], 8.0)
    refused("of another length", "3 frames, not 5")
    write_media(samples[0], clip.frames[:, :8], 8.0)
    refused("of another size", "8x16, not 16x16")
    samples[0].unlink()
    capsys.readouterr()
    # Sampling again makes what is missing, as it was.
    again = ("--only", "sample", "--limit", NUM_PROMPTS, "--frames", 5, "--steps", 1)
    assert evaluate("vbench", tiny_model, out, *again) == 0
    assert "1 made" in capsys.readouterr().err
    assert samples[0].read_bytes() == kept


def test_changed_samples_and_results_of_other_versions_are_refused(
    sampled: Path, tiny_model: Path, tmp_path: Path, capsys: Captured
) -> None:
    out = tmp_path / "out"
    shutil.copytree(sampled, out)
    folder = out / "scores" / "scene"
    folder.mkdir(parents=True)
    mark = {"format": 1, "samples": "0" * 16, "commands": []}
    (folder / "scored.json").write_text(json.dumps(mark))
    assert evaluate("vbench", tiny_model, out, "--only", "report") == 1
    assert "scene in " in capsys.readouterr().err
    (folder / "scored.json").unlink()
    results = folder / "results_2026-01-01-00:00:00_eval_results.json"
    for content, words in (
        ('{"scene": {"score": 0.4}}', "it is of another version"),
        ('{"scene": [40.5, []]}', "it is of another version"),
        ('{"scene": [NaN, []]}', "it is of another version"),
        ('{"scene": [', "can't be read"),
    ):
        results.write_text(content)
        assert evaluate("vbench", tiny_model, out, "--only", "report") == 1
        assert words in capsys.readouterr().err
    results.write_text('{"scene": [0.5, []], "unknown": [1, []]}')  # scored on another machine
    assert evaluate("vbench", tiny_model, out, "--only", "report") == 0
    found = {score["name"]: score["value"] for score in report_of(out)["scores"]}
    assert found["scene"] == 0.5
    assert evaluate("geneval", tiny_model, out, "--only", "report") == 2
    assert "is an evaluation by vbench, not geneval" in capsys.readouterr().err
    assert evaluate("vbench", tiny_model, out, "--only", "report", "--prompts", "rewritten") == 2
    suite = out / "records" / "suite.json"
    begun = suite.read_text()
    for before, now, words in (
        ('"format": 1', '"format": 9', "has format 9, not 1"),
        ('"limit": 22', '"limit": "all"', "is damaged"),
        ('"limit": 22', '"limit": 0', "is damaged"),
        ('"limit": 22', '"number": 22', "is damaged"),
        (begun, "[1]", "is damaged"),
        (begun, begun[:20], "can't be read"),
    ):
        suite.write_text(begun.replace(before, now))
        assert evaluate("vbench", tiny_model, out, "--only", "report") == 1
        assert words in capsys.readouterr().err.splitlines()[-2]


def test_shards_make_the_same_files_as_one_process(
    sampled: Path, tiny_model: Path, tmp_path: Path, capsys: Captured
) -> None:
    given = ("--limit", NUM_PROMPTS, "--frames", 5, "--steps", 1)
    for number in (2, 1):
        part = ("--shard", f"{number}/2", "--limit", 11)
        assert evaluate("vbench", tiny_model, tmp_path / "out", *given, *part) == 0
    whole, made = layouts.listing(sampled / "samples"), layouts.listing(tmp_path / "out/samples")
    assert len(made) == 75
    assert made.items() <= whole.items()
    assert evaluate("vbench", tiny_model, sampled, *given, "--only", "sample", "--seed", 1) == 2
    assert "is a batch of the seed 0, not 1" in capsys.readouterr().err
    other = ("--only", "sample", "--limit", NUM_PROMPTS, "--frames", 9)
    assert evaluate("vbench", tiny_model, sampled, *other) == 2
    told = capsys.readouterr().err
    assert "-0.mp4 was made with other options: " in told
    assert "frames 5, not 9" in told
    # Without --limit a trial stays as large as it was.
    assert evaluate("vbench", tiny_model, sampled, *given[2:], "--only", "sample") == 0
    told = capsys.readouterr().err
    assert "goes on with --limit 22" in told
    assert "0 made, 170 kept" in told
    assert evaluate("vbench", tiny_model, sampled, "--only", "sample", "--limit", 5) == 2
    assert "begun with --limit 22, more than --limit 5" in capsys.readouterr().err


def test_geneval_goes_from_prompts_to_tags(
    tiny_model: Path, tmp_path: Path, capsys: Captured
) -> None:
    out, repo = tmp_path / "out", stand_ins.write_geneval(tmp_path / "geneval")
    given = ("--limit", 24, "--steps", 1, "--batch-size", 8, "--prompts", "rewritten")
    assert evaluate("geneval", tiny_model, out, *given, *scorer(repo)) == 0
    layouts.check_geneval(layouts.listing(out / "samples"), 24)
    report = report_of(out)
    found = {score["name"]: score for score in report["scores"]}
    right = {}
    for sample in report["samples"]:
        (tag,) = set(sample["values"]) - {"overall"}
        right.setdefault(tag, []).append(sample["values"][tag])
    shares = [sum(values) / len(values) for values in right.values()]
    assert len(shares) == 6
    assert found["overall"]["value"] == pytest.approx(sum(shares) / 6)
    assert all(0 <= found[tag]["low"] < found[tag]["high"] <= 1 for tag in right)
    names = [sample["name"] for sample in report["samples"] if sample["verdict"] != "right"]
    assert "expected bench>=1, found 0" in {sample["verdict"] for sample in report["samples"]}
    assert names
    metadata = next((out / "samples").glob("*/metadata.jsonl"))
    metadata.write_text(metadata.read_text().replace("a photo", "a picture"))
    assert evaluate("geneval", tiny_model, out, "--only", "score", *scorer(repo)) == 1
    assert "metadata.jsonl (not as the suite has it)" in capsys.readouterr().err
    assert evaluate("geneval", tiny_model, out, "--frames", 5) == 2
    assert "--frames can't be 5" in capsys.readouterr().err


def test_dpg_cuts_the_grids_as_they_were_put_together(
    tiny_model: Path, tmp_path: Path, capsys: Captured
) -> None:
    out, repo = tmp_path / "out", stand_ins.write_ella(tmp_path / "ELLA", 3)
    assert evaluate("dpg", tiny_model, out, "--steps", 1, *scorer(repo)) == 0
    layouts.check_dpg(layouts.listing(out / "samples"), repo / "dpg_bench" / "prompts")
    with Image.open(out / "samples" / "0.png") as image:
        assert image.size == (32, 32)
    report = report_of(out)
    found = {score["name"]: score["value"] for score in report["scores"]}
    values = [sample["values"]["overall"] for sample in report["samples"]]
    assert found["overall"] == pytest.approx(sum(values) / 3)
    assert found["entity"] == 0.815
    assert "ELLA#60" in report["notes"][0]
    assert not report["complete"]  # 3 of 1,065
    capsys.readouterr()
    wide = ("--only", "sample", "--size", "16x24", "--scorer-repo", repo)
    assert evaluate("dpg", tiny_model, tmp_path / "wide", *wide) == 2
    assert "images are 16x24" in capsys.readouterr().err
    assert evaluate("dpg", tiny_model, tmp_path / "none", "--only", "sample") == 2
    assert "git clone" in capsys.readouterr().err


def test_vbench_i2v_starts_with_the_official_images(
    vbench_repo: Path, tiny_model: Path, tmp_path: Path, capsys: Captured
) -> None:
    repo = tmp_path / "VBench"
    shutil.copytree(vbench_repo, repo)
    images = repo / "vbench2_beta_i2v" / "data" / "crop" / "8-5"
    out = tmp_path / "out"
    given = ("--limit", 12, "--frames", 5, "--steps", 1)
    assert evaluate("vbench-i2v", tiny_model, out, *given, *scorer(repo)) == 1
    assert "download_data.sh" in capsys.readouterr().err
    images.mkdir(parents=True)
    for k, row in enumerate(layouts.rows("vbench_i2v.jsonl")):
        Image.new("RGB", (32, 20), (k % 256, 90, 40)).save(images / row["image"])
    assert evaluate("vbench-i2v", tiny_model, out, *given, "--frames", 1, *scorer(repo)) == 2
    assert "is the given image alone" in capsys.readouterr().err
    assert evaluate("vbench-i2v", tiny_model, out, *given, *scorer(repo)) == 0
    report = report_of(out)
    found = {score["name"]: score["value"] for score in report["scores"]}
    dimensions = {k: v for k, v in found.items() if k not in ("total", "quality", "i2v")}
    assert len(dimensions) == 9
    absent = {name for name, value in dimensions.items() if value is None}
    assert absent == {"i2v_background", "background_consistency"}  # no such prompt in the trial
    assert found["total"] is found["quality"] is found["i2v"] is None
    assert "i2v_background: the trial has no prompt of it" in capsys.readouterr().err
    assert "no total, quality, i2v score" in report["notes"][0]
    name = report["samples"][0]["name"]
    clip = read_media(out / "samples" / name)
    (given_file,) = clip.metadata["given"]["files"]
    assert Path(given_file["file"]).parent == images
    assert clip.metadata["given"]["cond"] == "lock"


def test_vbench_long_extends_its_clips(
    vbench_repo: Path, tiny_model: Path, tmp_path: Path, capsys: Captured
) -> None:
    out = tmp_path / "out"
    given = ("--limit", 1, "--steps", 1, "--seconds", 2)
    assert evaluate("vbench-long", tiny_model, out, *given, "--only", "sample") == 0
    files = sorted((out / "samples").iterdir())
    assert len(files) == 5
    assert len(read_media(files[0]).frames) == 16  # 2 s of 8 a second, beyond the model's 9
    assert not list((out / "records" / "rounds").iterdir())
    short = (*given[:4], "--only", "sample", "--seconds")
    assert evaluate("vbench-long", tiny_model, tmp_path / "short", *short, 0.5) == 2
    assert "4 don't extend it" in capsys.readouterr().err
    # What could not begin decides nothing: another length is free to choose.
    assert evaluate("vbench-long", tiny_model, tmp_path / "short", *short, 2, "--dry-run") == 0


def test_pythons_that_do_not_start_are_named(
    sampled: Path, vbench_repo: Path, tiny_model: Path, tmp_path: Path, capsys: Captured
) -> None:
    out, junk = tmp_path / "out", tmp_path / "python"
    shutil.copytree(sampled, out)
    junk.write_text("no program")
    junk.chmod(0o755)
    repo = ("--scorer-repo", vbench_repo, "--scorer-python")
    assert evaluate("vbench", tiny_model, out, "--only", "score", *repo, junk) == 1
    shown = capsys.readouterr().err
    assert f"there is no {junk} that starts (Exec format error)" in shown
    assert "16 of 16 parts of vbench have no score" in shown
    assert evaluate("vbench", tiny_model, out, "--only", "score", *repo, "/bin/true") == 1
    assert "scene failed: it wrote no *_eval_results.json" in capsys.readouterr().err


def test_samples_without_a_record_are_told_of(
    sampled: Path, vbench_repo: Path, tiny_model: Path, tmp_path: Path, capsys: Captured
) -> None:
    out = tmp_path / "out"
    shutil.copytree(sampled, out)
    manifest = out / "records" / "manifest.jsonl"
    manifest.write_text(manifest.read_text().partition("\n")[0] + "\n")
    assert evaluate("vbench", tiny_model, out, "--only", "score", *scorer(vbench_repo)) == 0
    told = "no record tells what length and size 170 files should have"
    assert told in capsys.readouterr().err
    manifest.unlink()
    assert evaluate("vbench", tiny_model, out, "--only", "report") == 1
    assert "nothing was sampled" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["vbench", "-o", "out"], "--scorer-repo isn't given"),
        (["vbench", "-o", "out", "--scorer-repo", "."], "--scorer-python isn't given"),
        (["vbench", "-o", "out", "--only", "sampling"], "--only can't be sampling"),
        (["vbench", "-o", "out", "--limit", "0"], "--limit can't be 0"),
        (["vbench", "-o", "out", "--prompts", "long"], "--prompts can't be long"),
        (["vbench", "-o", "out", "--shard", "1/2", "--only", "score"], "--shard is for samples"),
        (["vbench", "-o", "out", "--steps", "0"], "--steps can't be 0"),
        (["vbench", "-o", "file.txt"], "is no folder"),
        (["vbench-i2v", "-o", "out", "--ratio", "4-3"], "--ratio can't be 4-3"),
        (["vbench-long", "-o", "out", "--seconds", "0"], "--seconds can't be 0"),
        (["geneval", "-o", "out", "--scorer-repo", "no", "--scorer-python", "no"], "no checkout"),
        (["shapes", "-o", "out", "--batch-size", "0"], "--batch-size can't be 0"),
        (["shapes", "-o", ""], "the output is empty"),
        (["videos", ".", "-o", ""], "the output is empty"),
        (["reconstruction", "-o", "file.txt"], "is no folder"),
        (["compare", "a", "b", "--plot", "a.mp4"], "the plot is a PNG"),
        (["shapes"], "missing option '--output'"),
        (["nothing"], "no such command 'nothing'"),
    ],
)
def test_arguments_that_can_not_be_are_refused(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.txt").touch()
    assert main(["eval", *arguments]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert words in error
    assert hint.startswith("hint: ")
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]
