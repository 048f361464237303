"""Emoji, unknown words, long prompts and other languages, on a bundle that lists its subjects."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len

from ursa_cli.main import main
from ursa_cli.terminal import output
from ursa_core.bundle.bundle import load_bundle, resolve_model
from ursa_core.bundle.subjects import (
    SUBJECTS_FILE,
    Subject,
    load_subjects,
    named_subjects,
    save_subjects,
)
from ursa_core.clips.plan import prompt_warnings
from ursa_core.sampling.generate import Request, Sampler, full_prompt
from ursa_core.worlds.emoji import BACKGROUNDS, caption

# nano knows these words; figures named by them stand in for emoji that a model was trained on.
CIRCLE = Subject("red circle", ("ball",), "shapes", "\N{LARGE RED CIRCLE}")
STAR = Subject("yellow star", ("night",), "sky", "\N{WHITE MEDIUM STAR}")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("subjects") / "model"
    shutil.copytree(resolve_model("nano"), folder)
    save_subjects(folder, [CIRCLE, STAR])
    return folder


def sample(model: Path, prompt: str, out: Path) -> int:
    size = ["--size", "32x32", "--frames", "5", "--steps", "2"]
    return main(["sample", prompt, "--model", str(model), *size, "-o", str(out), "--force"])


def test_an_emoji_reads_as_its_name(model: Path) -> None:
    bundle = load_bundle(model)
    still = replace(bundle.settings.defaults, frames=1)
    options = [
        Request(prompt, options=replace(still, negative=negative))
        for prompt, negative in (("a red circle", "yellow star"), (f"a {CIRCLE.emoji}", STAR.emoji))
    ]
    assert full_prompt(bundle, options[1]) == "a red circle"
    ids = Sampler(bundle, options)
    assert (ids.prompt_ids[0] == ids.prompt_ids[1]).all()
    assert (ids.negative_ids[0] == ids.negative_ids[1]).all()


def test_an_emoji_alone_is_a_prompt(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sample(model, CIRCLE.emoji, tmp_path / "a.mp4") == 0
    err = " ".join(capsys.readouterr().err.split())
    assert "doesn't know" not in err
    assert "trained at 64x64 pixels alone, so figures may come out wrong at 32x32" in err


def test_unknown_words_name_the_nearest_subjects(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sample(model, "a stars, a ball and a qqq", tmp_path / "a.mp4") == 0
    err = " ".join(capsys.readouterr().err.split())
    assert "stars (nearest: yellow star), ball (nearest: red circle)" in err
    assert "qqq (ursa models show" in err
    assert "reads English" not in err


def test_another_language_is_told(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sample(model, "un renard à côté", tmp_path / "a.mp4") == 0
    assert "it knows none, and reads English" in " ".join(capsys.readouterr().err.split())


def test_two_hundred_words_are_told_in_short(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = "a red circle " * 66 + " ".join(f"word{k}" for k in range(20))
    assert sample(model, prompt, tmp_path / "a.mp4") == 0
    err = " ".join(capsys.readouterr().err.split())
    assert "too long for the model, this is cut off: " in err
    assert "word7 and 12 more" in err
    assert len(err) < 800


def test_every_caption_of_the_shipped_model_names_its_figure_alone() -> None:
    subjects = load_subjects(resolve_model("emoji"))
    for subject in subjects:
        for background in BACKGROUNDS:
            text = caption(subject.name, background)
            assert named_subjects(text, subjects) == [subject.name]


@pytest.mark.parametrize(
    ("prompt", "warned"),
    [
        ("a red circle moves up", None),
        ("", None),
        ("a navy background", "names nothing that the model draws (ursa models show"),
        (
            "a red circle moves yellow star",
            "draws one figure, and the prompt names red circle, yel",
        ),
        ("a red circle on turquoise", "turquoise (nearest: teal)"),
        ("a red circle xx\u200byy", r"xx\u200byy"),
        ("foxes", "these words of the prompt: foxes (ursa models show"),
        ("लोमड़ी", "it knows none, and reads English"),
    ],
)
def test_a_prompt_is_judged_by_its_figures(model: Path, prompt: str, warned: str | None) -> None:
    bundle = load_bundle(model)
    told = prompt_warnings(bundle, Request(prompt))
    assert warned in told[0] if warned else told == [], told
    assert len(told) <= 1


def test_the_list_of_subjects_goes_by_group(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(output, "is_terminal", lambda stream: True)
    assert main(["models", "show", str(model), "--prompts"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"shapes: red circle {CIRCLE.emoji}", f"sky: yellow star {STAR.emoji}"]
    assert max(map(cell_len, lines)) <= 60
    told = " ".join(line.strip() for line in lines[2:])
    assert told.startswith(f"backgrounds: {', '.join(BACKGROUNDS)} prompts: a red circle on a teal")
    assert "a yellow star on a teal background" in told
    assert main(["models", "show", str(model), "--prompts", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["subjects"] == {
        "shapes": [{"name": "red circle", "emoji": CIRCLE.emoji}],
        "sky": [{"name": "yellow star", "emoji": STAR.emoji}],
    }
    assert shown["backgrounds"] == list(BACKGROUNDS)
    assert len(shown["prompts"]) == 2


def test_a_model_without_subjects_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "show", "nano", "--prompts"]) == 2
    assert "nano has no list of subjects" in capsys.readouterr().err


def test_damaged_subjects_are_refused(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = shutil.copytree(model, tmp_path / "model")
    (broken / SUBJECTS_FILE).write_text("{")
    assert main(["models", "show", str(broken), "--prompts"]) == 1
    assert "can't be read" in capsys.readouterr().err
