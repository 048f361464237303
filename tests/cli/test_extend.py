"""`ursa extend` on a tiny random model: own frames, rounds that are kept, joins and refusals."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_films import write_film

from ursa_cli.main import main
from ursa_core.bundle.bundle import load_bundle, tokenizer_identity
from ursa_core.bundle.settings import load_settings, save_settings
from ursa_core.clips import extend as extending
from ursa_core.clips.cond_frames import following
from ursa_core.clips.extend import Extension
from ursa_core.clips.extend import extend as extend_clip
from ursa_core.clips.round_store import RoundStore
from ursa_core.media import read_media, write_media
from ursa_core.sampling.generate import Request, decode
from ursa_core.seeding import stream
from ursa_core.worlds.shapes import training_clip

PROMPTS = ("a red circle moves right", "a red circle moves left")


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    return training_clip(0, 0, "heldout", 11, 16, 16)[0]


@pytest.fixture
def film(tmp_path: Path, clip: np.ndarray) -> Path:
    write_media(tmp_path / "clip.mkv", clip, 8.0, {"prompt": PROMPTS[0]})
    return tmp_path / "clip.mkv"


@pytest.fixture
def extend(tmp_path, film, tiny_model):
    def run(*arguments: object, out: str = "long.mkv", seed: int | None = 3) -> int:
        fixed = ["--device", "cpu", "--dtype", "float32", "--model", str(tiny_model)]
        seeded = [] if seed is None else ["--seed", str(seed)]
        start = ["extend", str(film), "-o", str(tmp_path / out)]
        return main([*start, *fixed, *seeded, *map(str, arguments)])

    return run


CHAINS = pytest.mark.parametrize("chain", ["tokens", "pixels", "tokens --schedule diagonal"])


@CHAINS
def test_own_frames_come_out_unchanged_and_new_ones_follow(chain, extend, tmp_path, clip, capsys):
    assert extend("--frames", 24, "--chain", *chain.split(), "--json") == 0
    made = read_media(tmp_path / "long.mkv")
    assert made.frames.shape == (24, 16, 16, 3)
    assert made.fps == 8.0
    np.testing.assert_array_equal(made.frames[:11], clip)
    told = json.loads(capsys.readouterr().out)
    assert [each["index"] for each in told["rounds"]] == [0, 1, 2, 3]  # 4 new frames each
    assert all(each["sharpness"] > 0 <= each["colour_drift"] for each in told["rounds"])
    (kept,) = told["kept"]
    assert (kept["frame"], kept["frames"], kept["psnr"]) == (0, 11, 100.0)
    recorded = made.metadata
    assert recorded["prompts"] == [PROMPTS[0]]  # of the clip's own metadata
    assert recorded["given"] == told["given"]
    assert (recorded["overlap"], recorded["cond"], recorded["before"]) == (5, "lock", False)
    assert recorded["chain"] == chain.split()[0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip.mkv", "long.mkv"]


def test_what_comes_before_ends_with_the_clip(extend, tmp_path, clip):
    assert extend("--before", "--frames", 17) == 0
    made = read_media(tmp_path / "long.mkv").frames
    np.testing.assert_array_equal(made[6:], clip)
    assert len(np.unique(made[:6], axis=0)) > 1


def test_seconds_count_the_whole_result(extend, tmp_path):
    assert extend("--seconds", 1.9) == 0
    assert len(read_media(tmp_path / "long.mkv").frames) == 15


def test_a_seed_decides_and_prompts_take_turns(extend, tmp_path, clip):
    for name, prompts in {"a": PROMPTS, "b": PROMPTS, "c": PROMPTS[:1]}.items():
        assert extend(*prompts, "--frames", 19, out=f"{name}.mkv") == 0
    a, b, c = (read_media(tmp_path / f"{name}.mkv") for name in "abc")
    np.testing.assert_array_equal(a.frames, b.frames)
    np.testing.assert_array_equal(a.frames[:15], c.frames[:15])  # the first round's prompt
    assert (a.frames[15:] != c.frames[15:]).any()
    assert a.metadata["prompts"] == list(PROMPTS)


@CHAINS
def test_a_stopped_run_goes_on_where_it_was(chain, extend, tmp_path, monkeypatch, capsys):
    chained = ("--frames", 23, "--chain", *chain.split())
    assert extend(*chained, out="whole.mkv") == 0
    sampler = "roll_on" if "diagonal" in chain else "generate"
    real, calls = getattr(extending, sampler), []

    def stop_at_third(*arguments, **named):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments, **named)

    monkeypatch.setattr(extending, sampler, stop_at_third)
    assert extend(*chained) == 130
    rounds = tmp_path / "long.mkv.rounds"
    kept = ["plan.json", "round-0000.safetensors", "round-0001.safetensors"]
    assert sorted(p.name for p in rounds.iterdir()) == kept
    assert not (tmp_path / "long.mkv").exists()
    assert f"2 of 3 rounds are in {rounds}" in capsys.readouterr().err

    assert extend(*chained, "--steps", 3) == 2
    assert "another steps" in capsys.readouterr().err
    calls.clear()
    assert extend(*chained, "--json", seed=None) == 0  # the seed is that of the rounds
    assert len(calls) == 1
    told = json.loads(capsys.readouterr().out)
    assert [each["resumed"] for each in told["rounds"]] == [True, True, False]
    assert not rounds.exists()
    names = ("whole.mkv", "long.mkv")
    np.testing.assert_array_equal(*(read_media(tmp_path / name).frames for name in names))


def test_a_killed_run_goes_on_to_the_same_video(extend, run_in, tmp_path, film, tiny_model, capsys):
    fixed = ["--device", "cpu", "--dtype", "float32", "--model", str(tiny_model), "--seed", "3"]
    command = ["extend", str(film), "--frames", "31", *fixed, "-o"]
    num = run_in([*command, "whole.mkv"], tmp_path)[0]["changes"]
    run_in([*command, "killed.mkv"], tmp_path, num // 2)
    assert (tmp_path / "killed.mkv.rounds" / "round-0001.safetensors").exists()
    assert not (tmp_path / "killed.mkv").exists()
    assert extend("--frames", 31, "--json", out="killed.mkv") == 0
    told = json.loads(capsys.readouterr().out)
    assert 2 <= sum(each["resumed"] for each in told["rounds"]) < 5
    frames = [read_media(tmp_path / name).frames for name in ("killed.mkv", "whole.mkv")]
    np.testing.assert_array_equal(*frames)
    assert not list(tmp_path.glob("*.rounds"))


def test_fresh_makes_kept_rounds_anew_and_a_strange_folder_stays(extend, tmp_path, capsys):
    rounds = tmp_path / "long.mkv.rounds"
    rounds.mkdir()
    (rounds / "mine.txt").write_text("mine")
    assert extend("--frames", 15, "--fresh") == 2
    assert "in the way" in capsys.readouterr().err
    assert (rounds / "mine.txt").read_text() == "mine"
    (rounds / "mine.txt").rename(rounds / "plan.json")
    assert extend("--frames", 15) == 1
    assert "--fresh" in capsys.readouterr().err
    assert extend("--frames", 15, "--fresh") == 0
    assert not rounds.exists()


def test_a_token_file_is_extended_as_its_video_is(extend, tmp_path, film, tiny_model, clip):
    write_media(tmp_path / "short.mkv", clip[:9], 8.0)
    tokens, model = str(tmp_path / "clip.safetensors"), str(tiny_model)
    encode = ["tokenize", str(tmp_path / "short.mkv"), "-o", tokens, "--model", model]
    assert main([*encode, "--check", "0", "--device", "cpu"]) == 0
    decode = ["tokenize", "--decode", tokens, "-o", str(film), "--model", model, "--force"]
    assert main([*decode, "--device", "cpu"]) == 0
    tokens = str(Path(tokens).rename(tmp_path / "clip.SafeTensors"))
    options = ["--frames", "13", "--seed", "1", "--device", "cpu", "--model", model]
    for given, name in ((tokens, "a.mkv"), (str(film), "b.mkv")):
        assert main(["extend", given, "-o", str(tmp_path / name), *options]) == 0
    frames = [read_media(tmp_path / name).frames for name in ("a.mkv", "b.mkv")]
    np.testing.assert_array_equal(*frames)


def test_a_chain_of_tokens_is_decoded_in_one_piece(tmp_path, tiny_model):
    bundle = load_bundle(tiny_model)
    codes = torch.randint(0, bundle.path.num_codes, (3, 2, 2), generator=stream(0, "codes"))
    clip = decode(bundle, codes)
    plan = Extension(9, 21, 9, 5, PROMPTS, False, "tokens", "together", 4, "lock", 0.0)
    store = RoundStore(str(tmp_path / "out"))
    store.open({"tokenizer": tokenizer_identity(bundle.folder), "fps": 8.0}, fresh=False)
    rounds, frames = extend_clip(bundle, clip, plan, Request(""), store, codes=codes)
    assert [each["prompt"] for each in rounds] == [PROMPTS[0], PROMPTS[0], PROMPTS[1]]
    chain = codes
    for index in range(3):
        window = store.load(index)
        assert torch.equal(window[:2], chain[-2:])  # locked
        chain = torch.cat([chain, window[2:]])
    whole = decode(bundle, chain)
    np.testing.assert_array_equal(frames, np.concatenate([clip, following(clip, whole, 9)]))


def test_the_model_decides_how_rounds_chain(extend, tmp_path, tiny_model, capsys):
    assert extend("--frames", 15, "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["chain"] == "pixels"
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    save_settings(model, replace(load_settings(model), chain="tokens"))
    for more, chain in (
        ([], "tokens"),
        (["--before"], "pixels"),
        (["--chain", "pixels"], "pixels"),
    ):
        options = ["--frames", 15, "--dry-run", "--json", "--model", model, *more]
        assert extend(*options) == 0
        assert json.loads(capsys.readouterr().out)["chain"] == chain


@pytest.mark.parametrize(
    ("arguments", "code", "named", "hint"),
    [
        ([], 2, "length", "--seconds or --frames"),
        (["--frames", 15, "--seconds", 3], 2, "length", "--seconds or --frames"),
        (["--frames", 11], 2, "has 11 frames, so 11", "more frames"),
        (["--seconds", 0.1], 2, "has 11 frames, so 1 ", "more frames"),
        (["--seconds", "nan"], 2, "--seconds can't be nan", "above 0"),
        (["--frames", 15, "--overlap", 4], 2, "overlap of 4", "1, 5"),
        (["--frames", 15, "--overlap", 0], 2, "overlap of 0", "1, 5"),
        (["--frames", 15, "--overlap", 9], 2, "overlap of 9", "1, 5"),
        (["--frames", 15, "--overlap", 1, "--before"], 2, "overlap of 1", "5 or more"),
        ([*PROMPTS, "--frames", 15], 2, "2 prompts can't share 1 round", "longer"),
        (["--frames", 15, "--size", "24x16"], 2, "is 16x16 pixels, the clip 24x16", "--fit"),
        (["--frames", 15, "--before", "--chain", "tokens"], 2, "in tokens", "--chain pixels"),
        (["--frames", 15, "--schedule", "diagonal"], 2, "in pixels", "--chain tokens"),
        (["--frames", 15, "--cond", "none"], 2, "--cond can't be none", "soft or lock"),
    ],
)
def test_what_cannot_be_extended_is_refused(arguments, code, named, hint, extend, tmp_path, capsys):
    assert extend(*arguments) == code
    error, told = capsys.readouterr().err.splitlines()
    assert named in error
    assert hint in told
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mkv"]


def test_a_clip_shorter_than_the_overlap_is_refused(extend, tmp_path, film, clip, capsys):
    write_media(film, clip[:4], 8.0)
    assert extend("--frames", 15) == 1
    assert "4 frames, fewer than the overlap of 5" in capsys.readouterr().err
    assert extend("--frames", 15, "--overlap", 1) == 0


def test_a_film_of_variable_rate_keeps_its_length(extend, tmp_path, film, capsys):
    pause = write_film(
        film.with_suffix(".mkv"), [40] * 8 + [80] * 8, [k / 8 + (k >= 8) for k in range(16)]
    )
    assert pause == film
    assert extend("--fit", "--seconds", 4) == 0  # 3 s of its own: 1 s, a pause of 1 s, 1 s
    made = read_media(tmp_path / "long.mkv")
    assert (made.fps, len(made.frames)) == (8, 32)
    assert (made.frames[:24, 8, 8, 0].astype(int) > 60).tolist() == [False] * 16 + [True] * 8
    assert "varies its frame rate and is taken at 8 a second" in capsys.readouterr().err


def test_a_rate_asked_for_is_sampled(extend, tmp_path, clip):
    assert extend("--fps", 4, "--frames", 10) == 0
    made = read_media(tmp_path / "long.mkv")
    assert made.fps == 4
    np.testing.assert_array_equal(made.frames[:6], clip[::2])


def test_a_folder_without_a_rate_is_told_of_and_given_one(extend, tmp_path, film, clip, capsys):
    film.unlink()
    film.mkdir()  # whatever its name
    for k, frame in enumerate(clip):
        Image.fromarray(frame).save(film / f"f{k}.png")
    assert extend("--frames", 16) == 0
    assert f"{film} states no frame rate and is taken as 25 a second" in capsys.readouterr().err
    assert read_media(tmp_path / "long.mkv").fps == 25
    assert extend("--frames", 16, "--source-fps", 8, out="slow.mkv") == 0
    assert "states no frame rate" not in capsys.readouterr().err
    slow = read_media(tmp_path / "slow.mkv")
    assert (slow.fps, slow.metadata["given"]["source_fps"]) == (8, 8)
    np.testing.assert_array_equal(slow.frames[:11], clip)
    assert extend("--frames", 16, "--source-fps", 0, out="none.mkv") == 2
    assert "0.001 to 10000" in capsys.readouterr().err
