"""Defaults of published models, against a table written from the reference's own code and pages."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ursa_cli.main import main
from ursa_core.bundle.adapters import save_adapter
from ursa_core.bundle.folder import WEIGHTS
from ursa_core.bundle.hub import models_folder
from ursa_core.bundle.settings import PUBLISHED, load_settings
from ursa_core.media import write_media

DOCS = Path(__file__).parents[2] / "docs"
NEGATIVE = (
    "worst quality, low quality, inconsistent motion, static, still, blurry, jittery, distorted,"
    " ugly"
)
BOTH = {
    "guidance_interval": [0.0, 0.9], "correct": 0.0, "temperature": 1.0, "top_p": None,
    "fps": 12.0, "crf": 18,
}  # fmt: skip
VIDEO = {
    **BOTH, "frames": 49, "height": 320, "width": 512, "steps": 50, "guidance": 7.0,
    "negative": NEGATIVE, "shift": 1.0,
}  # fmt: skip
IMAGE = {
    **BOTH, "frames": 1, "height": 1024, "width": 1024, "steps": 25, "guidance": 7.0,
    "negative": NEGATIVE, "shift": 2.0,
}  # fmt: skip
IMAGE_512 = {**IMAGE, "height": 512, "width": 512}
TUNED = {**IMAGE_512, "guidance": 1.0, "negative": ""}
# README.md, docs/evaluation.md and evaluations/ of baaivision/URSA (29284bb), README.md of
# Yovecent/UDM-GRPO (d1bec49); the shift is that of the stand-in's scheduler.
REFERENCE = {
    "BAAI/URSA-0.6B-FSQ320": VIDEO,
    "BAAI/URSA-1.7B-FSQ320": VIDEO,
    "BAAI/URSA-0.6B-IBQ1024": IMAGE,
    "BAAI/URSA-1.7B-IBQ1024": IMAGE,
    "BAAI/URSA-1.7B-IBQ512": IMAGE_512,
    "Yovecents/URSA-1.7B-IBQ512-UDMGRPO-GenEval": TUNED,
    "Yovecents/URSA-1.7B-IBQ512-UDMGRPO-PickScore": TUNED,
}


@pytest.fixture
def pulled(home, tiny_model, published_image_model):
    """Puts a small model of the kind of an id where that one's files would be; gives its folder."""

    def put(name: str) -> Path:
        kind = tiny_model if "FSQ" in name else published_image_model
        folder = models_folder() / name.replace("/", "--")
        return shutil.copytree(kind, folder, ignore=shutil.ignore_patterns("ursa.json"))

    return put


def printed(capsys, *words):
    assert main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def agrees(found, expected):
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("name", REFERENCE)
def test_sampling_defaults_are_the_references(name, pulled, capsys, tmp_path):
    assert REFERENCE.keys() == PUBLISHED.keys()
    folder = pulled(name)
    expected, call = REFERENCE[name], ("sample", "a bear", "--model", name, "--dry-run")
    plan = printed(capsys, *call, "-o", tmp_path / "a.png", "--frames", 1)
    agrees(plan, {**expected, "frames": 1})
    out = tmp_path / ("a.png" if expected["frames"] == 1 else "a.mp4")
    plan = printed(capsys, *call, "-o", out)
    agrees(plan, {**expected, "motion": None, "solver": "integrated"})
    guided = sum(t < 0.9 for t in times(expected)) if expected["guidance"] > 1 else 0
    assert plan["network_passes"] == expected["steps"] + guided
    assert printed(capsys, *call, "-o", out, "--negative", "")["negative"] == ""
    settings = load_settings(folder)
    assert (settings.motion, settings.max_prompt_length) == (9.0, 320)
    assert settings.motion_prefix == ("FSQ" in name)
    shown = printed(capsys, "models", "show", name)
    agrees(shown["settings"], {**expected, "top_p": 1.0})
    assert "github.com/" in shown["settings_source"]


def times(expected):
    """Times of the steps: t / (t + shift·(1 − t)) of even ones."""
    even = [step / expected["steps"] for step in range(expected["steps"])]
    return [t / (t + expected["shift"] * (1 - t)) for t in even]


