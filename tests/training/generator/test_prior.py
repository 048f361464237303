"""Prior clips: made once by the starting model, kept, mixed in by their share; misuse refused."""

import json
import shutil

import pytest
import torch
from tiny_runs import recipe_of, silent, train

from ursa_cli.main import main
from ursa_core.batches.part_files import sole
from ursa_core.bundle.bundle import load_bundle
from ursa_core.errors import CheckpointError, DataError, RecipeError, UsageError
from ursa_core.sampling.generate import Request, generate
from ursa_core.tokens.shards import read_shards
from ursa_core.training.prompts import prompts_of
from ursa_core.training.run import plan_training, train_recipe
from ursa_core.worlds import shapes

PROMPTS = ["a red circle grows on a navy background", "a blue star spins on a gray background"]


@pytest.fixture(scope="module")
def base(generator_recipe, tmp_path_factory):
    """A model that makes clips of two steps."""
    folder = tmp_path_factory.mktemp("base")
    given = ("train.steps=2", "train.sample_every=9", "sampling.steps=2")
    train(generator_recipe, folder, "model", *given)
    return folder / "model"


def with_prior(text, base, folder, prompts=PROMPTS, **more):
    prior = {"shards": str(folder / "kept"), "share": 0.5, "prompts": prompts, "num": 10, **more}
    return f"{text}init: {base}\nprior: {json.dumps(prior)}\n"


def stop_at(start):
    def note(text):
        if text.startswith(start):
            raise KeyboardInterrupt

    return note


def planned(text, folder, name, *overrides):
    return plan_training(recipe_of(text, folder, *overrides), folder / name)


def test_the_model_makes_clips_once_and_they_are_mixed_in(generator_recipe, base, tmp_path):
    text = with_prior(generator_recipe, base, tmp_path, guidance=1.5)
    trained = train(text, tmp_path, "run", "train.steps=1")
    table = read_shards(tmp_path / "kept")
    assert [table.captions(k) for k in range(10)] == [[PROMPTS[k % 2]] for k in range(10)]
    bundle = load_bundle(base)
    options = recipe_of(text, tmp_path).sampling
    own = bundle.settings.defaults
    assert own.guidance == options.guidance == 2.0
    request = Request(PROMPTS[1], 0, 3, own.__class__(**{**vars(own), "guidance": 1.5}))
    assert torch.equal(table.codes([3])[0], generate(bundle, request).flatten())
    (_, clips, share), prior = trained.learner.batches.sets
    assert (clips, share, prior) == (24, 0.5, (str(tmp_path / "kept"), 10, 0.5))
    card = (tmp_path / "run" / "README.md").read_text()
    assert f"- of {tmp_path / 'kept'}, 50% of what a run takes: 10\n" in card
    before = [(file, file.stat().st_mtime_ns) for file in (tmp_path / "kept").glob("*.parquet")]
    train(text, tmp_path, "other", "train.steps=1", "seed=5")
    assert [(f, f.stat().st_mtime_ns) for f in (tmp_path / "kept").glob("*.parquet")] == before
    # A stop after the first clips keeps them, and the rest is made by the next run.
    with pytest.raises(KeyboardInterrupt):
        train_recipe(
            recipe_of(text, tmp_path, "prior.num=27"), tmp_path / "more", False, silent, silent,
            on_note=stop_at("8 of 17 clips made"),
        )  # fmt: skip
    assert len(read_shards(tmp_path / "kept")) == 18
    train(text, tmp_path, "more", "train.steps=1", "prior.num=27")
    longer = read_shards(tmp_path / "kept")
    assert len(longer) == len({longer.source(k) for k in range(27)}) == 27
    assert torch.equal(longer.codes(range(10)), table.codes(range(10)))


