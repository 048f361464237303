"""Step times by a model's uncertainty: finding, storing and sampling by them."""

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import ursa_core as ursa
from ursa_cli.main import main
from ursa_core.bundle.bundle import load_bundle
from ursa_core.calibration.step_times import TIMES, measure_entropy, propose_times, stale
from ursa_core.errors import UrsaWarning
from ursa_core.media import read_media
from ursa_core.path.mixture import MaskedPath
from ursa_core.sampling.generate import Request, Sampler
from ursa_core.seeding import stream
from ursa_core.tokens.shards import read_shards


@pytest.fixture(scope="module")
def model(tiny_model, tmp_path_factory) -> Path:
    """A model, with clips next to it."""
    folder = tmp_path_factory.mktemp("step_times") / "model"
    shutil.copytree(tiny_model, folder)
    tokenize = ["tokenize", "shapes:train", "--num", "6", "--model", str(folder), "--quiet"]
    assert main([*tokenize, "--check", "0", "-o", str(folder.parent / "shards")]) == 0
    return folder


def command(model: Path, out: Path, *options: object) -> list[str]:
    given = ["--model", model, "--tokens", model.parent / "shards", "--steps", 4, "-o", out]
    return ["calibrate-path", *map(str, [*given, *options])]


def test_a_line_is_best_walked_in_even_steps() -> None:
    found = propose_times(np.tile(1 - TIMES, (8, 1)), 8)
    assert found.times == pytest.approx(np.linspace(0, 1, 9))
    assert found.stale == pytest.approx(found.stale_even)
    assert found.stale == pytest.approx(1 / 16)  # eight triangles of 1/8 by 1/8


def test_steps_are_shorter_where_the_entropy_falls_faster() -> None:
    """In the limit of many steps their density is the root of its slope: here 1 − t."""
    entropy = np.tile((1 - TIMES) ** 3, (8, 1))
    found = propose_times(entropy, 20)
    limit = 1 - np.sqrt(1 - np.linspace(0, 1, 21))
    assert found.times[:16] == pytest.approx(limit[:16], abs=0.035)
    assert found.stale < 0.9 * found.stale_even
    assert found.saved == pytest.approx((found.stale_even - found.stale,) * 2)


def test_no_other_times_are_less_stale() -> None:
    entropy = np.sort(np.random.default_rng(0).uniform(0, 3, (4, len(TIMES))))[:, ::-1].copy()
    found = propose_times(entropy, 3)
    chosen_by = entropy[::2]
    every = itertools.combinations(np.linspace(0, 1, 401)[4:-4:4], 2)
    best = min(stale(np.array([0, *two, 1]), chosen_by).mean() for two in every)
    assert stale(np.array(found.times), chosen_by).mean() <= best + 1e-12


@pytest.mark.parametrize("kind", ["metric", "masked"])
def test_the_entropy_is_that_of_the_posterior(model, monkeypatch, kind) -> None:
    bundle = load_bundle(model)
    if kind == "masked":
        path = MaskedPath(bundle.path.num_codes - 1)  # the last code stands for the mask
        bundle = type(bundle)(**{**vars(bundle), "path": path})
    found = measure_entropy(bundle, model.parent / "shards", num_clips=4)
    assert found.shape == (4, len(TIMES))
    assert (found[:, -1] == 0).all()
    table, place = read_shards(model.parent / "shards"), 20
    codes = table.codes([0])
    x_t = bundle.path.corrupt(codes, float(TIMES[place]), stream(0, "step times", 0))
    ids = bundle.text_tokenizer.encode(table.captions(0))
    with torch.inference_mode():
        logits = bundle.transformer.head(bundle.transformer(ids, x_t, table.grids[0]))
    posterior = torch.distributions.Categorical(logits=logits[..., : bundle.path.num_codes])
    each = posterior.entropy()[0]
    if kind == "masked":
        is_open = x_t[0] == bundle.path.mask_id
        assert 0 < int(is_open.sum()) < len(each)
        each = each * is_open
    assert found[0, place] == pytest.approx(float(each.mean()), rel=1e-4)


