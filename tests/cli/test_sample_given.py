"""`ursa sample` from a first frame or from a clip: what is kept, recorded and refused."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ursa_cli.main import main
from ursa_core.bundle.bundle import load_bundle
from ursa_core.clips.cond_frames import condition
from ursa_core.media import read_media, write_media
from ursa_core.sampling.generate import Request, encode, generate
from ursa_core.tokens.token_files import load_tokens
from ursa_core.worlds.shapes import training_clip

PROMPT = "a red circle moves right on a navy background"
FAST = ["--steps", "2", "--frames", "9", "--seed", "4", "--device", "cpu", "--dtype", "float32"]


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    return training_clip(0, 0, "heldout", 9, 64, 64)[0]


@pytest.fixture
def image(tmp_path: Path, clip: np.ndarray) -> Path:
    write_media(tmp_path / "first.png", clip[:1], 8.0)
    return tmp_path / "first.png"


@pytest.fixture
def film(tmp_path: Path, clip: np.ndarray) -> Path:
    write_media(tmp_path / "clip.mkv", clip, 8.0)
    return tmp_path / "clip.mkv"


def sample(tmp_path: Path, *arguments: object, out: str = "out.mkv") -> int:
    return main(["sample", PROMPT, "-o", str(tmp_path / out), *FAST, *map(str, arguments)])


def test_the_first_frame_is_the_image_given(tmp_path, image, clip, capsys):
    tokens = tmp_path / "out.safetensors"
    assert sample(tmp_path, "--image", image, "--save-tokens", tokens, "--json") == 0
    shown = capsys.readouterr()
    (kept,) = json.loads(shown.out)["outputs"][0]["kept"]
    assert kept["psnr"] == 100.0  # the very pixels: mkv is lossless
    assert f"kept frame 0 of {image} at {kept['psnr']:.1f} dB" in shown.err
    assert (load_tokens(tokens).codes[:1] == encode(load_bundle("nano"), clip[:1])).all()
    made = read_media(tmp_path / "out.mkv")
    np.testing.assert_array_equal(made.frames[0], clip[0])
    recorded = made.metadata["given"]
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    files = [{"file": str(image), "sha256": digest, "frame": 0}]
    assert recorded == {"files": files, "cond": "lock", "cond_noise": 0.0}


def test_soft_frames_take_part_and_a_seed_decides(tmp_path, image):
    for name, options in {"a": ["soft"], "b": ["soft"], "c": ["lock"]}.items():
        arguments = ("--image", image, "--cond", *options, "--cond-noise", 0.6)
        assert sample(tmp_path, *arguments, out=f"{name}.mkv") == 0
    soft, again, lock = (read_media(tmp_path / f"{name}.mkv").frames for name in "abc")
    np.testing.assert_array_equal(soft, again)
    assert (soft[0] != lock[0]).any()


def test_an_image_leaves_clips_without_one_as_they_were(tmp_path, image):
    assert sample(tmp_path, out="plain.mkv") == 0
    assert sample(tmp_path, "--image", image, out="given.mkv") == 0
    plain, given = (read_media(tmp_path / name).frames for name in ("plain.mkv", "given.mkv"))
    assert (plain != given).any(axis=(1, 2, 3)).all()


def test_an_edit_keeps_more_the_weaker_it_is(tmp_path, film, capsys):
    decibels = []
    for strength in (0.1, 0.5, 1.0):
        arguments = ("--video", film, "--strength", strength, "--steps", 10)
        arguments = (*arguments, "--correct", 0, "--guidance", 2, "--json", "--force")
        assert sample(tmp_path, *arguments) == 0
        (kept,) = json.loads(capsys.readouterr().out)["outputs"][0]["kept"]
        assert kept["frames"] == 9
        decibels.append(kept["psnr"])
    # Of a real film nano keeps little from the middle on.
    assert decibels[0] > max(decibels[1:]) + 3
    recorded = read_media(tmp_path / "out.mkv").metadata["given"]
    assert (recorded["cond"], recorded["cond_noise"]) == ("soft", 1.0)


def test_an_edit_takes_the_steps_that_are_left(tmp_path, film, capsys):
    arguments = ("--video", film, "--strength", 0.25, "--steps", 8, "--shift", 1)
    assert sample(tmp_path, *arguments, "--guidance", 1, "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["network_passes"] == 2


def test_frames_of_another_size_are_fitted_on_request_alone(tmp_path, clip, capsys):
    wide = np.repeat(clip, 2, axis=2)
    write_media(tmp_path / "wide.mkv", wide, 8.0, {"model": "mine"})
    write_media(tmp_path / "wide.png", wide[:1], 8.0)
    for option, name, maker in (
        ("--image", "wide.png", ""),
        ("--video", "wide.mkv", ", made by the model mine,"),
    ):
        assert sample(tmp_path, option, tmp_path / name) == 2
        error, hint = capsys.readouterr().err.splitlines()
        assert error == f"error: {tmp_path / name}{maker} is 64x128 pixels, the clip 64x64"
        assert "--fit" in hint
        assert not (tmp_path / "out.mkv").exists()
        assert sample(tmp_path, option, tmp_path / name, "--fit", out=f"{name}.mkv") == 0
        assert read_media(tmp_path / f"{name}.mkv").frames.shape == (9, 64, 64, 3)
        capsys.readouterr()


@pytest.mark.parametrize("options", [["--image", "a.png"], ["--video", "a.mkv"]])
def test_networks_that_take_turns_take_given_frames(options, tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = training_clip(0, 0, "heldout", 9, 16, 16)[0]
    write_media("a.png", given[:1], 8.0)
    write_media("a.mkv", given, 8.0)
    fixed = ["--model", str(tiny_model), "--seed", "3", "--device", "cpu", *options]
    for name, more in (("b.mkv", []), ("c.mkv", ["--offload"])):
        assert main(["sample", PROMPT, "-o", name, *fixed, *more]) == 0
    together, in_turns = read_media("b.mkv"), read_media("c.mkv")
    assert in_turns.metadata == {**together.metadata, "offload": True}
    np.testing.assert_array_equal(together.frames, in_turns.frames)


def test_an_estimate_shows_the_image_given(tiny_model):
    bundle = load_bundle(tiny_model)
    frames = training_clip(0, 0, "heldout", 1, 16, 16)[0]
    grid = bundle.grid(bundle.settings.shape)
    given = condition(bundle, grid, {0: frames}, "lock", 0.5)
    seen: list[torch.Tensor] = []
    made = generate(bundle, Request(PROMPT, 1), None, lambda _, x_1: seen.append(x_1), given)
    for x_1 in (*seen, made.view(1, -1)):
        assert torch.equal(x_1[0, : grid.codes_per_frame], given.codes[0].flatten())
    assert len(seen) == 2


@pytest.mark.parametrize(
    "given",
    [
        ("--image", "first.png"),
        ("--image", "wide.png", "--fit", "--cond", "soft", "--cond-noise", "0.3"),
        ("--video", "clip.mkv", "--strength", "0.5"),
        ("--video", "clip.mkv", "--strength", "1"),
    ],
)
def test_what_was_made_from_given_frames_is_made_again(
    given, tmp_path, image, clip, film, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    write_media("wide.png", np.repeat(clip[:1], 2, axis=2), 8.0)
    assert sample(tmp_path, *given, "--frames", 5) == 0
    assert main(["sample", "--replay", "out.mkv", "-o", "again.mkv"]) == 0
    assert Path("again.mkv").read_bytes() == Path("out.mkv").read_bytes()


def test_a_replay_needs_the_very_file_unless_another_is_named(tmp_path, image, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert sample(tmp_path, "--image", "first.png", "--frames", 5) == 0
    replay = ["sample", "--replay", "out.mkv", "-o", "again.mkv"]
    still = read_media("first.png").frames
    write_media("other.png", still[:, :, ::-1], 8.0)
    Path("first.png").rename("moved.png")
    assert main(replay) == 1
    assert "first.png, which out.mkv was made from, isn't here" in capsys.readouterr().err
    Path("other.png").rename("first.png")
    assert main(replay) == 1
    assert "has changed since" in capsys.readouterr().err
    assert main([*replay, "--image", "first.png", "--video", "out.mkv"]) == 2
    assert main([*replay, "--image", "first.png", "--cond-noise", "0.2"]) == 1
    assert main([*replay, "--image", "./first.png", "--cond-noise", "0.2"]) == 0
    told = read_media("again.mkv").metadata["given"]
    assert (told["files"][0]["file"], told["cond_noise"]) == ("./first.png", 0.2)
    assert main([*replay, "--force", "--video", "out.mkv", "--strength", "0.4"]) == 0
    assert read_media("again.mkv").metadata["strength"] == 0.4


@pytest.mark.parametrize(
    ("arguments", "code", "named", "hint"),
    [
        (["--image", "first.png", "--video", "clip.mkv"], 2, "both", "one of them"),
        (["--image", "first.png", "--strength", "0.5"], 2, "--strength is for", "--video"),
        (["--strength", "0.5"], 2, "--strength is for", "--video"),
        (["--video", "clip.mkv", "--strength", "0"], 2, "--strength can't be 0", "0.001 to 1"),
        (["--video", "clip.mkv", "--strength", "nan"], 2, "--strength can't be nan", "0.001 to 1"),
        (["--video", "clip.mkv", "--cond", "lock"], 2, "--cond", "--image"),
        (["--cond-noise", "0.1"], 2, "--cond", "--image"),
        (["--fit"], 2, "--fit is for", "name one"),
        (["--image", "first.png", "--cond", "hard"], 2, "--cond can't be hard", "soft or lock"),
        (["--image", "first.png", "--cond-noise", "1"], 2, "--cond-noise can't be 1", "below 1"),
        (["--image", "first.png", "--frames", "1"], 2, "nothing to make", "more frames"),
        (["--image", "missing.png"], 1, "missing.png doesn't exist", "path"),
        (["--image", "clip.mkv"], 1, "clip.mkv is a film", "PNG"),
        (["--image", ""], 2, "the image is empty", "name"),
        (["--video", "first.png"], 1, "first.png has 1 frame", "longer"),
        (["--video", "clip.mkv", "--frames", "17"], 1, "clip.mkv has 9 frames at 8", "longer"),
    ],
)
def test_what_cannot_be_given_is_refused(
    arguments, code, named, hint, tmp_path, image, film, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert sample(tmp_path, *arguments, "--quiet") == code
    error, told = capsys.readouterr().err.splitlines()
    assert named in error
    assert hint in told
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_to_edit_is_taken_at_the_rate_given_and_replayed(tmp_path, clip, capsys):
    folder = tmp_path / "frames"
    folder.mkdir()
    for k, frame in enumerate(clip):
        Image.fromarray(frame).save(folder / f"f{k}.png")
    assert sample(tmp_path, "--video", folder) == 1  # 9 frames at 25 a second are too short
    assert "9 are needed" in capsys.readouterr().err
    assert sample(tmp_path, "--video", folder, "--source-fps", 8) == 0
    assert "states no frame rate" not in capsys.readouterr().err
    made = read_media(tmp_path / "out.mkv")
    assert made.metadata["given"]["files"][0]["source_fps"] == 8
    again = tmp_path / "again.mkv"
    device = ["--device", "cpu", "--dtype", "float32"]
    assert main(["sample", "--replay", str(tmp_path / "out.mkv"), "-o", str(again), *device]) == 0
    np.testing.assert_array_equal(read_media(again).frames, made.frames)
    assert sample(tmp_path, "--source-fps", 8, out="none.mkv") == 2
    assert "--source-fps is for --video" in capsys.readouterr().err
    slow = ["--video", folder, "--steps", 2, "--frames", 5]
    for k in range(40):
        Image.fromarray(clip[0]).save(folder / f"g{k}.png")
    assert sample(tmp_path, *slow, out="told.mkv") == 0
    assert "states no frame rate and is taken as 25 a second" in capsys.readouterr().err


def test_an_address_is_shown_as_given(tmp_path, capsys):
    assert sample(tmp_path, "--image", "http://127.0.0.1:9/a.png") == 1
    assert "error: http://127.0.0.1:9/a.png can't be read: cannot" in capsys.readouterr().err
