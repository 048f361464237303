"""`ursa train --new`: a recipe that fits shards and a model, and that trains as it is."""

import json
import shutil
from pathlib import Path

import pytest

from ursa_cli.main import main
from ursa_core.recipe.loading import load_recipe
from ursa_core.tokens.shards import read_shards
from ursa_core.tokens.writer import ShardWriter, TokenRow
from ursa_core.training import new_recipe


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Eight clips of nano's tokenizer whose captions have a word that it doesn't know."""
    folder = tmp_path_factory.mktemp("data")
    given = ["shapes:train", "--num", "8", "--check", "0", "--model", "nano", "--quiet"]
    assert main(["tokenize", *given, "-o", str(folder / "old")]) == 0
    table = read_shards(folder / "old")
    with ShardWriter(folder / "mine", table.identity) as writer:
        for k in range(len(table)):
            words = (table.captions(k)[0].replace("background", "wall"),)
            codes = table.codes([k]).view(*vars(table.grid(k)).values())
            writer.add(TokenRow(codes, words, 8.0, 0.0, str(k)))
    return folder


def test_a_recipe_is_written_that_fits_and_trains(shards, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(shards)
    file = tmp_path / "mine.yaml"
    given = ["train", "--new", str(file), "--data", "mine", "--init", "nano"]
    assert main([*given, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["recipe"], plan["prior_clips"], plan["measured"]) == (str(file), 480, True)
    assert [(name, share) for name, _, share in plan["data"]["sets"]] == [
        ("mine", 0.6), ("mine_prior_nano", 0.4),
    ]  # fmt: skip
    text = file.read_text()
    assert 28 <= len(text.splitlines()) <= 33
    assert sum("#" in line for line in text.splitlines()) >= 22
    schema = text.split("\n")[0].removeprefix("# yaml-language-server: $schema=")
    assert "GeneratorRecipe" in Path(schema).read_text()
    assert "minutes on" in text
    assert " GB." in text
    recipe = load_recipe(file, [])
    assert (recipe.init, recipe.tokenizer, recipe.vocabulary) == ("nano", "nano", "extend")
    assert (recipe.path.alpha, recipe.path.c, recipe.model.preset) == (1.0, 4.0, "nano")
    assert recipe.mixture == [(("mine",), 0.6), (("mine_prior_nano",), 0.4)]
    assert recipe.samples.prompts[0].endswith("wall")
    # nano's 8 steps are for what rewards have taught it.
    sampled = recipe.sampling
    assert (sampled.steps, sampled.correct, sampled.guidance) == (16, 0.5, 3.0)
    short = ["prior.num=2", "prior.steps=1", "train.steps=1", "train.batch_size=2"]
    monkeypatch.chdir(tmp_path)
    short += [f"data.shards={shards / 'mine'}", "prior.shards=prior", "samples.prompts=[]"]
    assert main(["train", str(file), *short, "optimizer.warmup_steps=0", "-o", "run"]) == 0
    capsys.readouterr()
    assert main(["sample", "a red ring on a wall", "--model", "run", "--steps", "1", "--frames",
                 "1", "-o", "a.png"]) == 0  # fmt: skip
    assert "doesn't know" not in capsys.readouterr().err
    # Another one that starts from this run, though one of its name has been trained already.
    monkeypatch.chdir(shards)
    shutil.copytree(tmp_path / "run", shards / "runs" / "again")
    given = ["--data", "mine", "--init", str(tmp_path / "run"), "--quiet"]
    assert main(["train", "--new", str(tmp_path / "again.yaml"), *given]) == 0
    again = load_recipe(tmp_path / "again.yaml", [])
    assert again.prior is not None
    assert again.prior.shards == "mine_prior_run"


def test_prior_clips_that_are_larger_than_the_data_count(shards, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    table = read_shards(shards / "mine")
    with ShardWriter(Path("stills"), table.identity) as writer:
        codes = table.codes([0]).view(*vars(table.grid(0)).values())[:1]
        writer.add(TokenRow(codes, ("a red ring",), 8.0, 0.0, "0"))
    assert main(["train", "--new", "a.yaml", "--data", "stills", "--init", "nano", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["measured"] is False
    grids = {tuple(each["grid"].values()): each["share"] for each in plan["data"]["grids"]}
    assert grids == {(1, 8, 8): 0.6, (5, 8, 8): 0.4}
    assert plan["tokens_per_step"] == round(16 * (17 + 0.6 * 64 + 0.4 * 320))


def test_clips_with_crops_are_shown_twice_as_often(shards, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(new_recipe, "LEAST", 1)
    table = read_shards(shards / "mine")
    with ShardWriter(Path("cropped"), table.identity) as writer:
        for k in range(len(table)):
            codes = table.codes([k]).view(*vars(table.grid(k)).values())
            for name in (f"{k}~0", f"{k}~1", f"{k}~2"):
                writer.add(TokenRow(codes, tuple(table.captions(k)), 8.0, 0.0, name))
    steps = []
    for name, data in (("a", shards / "mine"), ("b", Path("cropped"))):
        assert main(["train", "--new", f"{name}.yaml", "--data", str(data), "--init", "nano"]) == 0
        steps.append(load_recipe(Path(f"{name}.yaml"), []).train.steps)
    assert steps[1] == pytest.approx(2 * steps[0], abs=1)


def test_a_new_recipe_is_no_run(shards, tmp_path, capsys):
    given = ["train", "--new", str(tmp_path / "a.yaml"), "--data", str(shards / "mine")]
    for more in (["-o", "run"], ["--dry-run"]):
        assert main([*given, "--init", "nano", *more]) == 2
        assert "trains nothing" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_old_data_take_the_place_of_prior_clips(shards, tmp_path, monkeypatch):
    monkeypatch.chdir(shards)
    file = tmp_path / "both.yaml"
    given = ["train", "--new", str(file), "--data", "mine", "--data", "old", "--init", "nano"]
    assert main([*given, "--quiet"]) == 0
    recipe = load_recipe(file, [])
    assert recipe.prior is None
    assert recipe.mixture == [(("mine",), 0.6), (("old",), 0.4)]
    assert "# prior: {shards: mine_prior" in file.read_text()


def test_a_model_whose_prompts_are_not_known_gets_no_prior(shards, tiny_model, tmp_path):
    file, data = tmp_path / "tiny.yaml", tmp_path / "data"
    from ursa_core.bundle.bundle import load_tokenizer
    from ursa_core.encoding.encode import token_identity

    tokenizer, _, digest = load_tokenizer(tiny_model)
    table = read_shards(shards / "mine")
    with ShardWriter(data, token_identity(tokenizer, digest)) as writer:
        writer.add(TokenRow(table.codes([0]).view(5, 8, 8)[:3, :2, :2] % 9, ("a",), 8.0, 0.0, "a"))
    given = ["train", "--new", str(file), "--data", str(data), "--init", str(tiny_model)]
    assert main([*given, "--quiet"]) == 0
    recipe = load_recipe(file, [])
    assert recipe.prior is None
    assert (recipe.sampling.steps, recipe.sampling.correct) == (2, 0.0)  # as it has them
    assert (recipe.model.preset, recipe.model.hidden_size, recipe.model.head_dim) == (
        "nano",
        32,
        16,
    )


@pytest.mark.parametrize(
    ("words", "told", "code"),
    [
        ("--new mine.yaml --data mine", "--new takes --data and --init", 2),
        ("--new mine.yaml --init nano", "--new takes --data and --init", 2),
        ("recipe.yaml --new mine.yaml --data mine --init nano", "and no RECIPE recipe.yaml", 2),
        ("recipe.yaml --data mine", "--data and --init are for a new recipe", 2),
        ("", "no recipe is given", 2),
        ("--new mine.txt --data mine --init nano", "mine.txt is no name of a recipe", 2),
        ("--new there.yaml --data mine --init nano", "there.yaml exists already", 2),
        ("--new mine.yaml --data none --init nano", "there is no token shard in none", 1),
        ("--new mine.yaml --data mine --init emoji", "were made by another tokenizer", 1),
        ("--new mine.yaml --data mine --init nothing", "there is no model 'nothing'", 1),
        ("--new no/mine.yaml --data mine --init nano", "the folder no doesn't exist", 1),
    ],
)
def test_what_cannot_be_written_is_refused(
    shards, tmp_path, monkeypatch, capsys, words, told, code
):
    monkeypatch.chdir(tmp_path)
    Path("mine").symlink_to(shards / "mine")
    Path("there.yaml").write_text("kept")
    assert main(["train", *words.split()]) == code
    err = capsys.readouterr().err
    assert told in err
    assert [line.split(":")[0] for line in err.splitlines()] == ["error", "hint"]
    assert Path("there.yaml").read_text() == "kept"
    assert not Path("mine.yaml").exists()
