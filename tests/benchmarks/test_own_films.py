"""The benchmark of one's own films: its shapes, its judge and its prompts."""

import json
import math

import own_films
import pytest

from ursa_core.evaluation.suites import shapes_judge
from ursa_core.evaluation.suites.shapes import Wanted, judge_file, rendered, wanted
from ursa_core.media import read_media, write_media
from ursa_core.worlds import shapes


@pytest.fixture
def extended(monkeypatch):
    """The world and the judge with crosses and hearts, for one test."""
    for module, names in (
        (shapes, ("OUTLINES", "REACH")),
        (shapes_judge, ("OUTLINES", "SYMMETRY")),
    ):
        for name in names:
            monkeypatch.setattr(module, name, dict(getattr(module, name)))
    own_films.extend_world()


def test_the_extended_judge_reads_new_and_old_shapes(extended, tmp_path):
    prompts = [*own_films.judged_prompts(["cross", "heart"], 24), *wanted("heldout", 24)]
    wrong = []
    for each in prompts:
        path = tmp_path / "clip.mp4"
        write_media(path, rendered(each, own_films.SHAPE, 3), 8)
        found = judge_file(path)
        if (found.colour, found.shape) != (each.colour, each.shape):
            wrong.append((each.prompt, found.shape))
    assert not wrong


def test_the_tokenizer_shows_what_the_judge_reads(extended):
    found = own_films.check_judge(own_films.judged_prompts(["cross", "heart"], 8))
    assert {name: sum(row["right"] for row in rows) for name, rows in found.items()} == {
        "rendered": 16,
        "tokenized": 16,
    }


def test_films_have_captions_and_judged_prompts_are_half_held_out(extended, tmp_path):
    own_films.make_films(tmp_path, ["cross", "heart"], 6)
    texts = [(tmp_path / f"{k:04d}.txt").read_text() for k in range(6)]
    assert ["cross" in text for text in texts] == [True, False] * 3
    assert read_media(tmp_path / "0000.mp4").frames.shape == (17, 64, 64, 3)
    held = {each.prompt for each in own_films.prompts_of("cross", "heldout")}
    assert not held & {each.prompt for each in own_films.prompts_of("cross", "train")}
    judged = own_films.judged_prompts(["cross"], 96)
    assert sum(each.prompt in held for each in judged) == 48
    assert len({each.prompt for each in judged}) == 96


def test_what_spins_in_a_film_makes_a_quarter_turn_from_upright(extended):
    each = Wanted("train", "red", "cross", "spins", "navy")
    frames = own_films.filmed(each, 1)
    assert (frames[0] != own_films.filmed(each, 2)[0]).any()
    seen = shapes_judge.measure(frames)
    assert abs(seen.turns["cross"]) == pytest.approx(math.pi / 2, abs=0.1)
    assert abs(frames[0].astype(int) - frames[-1]).max() <= 1  # which leaves a cross as it was
    assert (frames[0] != frames[8]).any()
    still = Wanted("train", "red", "cross", "stays still", "navy")
    drawn = rendered(still, own_films.SHAPE, 1)
    assert (own_films.filmed(still, 1) == drawn).all()


def test_a_model_is_judged_from_where_it_stopped(extended, tiny_model, tmp_path, capsys):
    red = [Wanted("heldout", "red", "circle", "moves right", b) for b in shapes.BACKGROUNDS]
    new = [Wanted("train", "red", "cross", "grows", "navy")]
    file = tmp_path / "tiny.jsonl"
    own_films.judge(tiny_model, red, file)
    first = file.read_text()
    own_films.judge(tiny_model, [*red, *new], file)
    assert file.read_text().startswith(first)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(rows) == 5
    assert {"all four", "shape and colour", "seen"} <= rows[0].keys()
    own_films.report(tmp_path, ["tiny"], len(red))
    assert "| tiny | cross " in capsys.readouterr().out
    assert own_films.share([{"right": True}] * 96, "right").startswith("100.0 (96.")
