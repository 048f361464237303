"""Batches of clips made from given files, on a tiny random model: the same as single runs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ursa_cli.main import main
from ursa_core.media import read_media, write_media
from ursa_core.worlds.shapes import training_clip

PROMPT = "a red circle moves right"


@pytest.fixture
def run(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A command on the tiny model, in a folder with a.png, b.png, clip.mkv and wide.png."""
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    frames = training_clip(0, 0, "heldout", 11, 16, 16)[0]
    write_media("a.png", frames[:1], 8.0)
    write_media("b.png", frames[10:], 8.0)
    write_media("clip.mkv", frames, 8.0, {"prompt": PROMPT})
    write_media("wide.png", np.repeat(frames[:1], 2, axis=2), 8.0)

    def call(command: str, *arguments: object) -> int:
        return main([command, *map(str, arguments), *fixed(tiny_model)])

    return call


def fixed(model: Path) -> list[str]:
    return ["--model", str(model), "--device", "cpu", "--dtype", "float32"]


def write(*lines: dict[str, Any]) -> str:
    Path("list.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return "list.jsonl"


def content(file: Path | str) -> tuple[bytes, dict[str, Any]]:
    """Frames and metadata; a .mkv is no other but for the number that it draws for itself."""
    clip = read_media(file)
    return clip.frames.tobytes(), clip.metadata


def contents(folder: str) -> dict[str, tuple[bytes, dict[str, Any]]]:
    return {file.name: content(file) for file in Path(folder).glob("*.mkv")}


def test_samples_of_given_frames_are_those_of_single_runs_in_any_pack(run, capsys):
    source = write(
        {"prompt": PROMPT, "seed": 1, "cond_noise": 0.3},
        {"prompt": PROMPT, "seed": 2, "image": "b.png", "cond": "soft", "cond_noise": 0.3},
        {"prompt": PROMPT, "seed": 3, "video": "clip.mkv", "strength": 0.5, "fit": True},
        {"prompt": PROMPT, "seed": 4, "cond_noise": 0.3},
    )
    batch = ("--from-file", source, "--image", "a.png", "--name-template", "{seed}.mkv")
    assert run("sample", *batch, "-o", "one", "--json") == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["kept"][0]["frames"] for row in told[:-1]] == [1, 1, 9, 1]
    assert run("sample", *batch, "-o", "packed", "--batch-size", 4) == 0
    made = contents("one")
    assert made == contents("packed")
    alone = (PROMPT, "--seed", 4, "--image", "a.png", "--cond-noise", 0.3, "-o", "alone.mkv")
    assert run("sample", *alone) == 0
    assert content("alone.mkv") == made["4.mkv"]
    edit = (PROMPT, "--seed", 3, "--video", "clip.mkv", "--strength", 0.5, "-o", "edit.mkv")
    assert run("sample", *edit) == 0
    assert content("edit.mkv") == made["3.mkv"]


def test_a_changed_file_is_a_changed_option_and_a_moved_one_is_not(run, capsys):
    batch = ("sample", "-o", "out", "--from-file")
    assert run(*batch, write({"prompt": PROMPT, "image": "a.png"})) == 0
    Path("a.png").rename("moved.png")
    assert run(*batch, write({"prompt": PROMPT, "image": "moved.png"})) == 0
    assert "0 made, 1 kept" in capsys.readouterr().err
    Path("b.png").rename("moved.png")
    assert run(*batch, "list.jsonl") == 2
    assert "line 1 was made with other options: given.files.0.sha256" in capsys.readouterr().err
    assert run(*batch, "list.jsonl", "--force") == 0


def test_interpolations_are_those_of_single_runs(run):
    source = write(
        {"first": "a.png", "last": "b.png", "seed": 1},
        {"first": "b.png", "loop": True, "seed": 2, "prompt": PROMPT},
        {"first": "a.png", "keyframes": ["b.png@4"], "seed": 3, "frames": 9},
        {"seed": 4},
    )
    batch = ("--from-file", source, "--last", "a.png", "--first", "b.png")
    assert run("interpolate", *batch, "-o", "out", "--name-template", "{index}-{slug}.mkv") == 0
    made = contents("out")
    names = ["0-a-b.mkv", "1-a-red-circle-moves-right.mkv", "2-a-b.mkv", "3-b-a.mkv"]
    assert sorted(made) == names
    alone = ("--first", "a.png", "--last", "b.png", "--seed", 1, "-o", "alone.mkv")
    assert run("interpolate", *alone) == 0
    assert content("alone.mkv") == made[names[0]]
    loop = (PROMPT, "--first", "b.png", "--loop", "--seed", 2, "-o", "loop.mkv")
    assert run("interpolate", *loop) == 0
    assert content("loop.mkv") == made[names[1]]


