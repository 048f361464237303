"""`ursa sample` with the shipped model: files, provenance, repeatability and refusals."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ursa_cli.main import main
from ursa_core import __version__
from ursa_core.bundle.bundle import load_bundle
from ursa_core.bundle.folder import shipped_models
from ursa_core.bundle.settings import load_settings
from ursa_core.media import read_media
from ursa_core.sampling.generate import decode
from ursa_core.tokens.token_files import load_tokens

PROMPT = "a red circle moves right on a navy background"
FAST = ["--steps", "2", "--frames", "5", "--device", "cpu", "--dtype", "float32"]


def sample(*arguments: object, prompt: str = PROMPT) -> int:
    return main(["sample", prompt, *map(str, arguments), *FAST])


def refused(capsys: pytest.CaptureFixture[str], folder: Path) -> tuple[str, str]:
    """Error and hint of a command that printed just these two and wrote nothing."""
    shown = capsys.readouterr()
    assert shown.out == ""
    error, hint = shown.err.splitlines()
    assert list(folder.iterdir()) == []
    return error.removeprefix("error: "), hint.removeprefix("hint: ")


def test_video_has_the_models_shape_and_its_provenance(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.mp4"
    assert main(["sample", PROMPT, "-o", str(out), "--seed", "3", "--steps", "2"]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    settings = load_settings(shipped_models()["nano"])
    clip = read_media(out)
    assert clip.frames.shape == (settings.frames, settings.height, settings.width, 3)
    assert clip.fps == settings.fps
    recorded = {"prompt": PROMPT, "seed": 3, "index": 0, "model": "nano", "steps": 2}
    assert recorded.items() <= clip.metadata.items()
    assert clip.metadata["ursa"] == __version__
    assert clip.metadata["guidance"] == settings.guidance
    assert clip.metadata["solver"] == "integrated"


def test_emoji_is_drawn_unless_another_model_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["sample", "a fox", "-o", str(tmp_path / "a.mp4"), "--dry-run", "--json"]
    for named, given, used in (
        ("", [], "emoji"),
        ("nano", [], "nano"),
        ("nano", ["--model", "emoji"], "emoji"),
    ):
        monkeypatch.setenv("URSA_MODEL", named)
        assert main([*arguments, *given]) == 0
        assert json.loads(capsys.readouterr().out)["model"] == used


def test_seed_decides_the_video(tmp_path: Path) -> None:
    names = {"a.mp4": 5, "b.mp4": 5, "c.mp4": 6}
    for name, seed in names.items():
        assert sample("-o", tmp_path / name, "--seed", seed) == 0
    first, again, other = ((tmp_path / name).read_bytes() for name in names)
    assert first == again
    assert first != other


def test_random_seed_is_told_and_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seeds = set()
    for name in ("a.mkv", "b.mkv"):
        assert sample("-o", tmp_path / name) == 0
        seed = read_media(tmp_path / name).metadata["seed"]
        assert f"seed {seed}\n" in capsys.readouterr().err
        seeds.add(seed)
    assert len(seeds) == 2


def test_sample_k_is_the_same_whatever_num_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sample("-o", tmp_path / "one.mkv", "--seed", 5) == 0
    assert sample("-o", tmp_path / "many.mkv", "--seed", 5, "--num", 3, "--quiet") == 0
    names = [tmp_path / f"many-000{k}.mkv" for k in range(3)]
    assert capsys.readouterr().out.splitlines()[-3:] == [str(name) for name in names]
    one = read_media(tmp_path / "one.mkv")
    many = [read_media(name) for name in names]
    np.testing.assert_array_equal(many[0].frames, one.frames)
    assert [clip.metadata["index"] for clip in many] == [0, 1, 2]
    assert (many[1].frames != one.frames).any()
    assert (many[2].frames != many[1].frames).any()


def test_networks_that_take_turns_make_the_same_video(tmp_path: Path) -> None:
    for name, more in (("a.mkv", []), ("b.mkv", ["--offload"])):
        assert sample("-o", tmp_path / name, "--seed", 5, "--num", 2, *more) == 0
    for k in range(2):
        a, b = (read_media(tmp_path / f"{name}-000{k}.mkv") for name in "ab")
        np.testing.assert_array_equal(a.frames, b.frames)
        assert (a.metadata["offload"], b.metadata["offload"]) == (False, True)


@pytest.mark.parametrize("num", ["1", "2"])
def test_layers_that_take_turns_make_the_same_video(num: str, tmp_path: Path) -> None:
    for name, more in (("a.mkv", ["--offload"]), ("b.mkv", ["--offload-blocks", num])):
        assert sample("-o", tmp_path / name, "--seed", 5, "--frames", 1, *more) == 0
    a, b = (read_media(tmp_path / f"{name}.mkv") for name in "ab")
    np.testing.assert_array_equal(a.frames, b.frames)
    assert a.metadata == b.metadata  # what is recorded makes the same, however layers are placed


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--offload-blocks", "0"], "--offload-blocks can't be 0"),
        (["--offload-blocks", "-1"], "--offload-blocks can't be -1"),
        (["--offload-blocks", "2", "--compile"], "--offload-blocks doesn't go with a compiled"),
    ],
)
def test_layers_that_can_not_take_turns(
    words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sample("-o", tmp_path / "a.mkv", *words) == 2
    message, hint = capsys.readouterr().err.splitlines()
    assert told in message
    assert hint.startswith("hint: ")
    assert not list(tmp_path.iterdir())


def test_a_compiled_network_makes_the_same_image(
    published_image_model: Path, tmp_path: Path
) -> None:
    options = ["--model", str(published_image_model), "--seed", "5", "--size", "64x64"]
    frames = []
    for name, more in (("a.png", []), ("b.png", ["--compile"])):
        words = ["sample", PROMPT, "-o", str(tmp_path / name), *FAST, "--frames", "1"]
        assert main([*words, *options, *more]) == 0
        frames.append(read_media(tmp_path / name).frames)
    np.testing.assert_array_equal(*frames)


def test_compiling_needs_a_compiler(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert sample("-o", tmp_path / "a.mkv", "--compile") == 1
    assert "C++ compiler" in refused(capsys, tmp_path)[0]


def test_maskgit_with_a_corrector_is_refused_before_the_model_is_loaded(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = tmp_path / "model", str(tmp_path / "clip.mkv")
    words = ("sample", "a circle", "--model", str(model), "-o", out)
    shutil.copytree(tiny_model, model)
    config = model / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "path": "masked"}))
    assert main([*words, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["solver"] == "maskgit"
    assert main([*words, "--dry-run", "--correct", "0.5"]) == 2
    assert "maskgit reveals each code once" in capsys.readouterr().err
    assert main([*words, "--dry-run", "--correct", "0.5", "--solver", "integrated"]) == 0


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.mkv", "frames"])
def test_extension_chooses_the_format(tmp_path: Path, name: str) -> None:
    assert sample("-o", tmp_path / name, "--seed", 1) == 0
    clip = read_media(tmp_path / name)
    assert clip.metadata["prompt"] == PROMPT
    assert clip.frames.shape[1:] == read_media(tmp_path / name, max_frames=1).frames.shape[1:]
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_one_frame_gives_an_image(tmp_path: Path) -> None:
    out = tmp_path / "a.png"
    arguments = ["sample", PROMPT, "-o", str(out), *FAST, "--frames", "1", "--seed", "1"]
    assert main(arguments) == 0
    assert len(read_media(out).frames) == 1
    assert read_media(out).metadata["frames"] == 1


def test_a_published_image_model_makes_images(
    published_image_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, tokens = tmp_path / "a.png", tmp_path / "a.safetensors"
    arguments = ["sample", "a bear", "-o", str(out), "--model", str(published_image_model)]
    assert main([*arguments, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["grid"], plan["steps"], plan["guidance"]) == ([1, 64, 64], 25, 7.0)
    small = ["--size", "48x64", "--steps", "2", "--seed", "1", "--save-tokens", str(tokens)]
    assert main([*arguments, *small, "--device", "cpu", "--dtype", "float32"]) == 0
    assert read_media(out).frames.shape == (1, 48, 64, 3)
    assert load_tokens(tokens).codes.shape == (1, 3, 4)


def test_tokens_are_those_of_the_video(tmp_path: Path) -> None:
    out, tokens = tmp_path / "a.mkv", tmp_path / "a.safetensors"
    assert sample("-o", out, "--save-tokens", tokens, "--seed", 2) == 0
    saved = load_tokens(tokens)
    assert saved.metadata["prompt"] == PROMPT
    bundle = load_bundle("nano")
    assert saved.codes.shape[0] == 1 + 4 // bundle.video_tokenizer.strides.temporal
    np.testing.assert_array_equal(decode(bundle, saved.codes), read_media(out).frames)


def test_json_tells_what_was_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sample("-o", tmp_path / "a.mp4", "--seed", 2, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["outputs"] == [{"path": str(tmp_path / "a.mp4"), "tokens": None, "index": 0}]
    assert (told["seed"], told["model"], told["steps"]) == (2, "nano", 2)


def test_empty_prompt_is_unconditional(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sample("-o", tmp_path / "a.mkv", "--seed", 1, prompt="") == 0
    assert sample("-o", tmp_path / "b.mkv", "--seed", 1) == 0
    assert "warning" not in capsys.readouterr().err
    pair = [read_media(tmp_path / name).frames for name in ("a.mkv", "b.mkv")]
    assert (pair[0] != pair[1]).any()


def test_unknown_words_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompt = "a red dragon moves right on a navy background"
    assert sample("-o", tmp_path / "a.mp4", "--negative", "a unicorn", prompt=prompt) == 0
    warnings = [s for s in capsys.readouterr().err.splitlines() if s.startswith("warning")]
    assert len(warnings) == 2
    assert warnings[0].endswith(": dragon")
    assert warnings[1].endswith(": unicorn")


def test_long_prompt_is_cut_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limit = load_settings(shipped_models()["nano"]).max_prompt_length
    prompt = " ".join(["red"] * limit + ["green", "star"])
    assert sample("-o", tmp_path / "a.mp4", prompt=prompt) == 0
    assert "cut off: green star\n" in capsys.readouterr().err


def test_existing_output_is_kept_unless_forced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.mp4", "a.safetensors"):
        (tmp_path / name).write_bytes(b"old")
        other = {"a.mp4": "b.safetensors", "a.safetensors": "b.mp4"}[name]
        media, tokens = sorted((name, other), key=lambda n: n.endswith("safetensors"))
        arguments = ("-o", tmp_path / media, "--save-tokens", tmp_path / tokens)
        assert sample(*arguments) == 2
        assert "--force" in capsys.readouterr().err
        assert (tmp_path / name).read_bytes() == b"old"
        assert not (tmp_path / other).exists()
        assert sample(*arguments, "--force") == 0
        assert (tmp_path / name).read_bytes() != b"old"
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()


def test_dry_run_tells_the_plan_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan: dict[str, Any] = {}
    for interval, passes in [("0:1", 8), ("0:0", 4), ("0:0.5", 6)]:
        arguments = ["sample", PROMPT, "-o", str(tmp_path / "a.mp4"), "--dry-run", "--json"]
        options = ["--steps", "4", "--shift", "1", "--guidance", "3", "--num", "2"]
        assert main([*arguments, *options, "--guidance-interval", interval]) == 0
        plan = json.loads(capsys.readouterr().out)
        assert plan["network_passes"] == 2 * passes
    assert plan["outputs"] == [str(tmp_path / f"a-000{k}.mp4") for k in range(2)]
    assert plan["memory_bytes"] > 10**8
    assert sample("-o", tmp_path / "a.mp4", "--dry-run") == 0
    assert "network" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "named", "hint"),
    [
        (["--steps", 0], "--steps can't be 0", "1 to 10000"),
        (["--frames", 0], "--frames can't be 0", "1 to 1000000"),
        (["--frames", 10**400], "--frames can't be 1000", "1 to 1000000"),
        (["--guidance", 101], "--guidance can't be 101", "0 to 100"),
        (["--guidance", "nan"], "--guidance can't be nan", "1 is off"),
        (["--guidance", "inf"], "--guidance can't be inf", "1 is off"),
        (["--guidance-interval", "0.9:0.1"], "'0.9:0.1'", "LO:HI"),
        (["--guidance-interval", "half"], "'half'", "LO:HI"),
        (["--guidance-interval", "0:2"], "'0:2'", "LO:HI"),
        (["--top-p", 0], "--top-p can't be 0", "0.000001 to 1"),
        (["--top-p", 1.5], "--top-p can't be 1.5", "to 1"),
        (["--temperature", 0], "--temperature can't be 0", "0.001 to 1000"),
        (["--size", "64"], "'64'", "64x96"),
        (["--size", "0x64"], "'0x64'", "64x96"),
        (["--fps", -8], "--fps can't be -8", "0.1 to 1000"),
        (["--crf", 52], "--crf can't be 52", "0"),
        (["--num", 0], "--num can't be 0", "1"),
        (["--seed", -1], "--seed can't be -1", "2^63"),
        (["--seed", 2**63], f"--seed can't be {2**63}", "2^63"),
        (["--shift", 0], "--shift can't be 0", "0.001 to 1000"),
        (["--solver", "heun"], "--solver can't be heun", "integrated or euler"),
        (["--motion", 5], "nano takes no --motion", "prompt"),
        (["--size", "60x64"], "height of 60", "56 or 64"),
        (["--device", "tpu"], "'tpu'", "cpu"),
        (["--dtype", "fp8"], "'fp8'", "bfloat16"),
    ],
)
def test_impossible_values_are_refused(
    arguments: list[object],
    named: str,
    hint: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = ["sample", PROMPT, "-o", str(tmp_path / "a.mp4")]
    assert main([*before, *map(str, arguments)]) == 2
    error, told = refused(capsys, tmp_path)
    assert named in error
    assert hint in told


def test_frames_that_do_not_fit_name_the_nearest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sample", PROMPT, "-o", str(tmp_path / "a.mp4"), "--frames", "7"]) == 2
    error, hint = refused(capsys, tmp_path)
    assert "7 frames" in error
    assert "5 or 9" in hint


@pytest.mark.parametrize(
    ("name", "code", "named"),
    [
        ("a.avi", 2, ".avi"),
        ("a.png", 2, "one frame"),
        ("missing/a.mp4", 1, "doesn't exist"),
    ],
)
def test_impossible_outputs_are_refused(
    name: str, code: int, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sample("-o", tmp_path / name) == code
    error, hint = refused(capsys, tmp_path)
    assert named in error
    assert hint


def test_tokens_need_their_extension(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokens = tmp_path / "a.pt"
    assert sample("-o", tmp_path / "a.mp4", "--save-tokens", tokens, "--num", 2) == 2
    error, hint = refused(capsys, tmp_path)
    assert error.endswith(f" {tokens}")
    assert ".safetensors" in hint


@pytest.mark.parametrize(
    ("prompt", "arguments", "named"),
    [
        ("\udcff\udcfe red", ["-o", "a.mp4"], r"the prompt is not UTF-8: '\udcff\udcfe red'"),
        ("red", ["-o", "a.mp4", "--negative", "\udcff"], "the negative prompt is not UTF-8"),
        ("red", ["-o", "\udcff.mp4"], "the output is not UTF-8"),
        ("red", ["-o", "a.mp4", "--model", "\udcff"], "the model is not UTF-8"),
        ("red", ["-o", ""], "the output is empty"),
        ("red", ["-o", "a.mp4", "--model", ""], "the model is empty"),
        ("red", ["-o", ".mp4"], ".mp4 is no name"),
        ("red", ["-o", ".", "--num", "2"], ". is no name"),
    ],
)
def test_impossible_texts_are_refused(
    prompt: str,
    arguments: list[str],
    named: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sample(*arguments, prompt=prompt) == 2
    assert named in refused(capsys, tmp_path)[0]


def test_impossible_outputs_are_refused_without_torch() -> None:
    program = (
        "import sys; from ursa_cli.main import main;"
        "codes = [main(['sample', 'x', '-o', name]) for name in ('a.avi', '', 'no/a.mp4')];"
        "sys.exit(codes != [2, 2, 1] or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]])
def test_clips_that_memory_cannot_hold_are_refused(
    dry_run: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    huge = ["--frames", "40001", "--size", "8000x8000", "--device", "cpu"]
    assert main(["sample", PROMPT, "-o", str(tmp_path / "a.mp4"), *huge, *dry_run]) == 1
    error, hint = refused(capsys, tmp_path)
    assert error.startswith("40001×8000×8000 takes about ")
    assert "--frames" in hint


def test_memory_is_refused_only_where_it_is_known_and_clearly_too_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("-o", tmp_path / "a.mp4", "--dry-run", "--json")
    assert sample(*arguments) == 0
    needed = json.loads(capsys.readouterr().out)["memory_bytes"]
    for there, code in [(None, 0), (needed, 0), (needed // 2, 1)]:
        monkeypatch.setattr("ursa_core.clips.plan.total_memory_bytes", lambda _, t=there: t)
        assert sample(*arguments) == code


def test_no_seed_is_told_of_a_model_that_does_not_load(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, folder = tmp_path / "model", tmp_path / "out"
    shutil.copytree(shipped_models()["nano"], model)
    folder.mkdir()
    shutil.rmtree(model / "tokenizer")
    assert sample("-o", folder / "a.mp4", "--model", model) == 1
    assert "tokenizer" in refused(capsys, folder)[0]


def test_unknown_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sample("-o", tmp_path / "a.mp4", "--model", "nanoo") == 1
    error, hint = refused(capsys, tmp_path)
    assert "'nanoo'" in error
    assert "nano" in hint


@pytest.mark.parametrize("part", ["transformer", "vae"])
def test_truncated_checkpoint_is_refused(
    part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, folder = tmp_path / "model", tmp_path / "out"
    shutil.copytree(shipped_models()["nano"], model)
    folder.mkdir()
    (weights,) = (model / part).glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert sample("-o", folder / "a.mp4", "--model", model) == 1
    error, hint = refused(capsys, folder)
    assert weights.name in error
    assert hint
