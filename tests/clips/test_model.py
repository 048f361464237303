"""The Python API, on a tiny random model: the same clips as the command line, and its manners."""

import json
import os
import pickle
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ursa_core as ursa
from ursa_cli.main import main
from ursa_core.errors import HubUnreachableError
from ursa_core.media import read_media, write_media
from ursa_core.worlds.shapes import training_clip

PROMPT = "a red circle moves right"
PLACE = {"device": "cpu", "dtype": "float32"}


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> ursa.Model:
    return ursa.load(tiny_model, **PLACE)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a.png, b.png and clip.mkv."""
    monkeypatch.chdir(tmp_path)
    frames = training_clip(0, 0, "heldout", 11, 16, 16)[0]
    write_media("a.png", frames[:1], 8.0)
    write_media("b.png", frames[10:], 8.0)
    write_media("clip.mkv", frames, 8.0, {"prompt": PROMPT})
    return tmp_path


def ursa_command(model: ursa.Model, *words: object) -> read_media:
    place = ["--device", "cpu", "--dtype", "float32", "--model", str(model.bundle.folder)]
    assert main([*map(str, words), *place, "-o", "cli.mkv", "--force"]) == 0
    return read_media("cli.mkv")


def assert_same(clip: ursa.Clip, file: ursa.Clip) -> None:
    np.testing.assert_array_equal(clip.frames, file.frames)
    assert json.loads(json.dumps(dict(clip.metadata))) == file.metadata
    assert clip.fps == file.fps


def test_a_clip_is_that_of_the_command_and_saves_the_same_bytes(model, folder):
    options = {
        "seed": 3,
        "steps": 3,
        "guidance_interval": (0.1, 0.8),
        "top_p": 0.9,
        "size": "16x24",
    }
    clip = model.sample(PROMPT, **options)
    words = ("--seed", 3, "--steps", 3, "--guidance-interval", "0.1:0.8", "--top-p", 0.9)
    assert_same(clip, ursa_command(model, "sample", PROMPT, *words, "--size", "16x24"))
    assert (clip.frames.dtype, clip.frames.shape) == (np.uint8, (9, 16, 24, 3))
    assert (clip.codes.dtype, clip.codes.shape) == (torch.int64, (3, 2, 3))
    clip.save("api.mp4")
    replay = ["sample", "--replay", "api.mp4", "--model", str(model.bundle.folder)]
    assert main([*replay, "-o", "again.mp4"]) == 0
    assert Path("again.mp4").read_bytes() == Path("api.mp4").read_bytes()
    assert ursa.read_media("api.mp4").metadata["seed"] == 3


def test_given_frames_make_the_clips_of_the_commands(model, folder):
    words = ("sample", PROMPT, "--seed", 4)
    made = model.sample(PROMPT, seed=4, image="a.png", cond_noise=0.2)
    assert_same(made, ursa_command(model, *words, "--image", "a.png", "--cond-noise", 0.2))
    for image in (Image.open("a.png"), read_media("a.png").frames[0]):
        again = model.sample(PROMPT, seed=4, image=image, cond_noise=0.2)
        np.testing.assert_array_equal(again.frames, made.frames)
    edit = model.sample(PROMPT, seed=4, video="clip.mkv", strength=0.5)
    assert_same(edit, ursa_command(model, *words, "--video", "clip.mkv", "--strength", 0.5))
    clip = read_media("clip.mkv").frames
    np.testing.assert_array_equal(
        model.sample(PROMPT, seed=4, video=clip, strength=0.5).frames, edit.frames
    )


def test_interpolations_are_those_of_the_command(model, folder):
    words = ("interpolate", PROMPT, "--seed", 2, "--first", "a.png")
    made = model.interpolate(PROMPT, seed=2, first="a.png", last="b.png", frames=13)
    assert_same(made, ursa_command(model, *words, "--last", "b.png", "--frames", 13))
    loop = model.interpolate(PROMPT, seed=2, first="a.png", loop=True)
    assert_same(loop, ursa_command(model, *words, "--loop"))
    pictures = {0: read_media("a.png").frames[0], 5: Image.open("b.png")}
    keyed = model.interpolate(PROMPT, seed=2, keyframes=pictures)
    between = ("--keyframe", "a.png@0", "--keyframe", "b.png@5")
    shown = ursa_command(model, "interpolate", PROMPT, "--seed", 2, *between)
    np.testing.assert_array_equal(keyed.frames, shown.frames)


def test_extensions_are_those_of_the_command(model, folder):
    words = ("extend", "clip.mkv", "--seed", 1, "--seconds", 2.4)
    for chain in ("tokens", "pixels"):
        made = model.extend("clip.mkv", seconds=2.4, seed=1, chain=chain)
        assert_same(made, ursa_command(model, *words, "--chain", chain))
    clip = model.sample(PROMPT, seed=1)
    clip.save("short.mkv")
    longer = model.extend(clip, [PROMPT, "a red circle"], frames=17, seed=5)
    shown = ursa_command(
        model, "extend", "short.mkv", PROMPT, "a red circle", "--frames", 17, "--seed", 5
    )
    np.testing.assert_array_equal(longer.frames, shown.frames)
    assert longer.codes is None
    assert not list(folder.glob("*.rounds"))


def test_a_batch_makes_the_clips_of_single_calls(model):
    prompts = [PROMPT, "a red circle", ""]
    steps = []
    clips = model.sample_batch(prompts, seeds=[1, 2, 3], on_step=lambda *now: steps.append(now))
    for clip, prompt, seed in zip(clips, prompts, (1, 2, 3), strict=True):
        alone = model.sample(prompt, seed=seed)
        assert torch.equal(clip.codes, alone.codes)
        assert clip.metadata == alone.metadata
    assert steps[-1] == (6, 6)
    assert model.sample_batch([]) == []
    with pytest.raises(ursa.UrsaError, match="2 seeds can't be those of 1 prompts"):
        model.sample_batch([PROMPT], seeds=[1, 2])


def test_a_seed_is_drawn_and_recorded_and_a_record_of_options_is_taken_whole(model):
    first, second = (model.sample(PROMPT) for _ in range(2))
    assert first.metadata["seed"] != second.metadata["seed"]
    again = model.sample(PROMPT, seed=first.metadata["seed"])
    assert torch.equal(again.codes, first.codes)
    own = replace(model.defaults, steps=1, height=24, crf=5)
    made = model.sample(PROMPT, seed=1, options=own, fps=4)
    told = {"steps": 1, "height": 24, "width": 16, "crf": 5, "fps": 4, "solver": "integrated"}
    assert told.items() <= made.metadata.items()


def test_codes_go_to_frames_and_back(model):
    clip = model.sample(PROMPT, seed=1)
    np.testing.assert_array_equal(model.decode(clip.codes), clip.frames)
    np.testing.assert_array_equal(model.decode(clip.codes.numpy()), clip.frames)
    assert model.encode(clip.frames).shape == clip.codes.shape
    with pytest.raises(ursa.UrsaError, match="8 frames"):
        model.encode(clip.frames[:8])


def test_warnings_are_pythons_and_nothing_is_printed(model, capsys):
    seen = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.sample("a red dragon", on_step=lambda *now: seen.append(now))
    (warning,) = caught
    assert (warning.category, Path(warning.filename)) == (ursa.UrsaWarning, Path(__file__))
    assert str(warning.message).endswith(": dragon")
    assert seen == [(1, 2), (2, 2)]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"steps": 0}, "`steps` can't be 0"),
        ({"steps": "8"}, "`steps` can't be the text '8'"),
        ({"stpes": 8}, "no option `stpes`"),
        ({"size": (10, 16)}, "a height of 10"),
        ({"solver": "heun"}, "`solver` can't be heun"),
        ({"motion": 5}, "takes no `motion`"),
        ({"strength": 0.5}, "`strength` is for `video`"),
        ({"image": np.zeros((16, 24, 3), np.uint8)}, "<ndarray> is 16x24 pixels"),
        ({"image": np.zeros((16, 16, 3))}, "float64 .* holds no frames"),
        ({"image": "missing.png"}, "missing.png doesn't exist"),
        ({"seed": -1}, "`seed` can't be -1"),
        ({"frames": 40001, "size": "8000x8000"}, "GB of memory"),
    ],
)
def test_errors_make_sense_in_python(given, named, model):
    with pytest.raises(ursa.UrsaError, match=named) as caught:
        model.sample(PROMPT, **given)
    assert caught.value.hint
    assert "--" not in str(caught.value)


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="nothing"):
        ursa.nothing  # noqa: B018
    with pytest.raises(ursa.UrsaError, match="no model 'nanoo'"):
        ursa.load("nanoo")


def test_the_examples_of_the_documentation_run(tmp_path):
    root = Path(__file__).parents[2]
    text = (root / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = [block.split("```")[0] for block in text.split("```python\n")[1:]]
    # The small model, few steps, and its warnings of foxes left out.
    program = "import warnings; warnings.simplefilter('ignore')\n" + "\n".join(blocks)
    program = program.replace('"emoji"', '"nano", device="cpu", dtype="float32"')
    program = program.replace("seed=0)", "seed=0, steps=2)").replace("steps=4", "steps=2")
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False,
        env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert len(read_media(tmp_path / "fox.mp4").frames) == 17
    assert "doesn't know these words" in done.stdout


@pytest.mark.parametrize("value", [np.float64(2), np.float32(2)])
def test_numbers_of_numpy_are_numbers(model, folder, value):
    clip = model.sample(PROMPT, seed=np.int64(3), steps=np.int32(2), guidance=value)
    plain = model.sample(PROMPT, seed=3, steps=2, guidance=2.0)
    np.testing.assert_array_equal(clip.frames, plain.frames)
    assert json.dumps(dict(clip.metadata)) == json.dumps(dict(plain.metadata))
    clip.save("numpy.mkv")
    again = ["-o", "again.mkv", "--model", str(model.bundle.folder), "--device", "cpu"]
    assert main(["sample", "--replay", "numpy.mkv", *again]) == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 2.5},
        {"seed": 1.5},
        {"frames": 5.0},
        {"crf": True},
        {"index": -1},
        {"size": 64},
        {"options": ursa.SamplingOptions(motion=3.0)},
    ],
)
def test_what_is_no_value_of_an_option_is_refused(model, wrong):
    with pytest.raises(ursa.UrsaError):
        model.sample(PROMPT, **wrong)


def test_a_batch_takes_seeds_and_no_seed(model):
    with pytest.raises(ursa.UrsaError, match="`seed` is of one clip"):
        model.sample_batch([PROMPT], seed=3)


def test_codes_and_frames_that_cannot_be_are_refused(model):
    codes = model.sample(PROMPT, seed=0, steps=1).codes
    for wrong in (codes + 10**6, codes * 0 - 1, codes.double(), codes[0], codes[:0], None, "x"):
        with pytest.raises(ursa.UrsaError):
            model.decode(wrong)
    for wrong in (np.zeros((1, 16, 16, 3)), np.zeros((16, 16, 3), np.uint8), [], "x"):
        with pytest.raises(ursa.UrsaError):
            model.encode(wrong)


@pytest.mark.parametrize("name", ["", ".", "..", "x" * 300 + ".mp4", "a\0.mp4"])
def test_names_that_no_clip_can_have_are_refused(model, folder, name):
    clip = model.sample(PROMPT, seed=0, steps=1)
    with pytest.raises(ursa.UrsaError):
        clip.save(name)
    assert sorted(path.name for path in folder.iterdir()) == ["a.png", "b.png", "clip.mkv"]


def test_an_image_of_pillow_is_that_of_its_file(model, folder, capsys):
    rng = np.random.default_rng(0)
    pictures = {
        "grey.png": Image.fromarray(rng.integers(0, 1 << 16, (16, 16)).astype(np.uint16)),
        "clear.png": Image.fromarray(rng.integers(0, 256, (16, 16, 4)).astype(np.uint8)),
    }
    for name, picture in pictures.items():
        picture.save(name)
        made = [
            model.sample(PROMPT, image=image, seed=1, steps=1) for image in (name, Image.open(name))
        ]
        np.testing.assert_array_equal(*(clip.frames for clip in made))
    made[1].save("memory.mkv")
    again = ["-o", "again.mkv", "--model", str(model.bundle.folder)]
    assert main(["sample", "--replay", "memory.mkv", *again]) == 1
    assert "Python handed over" in capsys.readouterr().err


def test_one_model_serves_two_threads(model):
    codes = [model.sample(PROMPT, seed=seed, steps=1, frames=17).codes for seed in (1, 2)]
    alone = [model.decode(each) for each in codes]
    with ThreadPoolExecutor(2) as pool:
        for made, expected in zip(pool.map(model.decode, codes * 5), alone * 5, strict=True):
            np.testing.assert_array_equal(made, expected)


def test_clips_and_errors_are_plain_objects(model):
    clip, other = (model.sample(PROMPT, seed=seed, steps=1) for seed in (1, 2))
    assert clip != other
    assert len({clip, other}) == 2
    error = HubUnreachableError("lab/model", "no network", "connect")
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy)) == (type(error), str(error))