def test_extensions_are_those_of_single_runs(run, capsys):
    source = write(
        {"clip": "clip.mkv", "frames": 19, "seed": 1},
        {"clip": "clip.mkv", "prompts": ["a red circle", PROMPT], "seconds": 2.4, "seed": 2},
        {"clip": "clip.mkv", "prompt": "a red circle", "before": True, "seed": 3},
    )
    batch = ("--from-file", source, "--frames", 15, "--name-template", "{index}-{slug}.mkv")
    assert run("extend", *batch, "-o", "out", "--json") == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [len(row["rounds"]) for row in told[:-1]] == [2, 2, 1]
    made = contents("out")
    assert sorted(made) == ["0-clip.mkv", "1-a-red-circle.mkv", "2-a-red-circle.mkv"]
    assert {path.name for path in Path("out").iterdir()} == {*made, "manifest.jsonl"}
    assert run("extend", "clip.mkv", "--frames", 19, "--seed", 1, "-o", "alone.mkv") == 0
    assert content("alone.mkv") == made["0-clip.mkv"]
    Path("clips.txt").write_text("clip.mkv\n", encoding="utf-8")
    assert run("extend", "--from-file", "clips.txt", "--seconds", 2, "-o", "of_text") == 0
    assert len(read_media(Path("of_text/00000-clip.mp4")).frames) == 16


def test_a_killed_extension_goes_on_with_its_rounds(run, run_in, tiny_model, capsys):
    lines = [{"clip": "clip.mkv", "frames": frames, "seed": 1} for frames in (31, 15)]
    batch = ["extend", "--from-file", write(*lines), "--name-template", "{index}.mkv", "-o"]
    rounds = Path("out/0.mkv.rounds")
    num = run_in([*batch, "whole", *fixed(tiny_model)], Path.cwd())[0]["changes"]
    run_in([*batch, "out", *fixed(tiny_model)], Path.cwd(), num // 3)
    assert (rounds / "round-0001.safetensors").exists()
    assert run(*batch, "out", "--steps", 1) == 1
    assert "list.jsonl, line 1: the rounds in" in capsys.readouterr().err
    assert run(*batch, "out", "--json") == 0
    first, _, summary = map(json.loads, capsys.readouterr().out.splitlines())
    assert 2 <= sum(each["resumed"] for each in first["rounds"]) < 5
    assert summary == {"summary": {"made": 2, "kept": 0, "failed": 0, "left": 0}}
    assert not rounds.exists()
    assert contents("out") == contents("whole")


@pytest.mark.parametrize(
    ("command", "line", "named", "hint"),
    [
        ("sample", {"prompt": "a", "image": "no.png"}, "no.png doesn't exist", "path"),
        ("sample", {"prompt": "a", "image": "wide.png"}, "16x32 pixels", "--fit"),
        ("sample", {"prompt": "a", "image": "a.png", "video": "clip.mkv"}, "both", "one of"),
        ("sample", {"prompt": "a", "strength": 0.5}, "--strength is for", "--video"),
        ("sample", {"prompt": "a", "fit": 3}, "fit can't be 3", "true or false"),
        ("interpolate", {"first": "a.png"}, "nothing to go between", "--last"),
        ("interpolate", {"first": "a.png", "keyframes": ["b.png"]}, "no keyframe", "@8"),
        ("interpolate", {"keyframes": ["b.png@8", "a.png@0"]}, "behind that", "rising"),
        (
            "interpolate",
            {"first": "a.png", "keyframes": ["b.png@4"], "last": "b.png"},
            "every",
            "more",
        ),
        ("interpolate", {"keyframes": 3}, "keyframes can't be 3", "a list of texts"),
        ("extend", {"clip": "no.mkv", "frames": 15}, "no.mkv doesn't exist", "path"),
        ("extend", {"frames": 15}, "the clip is empty", "name"),
        ("extend", {"clip": "clip.mkv"}, "length of the result isn't clear", "--seconds"),
        ("extend", {"clip": "a.png", "frames": 15}, "fewer than the overlap", "--overlap"),
        ("extend", {"clip": "clip.mkv", "frames": 15, "chain": "x"}, "--chain can't be x", "pix"),
        ("extend", {"clip": "a", "prompt": "a", "prompts": ["b"]}, "can't both", "one of"),
    ],
)
def test_a_line_that_can_not_be_made_stops_all(command, line, named, hint, run, capsys):
    good = {
        "sample": {"prompt": PROMPT},
        "interpolate": {"first": "a.png", "last": "b.png"},
        "extend": {"clip": "clip.mkv", "frames": 15},
    }
    assert run(command, "--from-file", write(good[command], line), "-o", "out") == 1
    error, told = capsys.readouterr().err.splitlines()
    assert error.startswith("error: list.jsonl, line 2: ")
    assert named in error
    assert hint in told
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("extend", "clip.mkv", "--from-file", "l.txt"), "CLIP and --from-file"),
        (("extend", "--frames", "15"), "missing argument 'CLIP'"),
        (("extend", "--from-file", "l.txt", "--batch-size", "2"), "no such option: --batch-size"),
        (("extend", "clip.mkv", "--frames", "15", "--shard", "1/2"), "--shard is for batches"),
        (("interpolate", "--from-file", "l.txt"), "a text per line, which isn't enough"),
        (("interpolate", "--first", "a.png", "--skip-bad"), "--skip-bad is for batches"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(arguments, named, run, capsys):
    Path("l.txt").write_text("clip.mkv\n", encoding="utf-8")
    assert run(*arguments, "-o", "out") == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert named in error
    assert hint.startswith("hint: ")
    assert not Path("out").exists()
