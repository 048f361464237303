"""The curves of both ways, in small, and the second reading of shape."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import reward_curves, reward_quality
from benchmarks.second_reading import SHAPES, read_shape
from ursa_core.evaluation.suites.shapes import Wanted, rendered
from ursa_core.grids import PixelShape
from ursa_core.rewards.command import CommandScorer

ROOT = Path(__file__).parents[2]
REWARD = ROOT / "tests" / "stand_ins" / "tiny_reward.yaml"


def test_both_ways_train_and_are_drawn(tiny_model, tmp_path, monkeypatch, capsys):
    words = [str(REWARD), f"init={tiny_model}", "train.accumulate=1", "train.validation_passes=1"]
    watch = "watch={prompts: [a circle on navy background], min_diversity: 0}"
    call = ["reward_curves", *words, watch, "--steps", "3", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", call)
    reward_curves.main()
    curves = json.loads((tmp_path / "curves.json").read_text())
    ours, naive = ([line for line in curves[way] if "loss" in line] for way in ("ours", "naive"))
    assert [line["step"] for line in naive] == [line["step"] for line in ours] == [1, 2, 3]
    assert ours[0]["reward"] == naive[0]["reward"]  # the same clips at first
    assert ours[0]["gradient_norm"] != naive[0]["gradient_norm"]  # at other states
    assert naive[2]["kl"] > 0
    assert "validation_reward" in curves["naive"][-1]
    assert Image.open(tmp_path / "curves.png").width > 500
    assert "naive   reward" in capsys.readouterr().out


@pytest.mark.parametrize("shape", SHAPES)
def test_the_second_reading_knows_rendered_shapes(shape):
    for motion in ("moves right", "grows", *(() if shape in ("circle", "ring") else ("spins",))):
        clip = rendered(Wanted("", "cyan", shape, motion, "brown"), PixelShape(9, 64, 64), seed=2)
        assert read_shape(clip) == shape
    assert read_shape(np.full((3, 64, 64, 3), 90, np.uint8)) == "nothing"


def test_the_second_reading_is_a_scorer():
    clip = rendered(Wanted("", "red", "star", "grows", "gray"), PixelShape(5, 64, 64), seed=1)
    script = ROOT / "benchmarks" / "second_reading.py"
    with CommandScorer([sys.executable, str(script)], 60.0) as scorer:
        found = scorer([clip] * 3, ["a star", "a ring", "a dog"])
    assert found == [1.0, 0.0, "the prompt names no shape"]


def test_the_quality_of_a_model_equals_its_own(tiny_model, tmp_path, monkeypatch, capsys):
    """On shapes, whose words the small model mostly doesn't know: what is compared is the table."""
    words = [str(tiny_model), str(tiny_model), "--limit", "2", "--steps", "2", "--seeds", "1"]
    sheet = tmp_path / "sheet.png"
    monkeypatch.setattr(sys, "argv", ["reward_quality", *words, "--sheet", str(sheet)])
    reward_quality.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["mean", "over", "2", "clips", "start", "tuned"]
    assert len(lines) == 15
    for line in lines[1:-1]:
        start, tuned = line.split()[-2:]
        assert start == tuned
    assert lines[-1].endswith("only the start 0, only the tuned 0, p 1")
    drawn = np.asarray(Image.open(sheet))
    gap = 4
    side = (len(drawn) - 5 * gap) // 4 // 2  # of a clip, in the first of four rows of pairs
    above, below = drawn[gap : gap + side], drawn[gap + side : gap + 2 * side]
    assert (above == below).all()
    assert reward_quality.mcnemar(4, 31) == pytest.approx(3.5e-6, rel=0.1)
    assert reward_quality.mcnemar(3, 3) == 1


def test_a_rendered_clip_is_like_its_shape_turned():
    clip = rendered(Wanted("", "red", "star", "spins", "gray"), PixelShape(5, 64, 64), seed=1)
    of = {shape: reward_quality.turned("red", shape, "gray") for shape in ("star", "square")}
    faces = {shape: reward_quality.fidelity(clip, loop) for shape, loop in of.items()}
    assert faces["star"].mean > 0.9 > faces["square"].mean
    assert faces["star"].worst > faces["square"].worst
