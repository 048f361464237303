"""The official suites from sampling to the report, scored by stand-ins in their own processes."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import layouts
import pytest
import stand_in_scorers as stand_ins
from PIL import Image

from ursa_cli.main import main
from ursa_core.evaluation.official import totals
from ursa_core.media import read_media, write_media

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


@pytest.fixture(scope="module")
def scored(sampled: Path, vbench_repo: Path, tiny_model: Path, tmp_path_factory: Any) -> Path:
    """The same, scored; copy it to change it."""
    out = tmp_path_factory.mktemp("scored") / "out"
    shutil.copytree(sampled, out)
    assert evaluate("vbench", tiny_model, out, "--only", "score", *scorer(vbench_repo)) == 0
    return out


@pytest.fixture
def out(sampled: Path, tmp_path: Path) -> Path:
    """A copy of what was sampled."""
    return shutil.copytree(sampled, tmp_path / "out")


def test_vbench_samples_every_prompt_of_its_layout(sampled: Path) -> None:
    names = {path.name for path in (sampled / "samples").iterdir()}
    entries = {row["prompt"]: row for row in layouts.rows("vbench.jsonl")}
    prompts = {name.rpartition("-")[0] for name in names}
    assert prompts <= set(entries)
    assert len(prompts) == NUM_PROMPTS
    for prompt in prompts:
        num = 25 if "temporal_flickering" in entries[prompt]["dimensions"] else 5
        assert {f"{prompt}-{index}.mp4" for index in range(num)} <= names
    clip = read_media(sampled / "samples" / sorted(names)[0])
    assert clip.frames.shape == (5, 16, 16, 3)
    assert clip.metadata["prompt"] == sorted(names)[0].rpartition("-")[0]


def test_the_scorer_reads_the_sampled_prompts_and_leaves_them(sampled: Path, scored: Path) -> None:
    assert layouts.listing(scored / "samples") == layouts.listing(sampled / "samples")
    log = (scored / "scores" / "scene" / "log.txt").read_text()
    assert "start evaluation ['scene']" in log
    assert "WARNING" not in log  # of prompts without a video


def test_totals_follow_from_the_dimensions(
    scored: Path, tiny_model: Path, tmp_path: Path, capsys: Captured
) -> None:
    out = shutil.copytree(scored, tmp_path / "out")
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


def test_what_is_scored_is_kept(
    scored: Path, vbench_repo: Path, tiny_model: Path, capsys: Captured
) -> None:
    marks = {path: path.read_bytes() for path in (scored / "scores").rglob("scored.json")}
    assert evaluate("vbench", tiny_model, scored, "--only", "score", *scorer(vbench_repo)) == 0
    assert capsys.readouterr().err.count("scored already") == 16
    assert all(path.read_bytes() == content for path, content in marks.items())


def test_steps_that_lack_a_module_say_how_to_get_it(
    out: Path, vbench_repo: Path, tiny_model: Path, tmp_path: Path, capsys: Captured
) -> None:
    repo = shutil.copytree(vbench_repo, tmp_path / "repo")
    shutil.rmtree(repo / "detectron2")
    assert evaluate("vbench", tiny_model, out, "--only", "score", *scorer(repo)) == 1
    shown = capsys.readouterr().err
    assert "pip install 'git+https://github.com/facebookresearch/detectron2.git'" in shown
    assert "4 of 16 parts of vbench have no score" in shown
    assert "can't be scored: object_class, multiple_objects, color, spatial_relationship" in shown


def test_a_scorer_that_crashes_keeps_what_it_scored(
    scored: Path, vbench_repo: Path, tiny_model: Path, tmp_path: Path, capsys: Captured
) -> None:
    out = shutil.copytree(scored, tmp_path / "out")
    shutil.rmtree(out / "scores" / "color")
    repo = shutil.copytree(vbench_repo, tmp_path / "repo")
    (repo / "crash").write_text("color")
    assert evaluate("vbench", tiny_model, out, "--only", "score", *scorer(repo)) == 1
    shown = capsys.readouterr().err
    assert "color failed: it ended with 3: CUDA error: out of luck" in shown
    assert "CUDA error" in (out / "scores" / "color" / "log.txt").read_text()
    assert shown.count("scored already") == 15
    (repo / "crash").unlink()
    assert evaluate("vbench", tiny_model, out, "--only", "score", *scorer(repo)) == 0
    assert capsys.readouterr().err.count("scored already") == 15


def test_a_missing_dimension_leaves_its_totals_out(
    scored: Path, tiny_model: Path, tmp_path: Path, capsys: Captured
) -> None:
    out = shutil.copytree(scored, tmp_path / "out")
    shutil.rmtree(out / "scores" / "color")
    capsys.readouterr()
    assert evaluate("vbench", tiny_model, out, "--only", "report", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    found = {score["name"]: score["value"] for score in report["scores"]}
    assert found["color"] is found["semantic"] is found["total"] is None
    assert found["quality"] is not None
    assert "Nothing is counted as 0" in report["notes"][0]
    assert report["tables"][0]["rows"][0][0] == "this model (incomplete)"


def _cut(clip: Path, *kept: slice) -> None:
    """Replace a clip by a part of it."""
    write_media(clip, read_media(clip).frames[kept], 8.0)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda clip: (clip.parent / "notes.json").touch(), "not part of the suite (notes.json)"),
        # The scorer would take the suffix from any name.
        (lambda clip: (clip.parent / ".cache").mkdir(), "1 is not part of the suite (.cache/)"),
        (lambda clip: clip.unlink(), "1 is missing ({name})"),
        (lambda clip: clip.rename(clip.with_name(clip.name.upper())), "should be {name}"),
        (lambda clip: clip.write_bytes(clip.read_bytes()[:900]), "1 is damaged ({name}"),
        (lambda clip: clip.write_bytes(b""), "1 is damaged ({name}"),
        (lambda clip: _cut(clip, slice(3)), "1 is of another length ({name} (3 frames, not 5))"),
        (
            lambda clip: _cut(clip, slice(None), slice(8)),
            "1 is of another size ({name} (8x16, not 16x16))",
        ),
    ],
)
def test_folders_that_would_be_scored_wrongly_are_refused(
    spoil: Callable[[Path], object],
    words: str,
    out: Path,
    vbench_repo: Path,
    tiny_model: Path,
    capsys: Captured,
) -> None:
    clip = min((out / "samples").iterdir())
    spoil(clip)
    assert evaluate("vbench", tiny_model, out, "--only", "score", *scorer(vbench_repo)) == 1
    error, hint = capsys.readouterr().err.splitlines()[-2:]
    assert words.format(name=clip.name) in error
    assert hint.startswith("hint: ")
    assert not (out / "scores").exists()


def test_sampling_again_makes_what_is_missing(
    out: Path, tiny_model: Path, capsys: Captured
) -> None:
    clip = min((out / "samples").iterdir())
    kept = clip.read_bytes()
    clip.unlink()
    again = ("--only", "sample", "--limit", NUM_PROMPTS, "--frames", 5, "--steps", 1)
    assert evaluate("vbench", tiny_model, out, *again) == 0
    assert "1 made" in capsys.readouterr().err
    assert clip.read_bytes() == kept


def test_scores_of_other_samples_are_refused(out: Path, tiny_model: Path, capsys: Captured) -> None:
    folder = out / "scores" / "scene"
    folder.mkdir(parents=True)
    mark = {"format": 1, "samples": "0" * 16, "commands": []}
    (folder / "scored.json").write_text(json.dumps(mark))
    assert evaluate("vbench", tiny_model, out, "--only", "report") == 1
    assert "scene in " in capsys.readouterr().err


RESULTS = "results_2026-01-01-00:00:00_eval_results.json"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"scene": {"score": 0.4}}', "it is of another version"),
        ('{"scene": [40.5, []]}', "it is of another version"),
        ('{"scene": [true, []]}', "it is of another version"),
        ('{"scene": [NaN, []]}', "it is of another version"),
        ('{"scene": [', "can't be read"),
    ],
)
def test_results_of_other_versions_are_refused(
    content: str, words: str, out: Path, tiny_model: Path, capsys: Captured
) -> None:
    folder = out / "scores" / "scene"
    folder.mkdir(parents=True)
    (folder / RESULTS).write_text(content)
    assert evaluate("vbench", tiny_model, out, "--only", "report") == 1
    assert words in capsys.readouterr().err


def test_results_of_another_machine_are_taken(out: Path, tiny_model: Path) -> None:
    folder = out / "scores" / "scene"
    folder.mkdir(parents=True)
    (folder / RESULTS).write_text('{"scene": [0.5, []], "unknown": [1, []]}')
    assert evaluate("vbench", tiny_model, out, "--only", "report") == 0
    found = {score["name"]: score["value"] for score in report_of(out)["scores"]}
    assert found["scene"] == 0.5


def test_a_folder_stays_that_of_its_suite(out: Path, tiny_model: Path, capsys: Captured) -> None:
    assert evaluate("geneval", tiny_model, out, "--only", "report") == 2
    assert "is an evaluation by vbench, not geneval" in capsys.readouterr().err
    assert evaluate("vbench", tiny_model, out, "--only", "report", "--prompts", "rewritten") == 2
    assert "was begun with --prompts None, not rewritten" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        ('"format": 1', '"format": 9', "has format 9, this version reads 1"),
        ('"limit": 22', '"limit": "all"', "is damaged: limit: "),
        ('"limit": 22', '"limit": 0', "is damaged: limit: "),
        ('"limit": 22', '"number": 22', "is damaged: limit: "),
        (None, "[1]", "is no record of ursa eval"),
        (None, '{"format": 1,', "can't be read"),
    ],
)
def test_damaged_records_of_a_folder_are_refused(
    before: str | None, now: str, words: str, out: Path, tiny_model: Path, capsys: Captured
) -> None:
    suite = out / "records" / "suite.json"
    begun = suite.read_text()
    assert before is None or before in begun
    suite.write_text(now if before is None else begun.replace(before, now))
    assert evaluate("vbench", tiny_model, out, "--only", "report") == 1
    assert words in capsys.readouterr().err.splitlines()[-2]


GIVEN = ("--limit", NUM_PROMPTS, "--frames", 5, "--steps", 1)


def test_shards_make_the_same_files_as_one_process(
    sampled: Path, tiny_model: Path, tmp_path: Path
) -> None:
    for number in (2, 1):
        part = ("--shard", f"{number}/2", "--limit", 11)
        assert evaluate("vbench", tiny_model, tmp_path / "out", *GIVEN, *part) == 0
    whole, made = layouts.listing(sampled / "samples"), layouts.listing(tmp_path / "out/samples")
    assert len(made) == 75
    assert made.items() <= whole.items()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (("--seed", 1), ("is a batch of the seed 0, not 1",)),
        (("--frames", 9), ("-0.mp4 was made with other options: ", "frames 5, not 9")),
        (("--limit", 5), ("begun with --limit 22, more than --limit 5",)),
    ],
)
def test_a_folder_goes_on_with_what_it_was_begun_with(
    changed: tuple[object, ...],
    words: tuple[str, ...],
    sampled: Path,
    tiny_model: Path,
    capsys: Captured,
) -> None:
    assert evaluate("vbench", tiny_model, sampled, "--only", "sample", *GIVEN, *changed) == 2
    shown = capsys.readouterr().err
    assert all(each in shown for each in words)


def test_a_trial_stays_as_large_as_it_was(
    sampled: Path, tiny_model: Path, capsys: Captured
) -> None:
    assert evaluate("vbench", tiny_model, sampled, *GIVEN[2:], "--only", "sample") == 0
    shown = capsys.readouterr().err
    assert "goes on with --limit 22" in shown
    assert "0 made, 170 kept" in shown


def test_geneval_goes_from_prompts_to_tags(tiny_model: Path, tmp_path: Path) -> None:
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
    verdicts = {sample["verdict"] for sample in report["samples"]}
    assert verdicts == {"right", "expected bench>=1, found 0"}


def test_changed_metadata_of_geneval_is_refused(
    tiny_model: Path, tmp_path: Path, capsys: Captured
) -> None:
    out, repo = tmp_path / "out", stand_ins.write_geneval(tmp_path / "geneval")
    assert evaluate("geneval", tiny_model, out, "--limit", 1, "--steps", 1, *scorer(repo)) == 0
    metadata = next((out / "samples").glob("*/metadata.jsonl"))
    metadata.write_text(metadata.read_text().replace("a photo", "a picture"))
    assert evaluate("geneval", tiny_model, out, "--only", "score", *scorer(repo)) == 1
    assert "metadata.jsonl (not as the suite has it)" in capsys.readouterr().err


def test_dpg_cuts_the_grids_as_they_were_put_together(tiny_model: Path, tmp_path: Path) -> None:
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


def test_dpg_needs_squares_and_its_checkout(
    tiny_model: Path, tmp_path: Path, capsys: Captured
) -> None:
    repo = stand_ins.write_ella(tmp_path / "ELLA", 1)
    wide = ("--only", "sample", "--size", "16x24", "--scorer-repo", repo)
    assert evaluate("dpg", tiny_model, tmp_path / "wide", *wide) == 2
    assert "images are 16x24" in capsys.readouterr().err
    assert evaluate("dpg", tiny_model, tmp_path / "none", "--only", "sample") == 2
    assert "git clone" in capsys.readouterr().err


I2V_GIVEN = ("--limit", 12, "--frames", 5, "--steps", 1)
IMAGES = Path("vbench2_beta_i2v") / "data" / "crop" / "8-5"


@pytest.fixture(scope="module")
def i2v_repo(vbench_repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with the official images."""
    repo = shutil.copytree(vbench_repo, tmp_path_factory.mktemp("i2v") / "VBench")
    (repo / IMAGES).mkdir(parents=True)
    for k, row in enumerate(layouts.rows("vbench_i2v.jsonl")):
        Image.new("RGB", (32, 20), (k % 256, 90, 40)).save(repo / IMAGES / row["image"])
    return repo