def test_a_model_stores_its_times_and_is_sampled_by_them(model, tmp_path, capsys) -> None:
    own = shutil.copytree(model, tmp_path / "own")
    shutil.copytree(model.parent / "shards", tmp_path / "shards")
    assert main(command(own, tmp_path / "r", "--write-to", own / "ursa.json", "--json")) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads((tmp_path / "r" / "report.json").read_text())
    assert read_media(tmp_path / "r" / "times.png").frames.shape[1] > 200
    assert (report["num_clips"], len(report["entropy"])) == (6, len(TIMES))
    assert (report["times"][0], report["times"][-1], len(report["times"])) == (0, 1, 5)

    before, loaded = ursa.load(str(model)), ursa.load(str(own))
    assert loaded.defaults == before.defaults  # no option of a clip
    options = {"seed": 1, "size": "16x16", "steps": 4}
    prompt = "a red circle moves right on a navy background"

    def times(**changed):
        request = Request(prompt, options=loaded.placed.defaults.__class__(**changed))
        return Sampler(loaded.bundle, [request]).times

    shape = {"frames": 9, "height": 16, "width": 16}
    assert times(steps=4, shift=1.0, **shape).tolist() == pytest.approx(report["times"])
    between = np.interp([0, 0.5, 1], np.linspace(0, 1, 5), report["times"])
    assert times(steps=2, shift=1.0, **shape).tolist() == pytest.approx(between.tolist())
    assert times(steps=4, shift=3.0, **shape).tolist() == pytest.approx([0, 0.1, 0.25, 0.5, 1])
    loaded.sample(prompt, **options)
    with pytest.warns(UrsaWarning, match="step times are of 4 steps, so they are interpolated"):
        loaded.sample(prompt, **{**options, "steps": 2})
    assert main(["models", "show", str(own)]) == 0
    assert "times of 4 steps" in capsys.readouterr().out


def test_the_strength_of_an_edit_counts_in_stored_times(model, tmp_path) -> None:
    own = shutil.copytree(model, tmp_path / "own")
    settings = json.loads((own / "ursa.json").read_text())
    (own / "ursa.json").write_text(json.dumps({**settings, "times": [0, 0.1, 1]}))
    clip = ursa.load(str(model)).sample("a red circle", seed=0)
    for strength, steps in ((0.95, 2), (0.8, 1)):  # from t = 0.05 and from 0.2
        seen: list[tuple[int, int]] = []
        ursa.load(str(own)).sample(
            "a red circle", video=clip, strength=strength, seed=0, steps=2,
            on_step=lambda *step, seen=seen: seen.append(step),
        )  # fmt: skip
        assert seen == [(step, steps) for step in range(1, steps + 1)]


@pytest.mark.parametrize(
    ("options", "code", "line"),
    [
        (["--steps", "0"], 2, "--steps can't be 0"),
        (["--steps", "101"], 2, "--steps can't be 101"),
        (["--tokenizer", "nano"], 2, "one thing is calibrated at a time"),
        (["--alpha", "1:2:3"], 2, "are for --tokenizer"),
        (["--linear"], 2, "are for --tokenizer"),
        (["--write-to", "recipe.yaml"], 2, "can't put step times into recipe.yaml"),
        (["--tokens", "nowhere"], 1, "no token shard"),
        (["--model", "nano"], 1, "of another tokenizer than the model's"),
    ],
)
def test_what_is_refused(model, tmp_path, capsys, options, code, line) -> None:
    assert main(command(model, tmp_path / "out", *options)) == code
    error, hint = capsys.readouterr().err.splitlines()[-2:]
    assert line in error
    assert hint.startswith("hint: ")
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_way_and_a_damaged_model_are_refused_first(
    model, tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.setattr("ursa_core.calibration.step_times.measure_entropy", None)
    (tmp_path / "file").touch()
    assert main(command(model, tmp_path / "file")) == 2
    assert "is a file, not a folder" in capsys.readouterr().err
    damaged = shutil.copytree(model, tmp_path / "damaged") / "ursa.json"
    damaged.write_text("{bad")
    assert main(command(model, tmp_path / "out", "--write-to", damaged)) == 1
    assert "ursa.json can't be read" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_the_calibration_of_a_model_needs(model, tmp_path, capsys) -> None:
    for given in ([], ["--steps", "4"], ["--tokens", "shards"]):
        assert main(["calibrate-path", "--model", str(model), *given]) == 2
        assert "give --steps N and --tokens SHARDS" in capsys.readouterr().err
    assert main(["calibrate-path", "--tokenizer", "cosmos", "--steps", "4"]) == 2
    assert "--steps is for --model" in capsys.readouterr().err
    few = tmp_path / "few"
    tokenize = ["tokenize", "shapes:train", "--num", "3", "--model", str(model), "--quiet"]
    assert main([*tokenize, "--check", "0", "-o", str(few)]) == 0
    assert main(command(model, tmp_path / "out", "--tokens", few)) == 1
    assert "has 3 clips" in capsys.readouterr().err
