"""The script of the paper's comparisons: its variants, data, scores, restart and report."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import comparison_report
import comparisons
import numpy as np
import pytest
import torch
from comparison_arms import ALL_STEPS, BASE, COMPARISONS, CORRECTS, Arm, Run, all_runs

from ursa_core.bundle.bundle import Bundle, load_tokenizer
from ursa_core.bundle.path_files import build_path
from ursa_core.grids import PixelShape
from ursa_core.tokenizers.text import TextTokenizer
from ursa_core.training.generator.start import build_network

CEILING_SHARE = 0.95
WORDS = TextTokenizer.from_words(map(comparisons.prompt_of, comparisons.stills("train")), 7)


def test_runs_are_as_the_comparisons_say():
    runs = all_runs()
    recipes = {run.name: comparisons.recipe_of(run) for run in runs}
    assert len(recipes) == len(runs) == 26
    assert [arm.label for arm in COMPARISONS["methods"]] == ["metric", "mixture", "masked"]
    for arm in COMPARISONS["methods"]:
        assert [recipes[run.name].seed for run in arm.runs] == [1, 2, 3]
        assert {recipes[run.name].path.kind for run in arm.runs} == {arm.label}
        assert all((run.steps, run.corrects) == (ALL_STEPS, CORRECTS) for run in arm.runs)
    for arm in COMPARISONS["linearity"]:
        path = recipes[arm.runs[0].name].path
        assert arm.label == f"({path.alpha:g}, {path.c:g})"
    for arm in COMPARISONS["shift"]:
        recipe = recipes[arm.runs[0].name]
        assert recipe.objective.shift == recipe.sampling.shift == float(arm.label)
    for arm, method in zip(COMPARISONS["longer"], COMPARISONS["methods"], strict=True):
        for run, short_run in zip(arm.runs, method.runs, strict=True):
            longer, same = recipes[run.name], recipes[short_run.name]
            assert longer.train.steps == 3 * same.train.steps
            train = longer.train.model_copy(update={"steps": same.train.steps})
            assert longer.model_copy(update={"train": train}) == same
    # All else is the same: one recipe, one length of training.
    short = [recipe for name, recipe in recipes.items() if not name.endswith("-longer")]
    assert len({recipe.train.model_dump_json() for recipe in short}) == 1
    assert len({recipe.optimizer.model_dump_json() for recipe in recipes.values()}) == 1
    with_base = {name for name, arms in COMPARISONS.items() if any(BASE in a.runs for a in arms)}
    assert with_base == {"methods", "linearity", "size", "shift"}


def test_sizes_are_what_their_labels_say():
    tokenizer, _, _ = load_tokenizer("nano")
    found = {}
    for arm in COMPARISONS["size"]:
        recipe = comparisons.recipe_of(arm.runs[0])
        network = build_network(recipe, None, WORDS, 1024, tokenizer.codebook, empty=True)
        found[arm.label] = sum(each.numel() for each in network.parameters())
    assert {label: f"{count / 1e6:.1f}M" for label, count in found.items()} == {
        label: label for label in found
    }
    height, width = comparisons.SIZE
    assert tokenizer.strides.grid(PixelShape(1, height, width)).num_codes <= 32


def test_held_out_prompts_are_new_and_uncut():
    train, held_out = comparisons.stills("train"), comparisons.stills("heldout")
    assert len(train) == 128
    assert len(held_out) == 32
    assert not {still[:2] for still in train} & {still[:2] for still in held_out}
    limit = comparisons.recipe_of(BASE).model.max_prompt_length
    assert max(len(comparisons.prompt_of(still).split()) for still in train + held_out) <= limit
    known = {word for still in train for word in comparisons.prompt_of(still).split()}
    assert all(set(comparisons.prompt_of(still).split()) <= known for still in held_out)


def test_the_judge_reads_stills_behind_the_tokenizer():
    found = comparisons.ceiling(per_prompt=3)
    assert found["images"] == 96
    assert min(found["right"].values()) >= CEILING_SHARE * found["images"]


def test_wrong_images_are_judged_wrong():
    asked = ("red", "star", "navy")
    rng = np.random.default_rng(0)
    shown = [("red", "star", "navy"), ("red", "star", "gray"), ("blue", "star", "navy"),
             ("red", "ring", "navy"), ("blue", "ring", "gray")]  # fmt: skip
    found = comparisons.judged([asked] * 5, [comparisons.draw(still, rng) for still in shown])
    assert found == {
        "images": 5,
        "right": {"colour": 3, "shape": 3, "background": 3, "all three": 1},
    }


@pytest.mark.parametrize("correct", CORRECTS)
@pytest.mark.parametrize("kind", ["metric", "mixture", "masked"])
def test_untrained_networks_score_at_chance(kind, correct):
    bundle = untrained(kind)
    found = comparisons.score(bundle, 3, correct, per_prompt=2)
    assert found["images"] == 64
    assert found["calls"] == 3
    assert found["right"]["all three"] <= 6  # one in 160 by chance
    again, _ = comparisons.sample(bundle, ["a red star on a navy background"] * 4, 3)
    same, _ = comparisons.sample(bundle, ["a red star on a navy background"] * 4, 3)
    assert torch.equal(again, same)
    assert int(again.max()) < bundle.path.num_codes


def test_maskgit_ends_when_nothing_is_masked():
    _, calls = comparisons.sample(untrained("masked"), ["a red star on a navy background"], 50)
    assert calls <= 30


def untrained(kind: str) -> Bundle:
    """A small network with new weights, as the recipe would start it."""
    (arm,) = [arm for arm in COMPARISONS["methods"] if arm.label == kind]
    recipe = comparisons.recipe_of(arm.runs[0], "model.num_hidden_layers=1")
    tokenizer, settings, _ = load_tokenizer(recipe.tokenizer)
    given = {"path": kind, "alpha": recipe.path.alpha, "c": recipe.path.c}
    path = build_path(given, tokenizer.codebook)
    network = build_network(recipe, None, WORDS, path.num_states, tokenizer.codebook).eval()
    height, width = comparisons.SIZE
    own = replace(settings, frames=1, height=height, width=width)
    return Bundle(Path(), network, tokenizer, WORDS, path, own, torch.device("cpu"))


def test_what_is_scored_is_not_trained_again(tmp_path):
    results = tmp_path / "results.jsonl"
    everything = comparisons.missing([])
    assert everything == {run: tuple(product(run.steps, run.corrects)) for run in all_runs()}
    done = [{"run": BASE.name, "steps": steps, "correct": 1.0} for steps in (2, 8, 16, 25, 50)]
    comparisons.append(results, [*done, {"run": BASE.name, "steps": 8}])  # 8 without a corrector
    comparisons.append(results, [{"run": "shift-3", "steps": steps} for steps in (8, 25)])
    with results.open("a") as file:
        file.write('{"run": "shift-9", "ste')  # killed while it wrote
    left = comparisons.missing(comparisons.read_lines(results))
    assert left[BASE] == ((2, 0.0), (4, 0.0), (4, 1.0), (16, 0.0), (25, 0.0), (50, 0.0))
    assert len(left) == len(everything) - 1
    assert {run.name for run in everything} - {run.name for run in left} == {"shift-3"}


def test_report_pools_seeds_and_states_their_spread(tmp_path):
    lines = [
        {"run": f"metric-{seed}", "steps": 25, "images": 100,
         "right": {"colour": 90, "shape": 80, "background": 100, "all three": right}}
        for seed, right in ((1, 70), (2, 80), (3, 60))
    ]  # fmt: skip
    lines.append({**lines[0], "run": "shift-3", "right": {**lines[0]["right"], "all three": 50}})
    mended = {**lines[0]["right"], "all three": 97}
    lines.append({**lines[0], "correct": 1.0, "right": mended})
    path = {"path": "(1, 4)", "correlation": -0.99, "deviation": 0.03, "distance": [1.0, 0.5]}
    page = comparison_report.write_report(tmp_path, COMPARISONS, [*lines, path])
    text = page.read_text()
    assert "| metric |  |  |  |  | 70.0 (64.6–74.9) |  |" in text  # Wilson's of 210 in 300
    assert "| each seed |  |  |  |  | 70.0, 80.0, 60.0 |  |" in text
    assert "| metric, corrected at 1 |  |  |  |  | 97.0 (91.5–99.0) |  |" in text
    # Among arms of one seed stands the first seed alone, its others apart.
    assert "| (1, 4) | -0.990 | 0.030 |  | 70.0 (60.4–78.1) | 90.0" in text
    assert "| its other seeds |  |  |  | 80.0, 60.0 | 90.0, 90.0 |" in text
    assert "| 3 |  | 50.0 (40.4–59.6) |" in text
    for name in ("methods.png", "one_seed.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_run_is_trained_scored_and_left_alone(tmp_path, monkeypatch):
    run = Run("masked-1", ("path={kind: masked}",), (2,))
    monkeypatch.setattr(comparisons, "all_runs", lambda: [run])
    arguments = (tmp_path, 1, 40, ("train.steps=21", "train.batch_size=4"))
    comparisons.make_results(*arguments)
    lines = comparisons.read_lines(tmp_path / "results.jsonl")
    (scored,) = [line for line in lines if line.get("run") == run.name]
    assert scored["images"] == 256
    assert scored["loss"] < 8
    assert {line["path"] for line in lines if "path" in line} == {
        arm.label for arm in COMPARISONS["linearity"]
    }
    comparisons.make_results(*arguments)
    assert comparisons.read_lines(tmp_path / "results.jsonl") == lines
    results = comparison_report.Results(lines)
    assert results.share(Arm("masked", (run,)), 2) is not None
