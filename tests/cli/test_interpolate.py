"""`ursa interpolate` on a tiny random model: what is given where, loops and refusals."""

import json
from pathlib import Path

import numpy as np
import pytest

from ursa_cli.main import main
from ursa_core.bundle.bundle import load_bundle
from ursa_core.clips.cond_frames import CondFrames, CondMedia, place_keyframes, read_image
from ursa_core.grids import LatentGrid
from ursa_core.media import read_media, write_media
from ursa_core.sampling.generate import encode
from ursa_core.worlds.shapes import training_clip


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Frames of a clip as a.png, b.png, c.png; wide.png is of another size."""
    frames = training_clip(0, 0, "heldout", 3, 16, 16)[0]
    for name, frame in zip("abc", frames, strict=True):
        write_media(tmp_path / f"{name}.png", frame[None], 8.0)
    write_media(tmp_path / "wide.png", np.repeat(frames[:1], 2, axis=2), 8.0)
    monkeypatch.chdir(tmp_path)
    return [frame[None] for frame in frames]


@pytest.fixture
def interpolate(images, tiny_model):
    def run(*arguments: object) -> int:
        fixed = ["-o", "out.mkv", "--model", str(tiny_model), "--device", "cpu", "--seed", "2"]
        return main(["interpolate", *fixed, *map(str, arguments)])

    return run


def test_images_are_told_recorded_and_decide_the_video(interpolate, capsys):
    made = []
    for last in ("b.png", "b.png", "c.png"):
        arguments = ("--first", "a.png", "--last", last, "--force", "--json")
        assert interpolate(*arguments) == 0
        made.append(read_media("out.mkv").frames)
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    places = [(each["file"], each["frame"]) for each in told["given"]["files"]]
    assert places == [("a.png", 0), ("c.png", 8)]
    kept = told["outputs"][0]["kept"]
    assert [(each["frame"], each["frames"]) for each in kept] == [(0, 1), (8, 1)]
    assert read_media("out.mkv").metadata["given"] == told["given"]
    np.testing.assert_array_equal(made[0], made[1])
    assert (made[0] != made[2]).any()


def test_an_image_is_encoded_as_what_its_latent_frame_stands_for(images, tiny_model):
    bundle = load_bundle(tiny_model)
    shape = bundle.settings.shape
    media = {0: read_image("a.png", shape, fit=False), 8: read_image("b.png", shape, fit=False)}
    conditioning = CondFrames(media, "lock", 0.0).conditioning(bundle, LatentGrid(3, 2, 2))
    assert conditioning.cond_frames.tolist() == [True, False, True]
    still = np.repeat(images[1], 5, axis=0)
    assert (conditioning.codes[0] == encode(bundle, images[0])[0]).all()
    assert (conditioning.codes[2] == encode(bundle, still)[1]).all()
    assert (conditioning.codes[2] != conditioning.codes[0]).any()


def test_keyframes_stand_between(interpolate, capsys):
    ends = ("--first", "a.png", "--last", "c.png", "--frames", 13)
    assert interpolate(*ends, "--keyframe", "b.png@6", "--json") == 0
    files = json.loads(capsys.readouterr().out)["given"]["files"]
    assert [each["frame"] for each in files] == [0, 6, 12]
    assert interpolate("--keyframe", "a.png@4", "--keyframe", "b.png@5", "--force") == 0


def test_a_loop_ends_before_its_first_frame_comes_again(interpolate, capsys):
    assert interpolate("--first", "a.png", "--loop", "--json") == 0
    assert len(read_media("out.mkv").frames) == 5  # the model's nine, less the stride
    told = json.loads(capsys.readouterr().out)
    assert [each["frame"] for each in told["given"]["files"]] == [0, 5]
    assert [each["frame"] for each in told["outputs"][0]["kept"]] == [0]
    assert told["dropped_frames"] == 4
    assert interpolate("--first", "a.png", "--loop", "--frames", 9, "--force") == 0
    assert len(read_media("out.mkv").frames) == 9


def test_a_loop_leads_up_to_its_first_frame_without_a_seam():
    places = place_keyframes("a.png", "a.png", [], 13, 4, loop=True)
    image = CondMedia("a.png", "", np.full((1, 2, 2, 3), 190, np.uint8), None, {})
    made = np.full((17, 2, 2, 3), 100, np.uint8)
    shown = CondFrames(dict.fromkeys(places, image), "lock", 0.0).shown(made)
    levels = shown[:13, 0, 0, 0].astype(int)  # of which the first follows the last
    assert levels.min() == 150
    assert (np.abs(levels - np.roll(levels, 1)) <= 10).all()


def test_a_dry_run_tells_what_is_given(interpolate, tmp_path, capsys):
    assert interpolate("--first", "a.png", "--loop", "--dry-run", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [each["frame"] for each in told["given"]["files"]] == [0, 5]
    assert interpolate("--first", "a.png", "--loop", "--dry-run") == 0
    assert "a.png, from frame 5, lock, noise 0" in capsys.readouterr().out
    assert not (tmp_path / "out.mkv").exists()


AB = ("--first", "a.png", "--last", "b.png")


@pytest.mark.parametrize(
    ("arguments", "code", "named", "hint"),
    [
        ((), 2, "nothing to go between", "--first and --last"),
        (("--first", "a.png"), 2, "nothing to go between", "--loop"),
        (("--loop", "--last", "b.png"), 2, "--loop", "no --last"),
        ((*AB, "--loop"), 2, "--loop", "no --last"),
        (("--first", "a.png", "--last", "wide.png"), 2, "wide.png is 16x32 pixels", "--fit"),
        ((*AB, "--frames", "8"), 2, "8 frames", "5 or 9"),
        ((*AB, "--frames", "1"), 2, "nothing between its ends", "more --frames"),
        ((*AB, "--keyframe", "c.png"), 2, "c.png is no keyframe", "@8"),
        ((*AB, "--keyframe", "c.png@-1"), 2, "c.png@-1 is no keyframe", "@8"),
        ((*AB, "--keyframe", "c.png@9"), 2, "c.png@9 isn't in a clip of 9", "0 to 8"),
        ((*AB, "--keyframe", "c.png@8"), 2, "frame 8 is given twice", "give one"),
        (
            ("--first", "a.png", "--loop", "--keyframe", "c.png@5"),
            2,
            "c.png@5 isn't in a clip of 5",
            "0 to 4",
        ),
        ((*AB, "--keyframe", "c.png@0"), 2, "frame 0 is given twice", "give one"),
        ((*AB, "--keyframe", "c.png@7"), 2, "frames 7 and 8 are too near", "4 frames"),
        (
            (*AB, "--frames", "17", "--keyframe", "c.png@9", "--keyframe", "c.png@4"),
            2,
            "behind that of frame 9",
            "rising",
        ),
        ((*AB, "--keyframe", "no.png@4"), 1, "no.png doesn't exist", "path"),
        (("--first", "", "--last", "b.png"), 2, "the first image is empty", "name"),
    ],
)
def test_what_cannot_be_interpolated_is_refused(
    arguments, code, named, hint, interpolate, tmp_path, capsys
):
    assert interpolate(*arguments) == code
    error, told = capsys.readouterr().err.splitlines()
    assert named in error
    assert hint in told
    assert not (tmp_path / "out.mkv").exists()


def test_images_of_other_sizes_are_fitted_on_request(interpolate):
    assert interpolate("--first", "a.png", "--last", "wide.png", "--fit") == 0
    assert read_media("out.mkv").frames.shape == (9, 16, 16, 3)