def test_a_longer_clip_has_less_motion(pulled, capsys, tmp_path):
    name = "BAAI/URSA-0.6B-FSQ320"
    pulled(name)
    clip = tmp_path / "clip.mp4"
    write_media(clip, np.zeros((13, 320, 512, 3), np.uint8), 12.0, {"prompt": "a bear"})
    call = ("extend", clip, "--model", name, "--frames", 49, "-o", tmp_path / "b.mp4", "--dry-run")
    plan = printed(capsys, *call)
    agrees(plan, {**VIDEO, "motion": 5.0, "overlap": 13, "num_rounds": 1, "frames": 49})
    assert printed(capsys, *call, "--motion", 9)["motion"] is None
    image = tmp_path / "first.png"
    write_media(image, np.zeros((1, 320, 512, 3), np.uint8), 12.0, {})
    between = ("interpolate", "--first", image, "--loop", "--model", name, "-o", "c.mp4")
    assert printed(capsys, *between, "--dry-run")["negative"] == NEGATIVE


def test_rounds_of_vbench_long_have_less_motion_too(
    home, tiny_model, capsys, tmp_path, monkeypatch
):
    folder = shutil.copytree(tiny_model, models_folder() / "BAAI--URSA-0.6B-FSQ320")
    shape = {"frames": 9, "height": 16, "width": 16, "steps": 1, "max_prompt_length": 12}
    (folder / "ursa.json").write_text(json.dumps(shape))
    rounds = []

    def made(bundle, frames, extension, request, *_):
        rounds.append(request.options.motion)
        return [], frames

    monkeypatch.setattr("ursa_core.evaluation.suites.tasks.extend", made)
    call = ["eval", "vbench-long", "--model", "BAAI/URSA-0.6B-FSQ320", "--limit", "1"]
    for words, motion in ((), 5.0), (("--motion", "7"), 7.0):
        rounds.clear()
        out = tmp_path / f"long{len(words)}"
        asked = [*call, *words, "--only", "sample", "--seconds", "1", "-o", str(out)]
        plan = printed(capsys, *asked, "--dry-run")["items"][0]["options"]
        assert plan["extension"].get("motion", plan["motion"]) == motion
        assert main(asked) == 0
        assert set(rounds) == {motion}
        capsys.readouterr()


def test_a_merged_model_keeps_what_its_id_told(pulled, tmp_path):
    name = "BAAI/URSA-1.7B-IBQ512"
    folder = pulled(name)
    stem = "base_model.model.model.layers.0.mlp.up_proj.lora_"
    (rows, columns) = load_file(folder / "transformer" / WEIGHTS)[
        "model.layers.0.mlp.up_proj.weight"
    ].shape
    matrices = {f"{stem}A.weight": torch.ones(1, columns), f"{stem}B.weight": torch.ones(rows, 1)}
    save_adapter(tmp_path / "lora", matrices, {"peft_type": "LORA", "lora_alpha": 1, "r": 1}, {})
    words = ["models", "merge", name, "--lora", str(tmp_path / "lora")]
    assert main([*words, "-o", str(tmp_path / "merged")]) == 0
    assert load_settings(tmp_path / "merged").defaults == load_settings(folder).defaults
    assert load_settings(tmp_path / "merged").height == 512
    assert load_settings(tmp_path / "merged").licence == "not stated"
    card = (tmp_path / "merged" / "README.md").read_text()
    assert card.startswith("# merged\n")
    assert name in card
    assert str(tmp_path / "lora") in card


