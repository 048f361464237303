"""Pairs: prior clips are coupled to the noise that they were sampled from."""

import json

import pytest
import torch
from tiny_runs import recipe_of, train

from ursa_core.bundle.bundle import load_bundle
from ursa_core.errors import RecipeError
from ursa_core.sampling.generate import Request, generate
from ursa_core.seeding import stream

PROMPTS = ["a red circle grows on a navy background", "a blue star spins on a gray background"]
PAIRS = "objective.coupling=pairs"


@pytest.fixture(scope="module")
def base(generator_recipe, tmp_path_factory):
    """A model that makes clips of two steps."""
    folder = tmp_path_factory.mktemp("base")
    given = ("train.steps=2", "train.sample_every=9", "sampling.steps=2")
    train(generator_recipe, folder, "model", *given)
    return folder / "model"


def paired(text, base, folder):
    prior = {"shards": str(folder / "kept"), "share": 0.5, "prompts": PROMPTS, "num": 10}
    return f"{text}init: {base}\nprior: {json.dumps(prior)}\n"


def test_each_prior_clip_meets_its_own_noise(generator_recipe, base, tmp_path):
    text = paired(generator_recipe, base, tmp_path)
    learner = train(text, tmp_path, "run", PAIRS, "train.steps=1", "seed=5").learner
    bundle, own = load_bundle(base), {}
    for k in range(10):
        codes = generate(bundle, Request(PROMPTS[k % 2], 0, k)).flatten()
        noise = bundle.path.initial((1, len(codes)), [stream(0, "sample", k)])[0]
        own[tuple(codes.tolist())] = noise
    met = []
    for index in range(12):
        x_1, _, _, _, x_0 = learner.batch(index)
        for codes, noise in zip(x_1.tolist(), x_0, strict=True):
            at = [k for k in own if k[: len(codes)] == tuple(codes)]
            met += [bool((own[k][: len(codes)] == noise).all()) for k in at]
    assert met
    assert all(met)


def test_clips_of_the_data_meet_any_noise_whatever_their_names(generator_recipe, base, tmp_path):
    """Also those that another run keeps as its prior, whose names are those of prior clips."""
    text = paired(generator_recipe, base, tmp_path)
    learner = train(text, tmp_path, "run", "train.steps=1").learner
    shards = learner.recipe.data.shards[0]
    (tmp_path / "kept").rename(tmp_path / "others")
    other = text.replace(shards, str(tmp_path / "others"))
    batches = train(other, tmp_path, "other", PAIRS, "train.steps=1", "seed=5").learner.batches
    rows = {name: batches._table.folders[tmp_path / name][:2] for name in ("others", "kept")}
    assert all(batches._noise_of(row) is None for row in range(*rows["others"]))
    assert all(batches._noise_of(row) is not None for row in range(*rows["kept"]))


def test_x_t_of_a_pair_is_on_its_chain(generator_recipe, base, tmp_path, monkeypatch):
    text = paired(generator_recipe, base, tmp_path)
    learner = train(text, tmp_path, "run", PAIRS, "train.steps=1").learner
    x_1, ids, times, grid, x_0 = learner.batch(0)
    seen = []
    network = learner.objective.network
    plain = network.forward
    monkeypatch.setattr(network, "forward", lambda *given: seen.append(given[1]) or plain(*given))
    learner.objective(ids, x_1, torch.zeros_like(times), grid, stream(0, "a"), x_0)
    learner.objective(ids, x_1, torch.zeros_like(times), grid, stream(0, "a"))
    assert torch.equal(seen[0], x_0)
    assert not torch.equal(seen[1], x_0)


def test_what_makes_no_pair_is_refused(generator_recipe, base, tmp_path):
    with pytest.raises(RecipeError, match="give prior"):
        recipe_of(generator_recipe, tmp_path, PAIRS)
    text = paired(generator_recipe, base, tmp_path)
    with pytest.raises(RecipeError, match="only noise"):
        recipe_of(text, tmp_path, PAIRS, "path={kind: masked}")
    with pytest.raises(RecipeError, match=r"a corrector of 0\.5 draws codes again"):
        train(text, tmp_path, "other", PAIRS, "prior.correct=0.5", "train.steps=1")
    assert not (tmp_path / "kept").exists()
    with pytest.raises(RecipeError, match=r"path\.c"):
        train(text, tmp_path, "other", PAIRS, "path.c=2", "train.steps=1")