def test_vbench_i2v_starts_with_the_official_images(
    i2v_repo: Path, tiny_model: Path, tmp_path: Path, capsys: Captured
) -> None:
    out = tmp_path / "out"
    assert evaluate("vbench-i2v", tiny_model, out, *I2V_GIVEN, *scorer(i2v_repo)) == 0
    assert "i2v_background: the trial has no prompt of it" in capsys.readouterr().err
    report = report_of(out)
    found = {score["name"]: score["value"] for score in report["scores"]}
    dimensions = {k: v for k, v in found.items() if k not in ("total", "quality", "i2v")}
    assert len(dimensions) == 9
    absent = {name for name, value in dimensions.items() if value is None}
    assert absent == {"i2v_background", "background_consistency"}  # no such prompt in the trial
    assert found["total"] is found["quality"] is found["i2v"] is None
    assert "no total, quality, i2v score" in report["notes"][0]
    clip = read_media(out / "samples" / report["samples"][0]["name"])
    (given_file,) = clip.metadata["given"]["files"]
    assert Path(given_file["file"]).parent == i2v_repo / IMAGES
    assert clip.metadata["given"]["cond"] == "lock"


def test_vbench_i2v_needs_images_and_more_than_one_frame(
    vbench_repo: Path, i2v_repo: Path, tiny_model: Path, tmp_path: Path, capsys: Captured
) -> None:
    out = tmp_path / "out"
    assert evaluate("vbench-i2v", tiny_model, out, *I2V_GIVEN, *scorer(vbench_repo)) == 1
    assert "download_data.sh" in capsys.readouterr().err
    still = (*I2V_GIVEN, "--frames", 1)
    assert evaluate("vbench-i2v", tiny_model, out, *still, *scorer(i2v_repo)) == 2
    assert "is the given image alone" in capsys.readouterr().err