@pytest.mark.parametrize(
    ("suite", "expected"),
    [
        ("vbench", {**VIDEO, "motion": None}),
        ("geneval", {**IMAGE, "negative": ""}),
        ("dpg", {**IMAGE, "negative": ""}),
    ],
)
def test_suites_as_their_pages_say_have_the_official_settings(
    suite, expected, pulled, capsys, tmp_path, monkeypatch
):
    """As evaluations/{vbench,geneval,dpgbench}/sample.py have them, which sample in float16."""
    monkeypatch.chdir(tmp_path)
    prompts = tmp_path / "ELLA" / "dpg_bench" / "prompts"
    prompts.mkdir(parents=True)
    (prompts / "1.txt").write_text("a bear")
    page = (DOCS / "eval" / f"{suite}.md").read_text().replace("\\\n", " ")
    line = next(line for line in page.splitlines() if line.startswith(f"ursa eval {suite} --model"))
    words = line.partition("#")[0].split()[1:]
    pulled(words[words.index("--model") + 1])
    plan = printed(capsys, *words, "--limit", 1, "--dry-run")
    official = {"solver": "euler", "dtype": "float16", **expected}
    assert plan["items"]
    for item in plan["items"]:
        agrees(item["options"], official)
    if suite != "dpg":
        listed = (
            Path(__file__).parents[2] / f"ursa_core/evaluation/suites/prompt_lists/{suite}.jsonl"
        )
        longer = {json.loads(text)["rewritten"] for text in listed.open(encoding="utf-8")}
        assert plan["items"][0]["options"]["prompt"] in longer
    own = printed(capsys, *words, "--limit", 1, "--dry-run", "--negative", "fog")
    assert own["items"][0]["options"]["negative"] == "fog"


def test_an_unknown_model_of_the_family_says_that_it_guesses(pulled, capsys, tmp_path):
    folder = pulled("BAAI/URSA-4B-FSQ320")
    assert printed(capsys, "models", "show", "BAAI/URSA-4B-FSQ320")["settings_source"] == "guessed"
    assert load_settings(folder) == load_settings(pulled("BAAI/URSA-0.6B-FSQ320"))
    words = ["--model", "BAAI/URSA-4B-FSQ320", "--size", "16x16", "--steps", "1", "--frames", "1"]
    assert main(["sample", "red", *words, "-o", str(tmp_path / "a.png")]) == 0
    assert "defaults of this unknown model are guessed" in capsys.readouterr().err
    assert main(["models", "show", str(folder)]) == 0
    assert "a guess" in capsys.readouterr().out
    image = pulled("lab/pictures-IBQ")
    config = image / "vae" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "sample_size": 256}))
    settings = load_settings(image)
    assert (settings.height, settings.width, settings.steps) == (256, 256, 25)


@pytest.mark.parametrize(
    "name", ["URSA-1.7B-IBQ512", "BAAI--URSA-1.7B-IBQ512", "URSA-1___7B-IBQ512"]
)
def test_a_folder_called_like_a_published_model_is_taken_for_it(
    name, published_image_model, tmp_path
):
    folder = shutil.copytree(published_image_model, tmp_path / name)
    assert load_settings(folder).height == 512
    (folder / "ursa.json").write_text('{"height": 256}')  # what a user writes comes first
    settings = load_settings(folder)
    assert (settings.height, settings.width, settings.negative) == (256, 512, NEGATIVE)


def test_a_known_model_is_shown_before_it_is_pulled(home, capsys):
    shown = printed(capsys, "models", "show", "BAAI/URSA-1.7B-IBQ512")
    agrees(shown["settings"], {"height": 512, "steps": 25, "negative": NEGATIVE, "shift": None})
    assert main(["models", "show", "BAAI/URSA-1.7B-FSQ320"]) == 0
    told = capsys.readouterr()
    assert "5 in ursa extend" in told.out
    assert "ursa models pull BAAI/URSA-1.7B-FSQ320" in told.err
    assert main(["models", "show", "BAAI/URSA-9B-FSQ320"]) == 1


@pytest.mark.parametrize(
    "text",
    [
        "BAAI//URSA-1.7B-FSQ320", "BAAI/URSA-1.7B-FSQ320/", "BAAI/URSA-1.7B-FSQ320.",
        "BAAI/URSA-1..7B-FSQ320", "BAAI/URSA-1.7B-FSQ320/transformer",
        "https://huggingface.co/BAAI/URSA-1.7B-FSQ320",
    ],
)  # fmt: skip
def test_an_id_with_a_dot_or_slash_too_many_is_told(text, home, capsys):
    for words in (["models", "show", text], ["models", "pull", text]):
        assert main(words) != 0
        error, hint = capsys.readouterr().err.splitlines()
        assert repr(text) in error
        assert hint.endswith("BAAI/URSA-1.7B-FSQ320")


def test_a_path_is_not_taken_for_an_id(home, capsys):
    assert main(["models", "show", "./models//mine"]) == 1
    assert "an id as owner/name" in capsys.readouterr().err
