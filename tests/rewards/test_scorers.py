"""The graded score of procedural clips, and the figures without a reference."""

import numpy as np
import pytest

from ursa_core.evaluation.suites.shapes import Wanted, rendered
from ursa_core.grids import PixelShape
from ursa_core.recipe.fields import RewardTerm
from ursa_core.rewards.scorers import FIGURES, shapes_score

RIGHT = ("green", "square", "moves right", "navy")
SIZE = PixelShape(9, 64, 64)


def clip(*words: str) -> np.ndarray:
    return rendered(Wanted("", *words), SIZE, seed=5)


def prompt(*words: str) -> str:
    return Wanted("", *words).prompt


@pytest.mark.parametrize(
    "words",
    [
        RIGHT,
        ("white", "star", "spins", "black"),
        ("blue", "ring", "stays still", "gray"),
        ("cyan", "triangle", "shrinks", "brown"),
    ],
)
def test_what_is_asked_for_scores_most(words):
    own = shapes_score(clip(*words), prompt(*words))
    assert own > 0.9
    for place, other in enumerate(("red", "circle", "moves up", "brown")):
        wrong = [*words[:place], other, *words[place + 1 :]]
        if tuple(wrong) != words:
            assert shapes_score(clip(*wrong), prompt(*words)) < own - 0.1


def test_the_score_is_graded():
    """Half of the way, a faint colour and a blank clip."""
    whole = clip(*RIGHT)
    half = np.concatenate([whole[:5], np.repeat(whole[4:5], 4, 0)])
    wrong = clip("red", "circle", "moves up", "brown")
    scores = [shapes_score(each, prompt(*RIGHT)) for each in (whole, half, wrong)]
    assert scores[0] > scores[1] > scores[2]
    assert scores[2] < 0.3
    blank = np.full_like(whole, (20, 25, 70))
    assert shapes_score(blank, prompt(*RIGHT)) == 0


def test_a_single_broken_frame_costs_more_than_its_share():
    whole, other = clip(*RIGHT), clip("green", "star", "moves right", "navy")
    broken, halved = whole.copy(), whole.copy()
    broken[4], halved[4:] = other[4], other[4:]
    lost = [
        shapes_score(whole, prompt(*RIGHT)) - shapes_score(each, prompt(*RIGHT))
        for each in (broken, halved)
    ]
    assert lost[1] > lost[0] > lost[1] / 5 > 0.02


def test_other_prompts_have_no_score():
    assert "no caption" in shapes_score(clip(*RIGHT), "a dog")


def test_figures_are_those_of_videos():
    moving, still = clip(*RIGHT), np.repeat(clip(*RIGHT)[:1], 9, 0)
    assert FIGURES["flicker"](moving) > FIGURES["flicker"](still) == 0
    assert FIGURES["motion"](moving) > FIGURES["motion"](still) == 0
    brighter = still.copy()
    brighter[-1] = 255 - (255 - brighter[-1]) // 2
    assert FIGURES["colour drift"](brighter) > FIGURES["colour drift"](still) == 0
    assert {*FIGURES} == {*RewardTerm.model_fields["figure"].annotation.__args__[0].__args__}