def test_a_dry_run_makes_no_clips(generator_recipe, base, tmp_path, capsys):
    recipe_of(with_prior(generator_recipe, base, tmp_path), tmp_path)
    run = ["train", str(tmp_path / "recipe.yaml"), "-o", str(tmp_path / "run")]
    assert main([*run, "--dry-run"]) == 0
    assert "10 clips are made first" in capsys.readouterr().out
    assert not (tmp_path / "kept").exists()
    assert main([*run, "train.steps=1"]) == 0
    assert f"makes 10 clips for {tmp_path / 'kept'}" in capsys.readouterr().err
    assert main([*run, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "are made first" not in out
    assert f"10 clips of {tmp_path / 'kept'}: 50% of the clips of a run" in out


def test_clips_of_other_prompts_or_another_model_are_refused(generator_recipe, base, tmp_path):
    train(with_prior(generator_recipe, base, tmp_path), tmp_path, "run", "train.steps=1")
    train(generator_recipe, tmp_path, "other", "train.steps=1", "seed=3")
    other = tmp_path / "other"
    for name, changed in (
        ("prompts", with_prior(generator_recipe, base, tmp_path, PROMPTS[:1])),
        ("steps", with_prior(generator_recipe, base, tmp_path, steps=3)),
        ("starting model", with_prior(generator_recipe, other, tmp_path)),
    ):
        for use in (train, planned):
            with pytest.raises(DataError, match=f"was made with another {name}:") as caught:
                use(changed, tmp_path, name, "train.steps=1")
            assert caught.value.hint.startswith("give prior.shards another folder, or delete")


def test_no_clip_is_made_for_a_run_that_cannot_go_on(generator_recipe, base, tmp_path):
    text = with_prior(generator_recipe, base, tmp_path)
    shards = recipe_of(text, tmp_path).data.shards[0]
    train(text, tmp_path, "run", "train.steps=1")
    shutil.rmtree(tmp_path / "kept")
    for error, match, changed in (
        (DataError, "no token shard in none", text.replace(shards, "none")),
        (CheckpointError, "seed is 7, was 0", f"{text}seed: 7\n".replace("seed: 0\n", "", 1)),
        (CheckpointError, "prior.num is 20, was 10", text.replace('"num": 10', '"num": 20')),
    ):
        for use in (train, planned):
            with pytest.raises(error, match=match):
                use(changed, tmp_path, "run", "train.steps=2")
    assert not (tmp_path / "kept").exists()
    more = text.replace('"num": 10', '"num": 20').replace('"share": 0.5', '"share": 0.25')
    trained = train(more, tmp_path, "run", "train.steps=2", allow_change=True)
    assert [each[1:] for each in trained.learner.batches.sets] == [(24, 0.75), (20, 0.25)]


def test_one_run_at_a_time_makes_a_prior(generator_recipe, base, tmp_path):
    text = with_prior(generator_recipe, base, tmp_path)
    with (
        sole(tmp_path / "kept"),
        pytest.raises(UsageError, match="another run is at work on") as caught,
    ):
        train(text, tmp_path, "run", "train.steps=1")
    assert "prior.shards" in caught.value.hint
    with pytest.raises(UsageError, match=r"prior\.shards are inside"):
        train(with_prior(generator_recipe, base, tmp_path / "run"), tmp_path, "run")
    train(text, tmp_path, "run", "train.steps=1")
    assert len(read_shards(tmp_path / "kept")) == 10
    with sole(tmp_path / "kept"):  # which is whole, so that runs share it
        train(text, tmp_path, "other", "train.steps=1")


def test_a_corrector_is_refused_before_a_clip_is_made(generator_recipe, tmp_path):
    made = ("train.steps=1", "train.sample_every=9", "path={kind: masked}")
    train(generator_recipe, tmp_path, "masked", *made)
    text = with_prior(generator_recipe, tmp_path / "masked", tmp_path, correct=0.5)
    for use in (train, planned):
        with pytest.raises(RecipeError, match=r"prior\.correct: maskgit reveals each") as caught:
            use(text, tmp_path, "run", "path={kind: masked}")
        assert caught.value.hint == "give prior.correct=0"


def test_another_tokenizer_is_refused(generator_recipe, base, tmp_path):
    other = shutil.copytree(base, tmp_path / "other")
    told = json.loads((other / "vae" / "config.json").read_text())
    (other / "vae" / "config.json").write_text(json.dumps(told, indent=1))
    text = with_prior(generator_recipe, base, tmp_path)
    with pytest.raises(RecipeError, match="in the codes of its own tokenizer") as caught:
        train(text, tmp_path, "run", f"tokenizer={other}")
    assert f"give tokenizer: {base}" in caught.value.hint
    assert not (tmp_path / "kept").exists()


def test_prompts_come_from_the_recipe_a_list_or_a_world(tmp_path):
    def found(*prompts):
        return prompts_of(prompts, ())

    assert found("a dog", "a cat") == ["a dog", "a cat"]
    assert found("a dog") == ["a dog"]
    (tmp_path / "list.txt").write_text("a dog\n\na cat\n")
    assert found(str(tmp_path / "list.txt")) == ["a dog", "a cat"]
    world = found("shapes:train")
    assert len(world) == len(set(world)) == 4 * len(shapes.combinations("train"))
    assert world != sorted(world)
    held = {
        shapes.caption(*each, background)
        for each in shapes.combinations("heldout")
        for background in shapes.BACKGROUNDS
    }
    assert not held & set(world)
    for wrong in ("shapes:trian", "form:train"):
        with pytest.raises(DataError, match=f"no prompts {wrong}"):
            found(wrong)
    with pytest.raises(DataError, match="none"):
        found(str(tmp_path / "none.txt"))
    (tmp_path / "bad.jsonl").write_text('{"prompt": 3}\n')
    with pytest.raises(DataError, match="line 1") as caught:
        found(str(tmp_path / "bad.jsonl"))
    assert "--" not in caught.value.hint  # no option of another command
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(DataError, match="holds no items"):
        found(str(tmp_path / "empty.txt"))