def test_vbench_long_extends_its_clips(tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = ("--limit", 1, "--steps", 1, "--seconds", 2)
    assert evaluate("vbench-long", tiny_model, out, *given, "--only", "sample") == 0
    files = sorted((out / "samples").iterdir())
    assert len(files) == 5
    assert len(read_media(files[0]).frames) == 16  # 2 s of 8 a second, beyond the model's 9
    assert not list((out / "records" / "rounds").iterdir())


def test_a_length_that_could_not_begin_decides_nothing(
    tiny_model: Path, tmp_path: Path, capsys: Captured
) -> None:
    short = ("--limit", 1, "--steps", 1, "--only", "sample", "--seconds")
    assert evaluate("vbench-long", tiny_model, tmp_path / "short", *short, 0.5) == 2
    assert "4 don't extend it" in capsys.readouterr().err
    assert evaluate("vbench-long", tiny_model, tmp_path / "short", *short, 2, "--dry-run") == 0


def test_pythons_that_do_not_start_are_named(
    out: Path, vbench_repo: Path, tiny_model: Path, tmp_path: Path, capsys: Captured
) -> None:
    junk = tmp_path / "python"
    junk.write_text("no program")
    junk.chmod(0o755)
    repo = ("--scorer-repo", vbench_repo, "--scorer-python")
    assert evaluate("vbench", tiny_model, out, "--only", "score", *repo, junk) == 1
    shown = capsys.readouterr().err
    assert f"there is no {junk} that starts (Exec format error)" in shown
    assert "16 of 16 parts of vbench have no score" in shown
    assert evaluate("vbench", tiny_model, out, "--only", "score", *repo, "/bin/true") == 1
    assert "scene failed: it wrote no *_eval_results.json" in capsys.readouterr().err


def test_samples_without_a_record_are_named(
    out: Path, vbench_repo: Path, tiny_model: Path, capsys: Captured
) -> None:
    manifest = out / "records" / "manifest.jsonl"
    manifest.write_text(manifest.read_text().partition("\n")[0] + "\n")
    assert evaluate("vbench", tiny_model, out, "--only", "score", *scorer(vbench_repo)) == 0
    assert "no record states what length and size 170 files should have" in capsys.readouterr().err
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
        (["geneval", "-o", "out", "--frames", "5"], "--frames can't be 5"),
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
