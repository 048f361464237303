"""Words that a model's vocabulary lacks: added, trained, stored in adapters, merged, refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny_qwen3 import write_qwen3
from tiny_runs import recipe_of, train

from ursa_cli.main import main
from ursa_core.bundle.adapters import ORIGIN, read_adapter
from ursa_core.bundle.bundle import load_bundle
from ursa_core.errors import CheckpointError, RecipeError
from ursa_core.grids import LatentGrid
from ursa_core.tokens.shards import read_shards
from ursa_core.tokens.writer import ShardWriter, TokenRow
from ursa_core.training.run import build_learner

CPU = torch.device("cpu")
LORA = ("lora.rank=2", "lora.alpha=4", "optimizer.learning_rate=0.02", "name=mine")
EXTEND = "vocabulary=extend"
GRID = LatentGrid(3, 4, 4)
TABLE = "model.embed_tokens.weight"


@pytest.fixture(scope="module")
def base(generator_recipe, tmp_path_factory):
    """A model whose words are those of the procedural world."""
    folder = tmp_path_factory.mktemp("base")
    train(generator_recipe, folder, "model", "train.steps=2", "train.sample_every=9")
    return folder / "model"


@pytest.fixture(scope="module")
def own_recipe(generator_recipe, base, tmp_path_factory):
    """A recipe whose captions speak of crosses and hearts instead of circles and stars."""
    folder = tmp_path_factory.mktemp("own")
    shards = recipe_of(generator_recipe, folder).data.shards[0]
    return generator_recipe.replace(shards, str(renamed(shards, folder / "data"))) + (
        f"init: {base}\n"
    )


def renamed(shards: str, out: Path, new: str = "Cross") -> Path:
    table = read_shards(shards)
    record = {"was": "circle"}
    with ShardWriter(out, table.identity, record) as writer:
        for k in range(len(table)):
            (caption,) = table.captions(k)
            words = caption.replace("circle", new).replace("Cross", new).replace("star", "heart")
            codes = table.codes([k]).view(*vars(table.grid(k)).values())
            writer.add(TokenRow(codes, (words,), 8.0, 0.0, str(k)))
    return out


def hidden(network: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return network(ids, torch.arange(48)[None] % 9, GRID)


@pytest.mark.parametrize("more", [(), LORA], ids=["whole", "lora"])
def test_a_new_word_begins_as_an_unknown_one(own_recipe, base, tmp_path, more):
    learner = build_learner(recipe_of(own_recipe, tmp_path, EXTEND, *more), CPU)
    own = load_bundle(base)
    assert learner.words == ["cross", "heart"]
    text = "a red Cross grows near a heart"
    ids, before = learner.text_tokenizer.encode([text]), own.text_tokenizer.encode([text])
    assert sorted(set(ids[0].tolist()) - set(before[0].tolist())) == [
        own.text_tokenizer.max_id + 1,
        own.text_tokenizer.max_id + 2,
    ]
    assert torch.allclose(hidden(learner.model, ids), hidden(own.transformer, before), atol=1e-6)
    assert not learner.text_tokenizer.unknown_words("a heart and cross".replace("and ", ""))


def test_whole_weights_learn_the_words_and_the_model_knows_them(own_recipe, base, tmp_path):
    trained = train(own_recipe, tmp_path, "run", EXTEND, "optimizer.learning_rate=0.02")
    bundle = load_bundle(trained.run_folder)
    assert bundle.text_tokenizer.unknown_words("a red cross, a heart") == []
    table = bundle.transformer.state_dict()[TABLE]
    first, unknown = load_bundle(base).transformer.config.lm_vocab_size, 1
    rows = table[[unknown, first, first + 1]].float()
    assert min(torch.pdist(rows).tolist()) > 1e-2  # apart from each other and from unknown words
    # A second run from this model has nothing to add.
    again = recipe_of(own_recipe, tmp_path, EXTEND, f"init={trained.run_folder}")
    assert build_learner(again, CPU).words == []


def test_words_stay_unknown_unless_the_recipe_says_so(own_recipe, tmp_path, capsys):
    recipe_of(own_recipe, tmp_path)
    words = ["train", str(tmp_path / "recipe.yaml"), "-o", str(tmp_path / "run"), "--dry-run"]
    assert main(words) == 0
    kept = capsys.readouterr().err
    assert (
        "9 of 24 captions (37.5 %) hold words that the model doesn't know: heart (6), Cross (3)"
        in kept
    )
    assert "vocabulary: extend adds them" not in kept
    assert main([*words, EXTEND]) == 0
    assert "; vocabulary: extend adds them" in capsys.readouterr().err
    learner = build_learner(recipe_of(own_recipe, tmp_path), CPU)
    assert learner.text_tokenizer.unknown_words("cross") == ["cross"]


@pytest.fixture(scope="module")
def adapted(own_recipe, tmp_path_factory):
    folder, float32 = tmp_path_factory.mktemp("lora"), "train.precision=float32"
    return train(own_recipe, folder, "run", EXTEND, float32, *LORA)


def test_an_adapter_has_its_words_and_merging_writes_them(base, adapted, tmp_path, capsys):
    run, merged = adapted.run_folder, tmp_path / "merged"
    text = ["a red cross grows", "a heart moves left"]
    whole = load_bundle(base, adapters=[read_adapter(run)])
    ids = whole.text_tokenizer.encode(text)
    first = load_bundle(base).transformer.config.lm_vocab_size
    changes = adapted.ema.average["model.embed_tokens.new_words"]
    assert changes.abs().amax(1).min() > 1e-3
    table = whole.transformer.state_dict()[TABLE]
    assert torch.allclose(table[first : first + 2], table[1] + changes, atol=1e-6)
    half = load_bundle(base, adapters=[read_adapter(run, 0.5)]).transformer.state_dict()[TABLE]
    assert torch.allclose(half[first : first + 2], half[1] + changes / 2, atol=1e-6)
    assert main(["models", "merge", str(base), "--lora", str(run), "-o", str(merged)]) == 0
    own = load_bundle(merged)
    assert torch.equal(own.text_tokenizer.encode(text), ids)
    for row in ids:  # the merged model is stored in float16
        close = hidden(own.transformer, row[None]) - hidden(whole.transformer, row[None])
        assert close.abs().max() < 2e-2
    # What the trainer had in memory is what comes out of the folder.
    with adapted._averaged_weights():
        theirs = hidden(adapted.learner.model, ids[:1])
    assert torch.allclose(theirs, hidden(whole.transformer, ids[:1]), atol=1e-4)
    plain = ["sample", text[0], "--model", str(base), "-o", str(tmp_path / "a.png"), "--steps", "2"]
    assert main([*plain, "--lora", str(run), "--frames", "1"]) == 0
    assert "doesn't know" not in capsys.readouterr().err


def test_words_and_rows_that_do_not_belong_together_are_refused(base, adapted, tmp_path, capsys):
    run, merged = adapted.run_folder, tmp_path / "merged"

    def merge(model: Path, adapter: Path) -> tuple[int, str]:
        out = tmp_path / "out"
        code = main(["models", "merge", str(model), "--lora", str(adapter), "-o", str(out)])
        assert not out.exists()
        return code, capsys.readouterr().err

    def with_origin(name: str, **changes: object) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.copyfile(run / file, folder / file)
        told = {**json.loads((run / ORIGIN).read_text()), **changes}
        (folder / ORIGIN).write_text(json.dumps({k: v for k, v in told.items() if v is not None}))
        return folder

    code, err = merge(base, with_origin("fewer", words=["cross"]))
    assert (code, len(err.splitlines())) == (1, 2)
    assert "has words of shape (2, 32), its ursa_adapter.json and the model ask for (1, 32)" in err
    code, err = merge(base, with_origin("wrong", words="cross"))
    assert code == 1
    assert "a list of words" in err
    assert main(["models", "merge", str(base), "--lora", str(run), "-o", str(merged)]) == 0
    capsys.readouterr()
    code, err = merge(merged, run)  # another model, by its identity
    assert code == 1
    assert "belongs to the model" in err
    code, err = merge(merged, with_origin("anonymous", base_identity=None))
    assert (code, len(err.splitlines())) == (1, 2)
    assert "has 'cross' already, so words can't be added" in err


def test_a_run_goes_on_with_the_same_words_alone(own_recipe, tmp_path):
    shards = recipe_of(own_recipe, tmp_path).data.shards[0]
    own = renamed(shards, tmp_path / "data")
    given = (EXTEND, f"data.shards={own}", "train.steps=1")
    train(own_recipe, tmp_path, "run", *given)
    shutil.rmtree(own)
    renamed(shards, own, "crescent")
    with pytest.raises(CheckpointError, match="words of text_tokenizer aren't") as told:
        train(own_recipe, tmp_path, "run", EXTEND, f"data.shards={own}")
    assert "--fresh" in told.value.hint


def test_a_vocabulary_that_knows_every_text_says_so(own_recipe, generator_recipe, tmp_path):
    write_qwen3(tmp_path / "lm", tied=True, dtype=torch.float32, shard_size="1MB")
    recipe = recipe_of(own_recipe, tmp_path, EXTEND, f"init={tmp_path / 'lm'}")
    with pytest.raises(RecipeError, match="knows every text, there is nothing to extend"):
        build_learner(recipe, CPU)
    with pytest.raises(RecipeError, match="vocabulary: is for what init knows already"):
        recipe_of(generator_recipe, tmp_path, EXTEND)
