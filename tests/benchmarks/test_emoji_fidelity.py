"""The benchmark's frame fidelity and steadiness: what they see of faces, and what they overlook."""

import json
import sys

import emoji_quality
import numpy as np
import pytest
import torch
from emoji_fidelity import FAULTS, fidelity, insides
from PIL import Image, ImageDraw
from pixel_packs import prepare_film, prepare_sprites
from tiny_packs import write_packs
from torchmetrics.functional.image import structural_similarity_index_measure

from ursa_core.bundle.bundle import load_tokenizer

GROUND = (124, 77, 196)
LENGTH = 12
FINE = 4
"""Pixels drawn for each pixel shown."""


def face(time, centre=(48, 48), half=40):
    """A face whose eyes go round, with one brow and a crooked mouth."""
    image = Image.new("RGB", (96 * FINE, 96 * FINE), GROUND)
    draw = ImageDraw.Draw(image)
    x, y = centre
    unit = half / 40

    def ellipse(dx, dy, rx, ry, colour):
        cx, cy = x + dx * unit, y + dy * unit
        box = (cx - rx * unit, cy - ry * unit, cx + rx * unit, cy + ry * unit)
        draw.ellipse([FINE * edge for edge in box], fill=colour)

    ellipse(0, 0, 40, 40, (250, 210, 60))
    angle = 2 * np.pi * time / LENGTH
    for side in (-14, 14):
        ellipse(side, -6, 8, 8, (255, 255, 255))
        ellipse(side + 4 * np.cos(angle), -6 + 4 * np.sin(angle), 4, 4, (40, 20, 20))
    ellipse(8, 18, 14, 6 + 3 * np.sin(angle), (120, 30, 40))
    ellipse(-14, -18, 9, 2, (90, 50, 20))
    return np.asarray(image.resize((96, 96), Image.Resampling.BOX))


LOOP = np.stack([face(time) for time in range(LENGTH)])
CLIP = np.roll(LOOP, -5, 0)[:9]


def test_a_reference_clip_is_whole_and_steady_from_any_frame_on():
    found = fidelity(CLIP, LOOP)
    assert found.mean == pytest.approx(1, abs=1e-5)
    assert found.worst == pytest.approx(1, abs=1e-5)
    assert found.steadiness == pytest.approx(1, abs=1e-5)


def test_place_and_size_do_not_count():
    moved = np.stack([face(time, (50 + time, 44), 34) for time in range(9)])
    found = fidelity(moved, LOOP)
    assert found.mean > 0.85
    assert 0.8 < found.steadiness < 1.25


def test_each_frame_is_compared_with_the_nearest_as_torchmetrics_does():
    torch.manual_seed(0)
    noise = (30 * torch.randn(CLIP.shape)).numpy()
    noisy = (CLIP + noise).clip(0, 255).astype(np.uint8)
    noisy[:, :4], noisy[:, :, :4] = CLIP[:, :4], CLIP[:, :, :4]
    ours, theirs = insides(noisy), insides(LOOP)
    best = [
        max(
            float(
                structural_similarity_index_measure(
                    one[None], each[None], kernel_size=7, sigma=1.0, data_range=2.0
                )
            )
            for each in theirs
        )
        for one in ours
    ]
    found = fidelity(noisy, LOOP)
    assert found.mean == pytest.approx(np.mean(best), abs=1e-4)
    assert found.worst == pytest.approx(np.min(best), abs=1e-4)
    assert found.mean < 0.9


def test_planted_faults_are_seen():
    found = {name: fidelity(plant(CLIP), LOOP) for name, plant in FAULTS.items()}
    assert found["eyes blurred"].mean < 0.9
    assert found["eyes blurred"].steadiness < 0.85
    assert found["face mirrored"].mean < 0.8
    assert found["eyes swapped"].worst < 0.92
    assert found["eyes swapped"].steadiness > 1.5
    assert found["frozen"].mean == pytest.approx(1, abs=1e-5)
    assert found["frozen"].steadiness == 0


def test_a_reconstruction_stands_between_the_reference_and_another_face():
    tokenizer, *_ = load_tokenizer("emoji")
    back = emoji_quality.reconstructed(tokenizer, CLIP)
    other = fidelity(CLIP[:, ::-1], LOOP)
    assert other.mean < fidelity(back, LOOP).mean < 0.99


def test_a_clip_without_any_figure_has_none_that_is_whole():
    empty = np.full_like(CLIP, GROUND)
    found = fidelity(empty, LOOP)
    assert found.mean < 0.7
    assert found.steadiness == 0


def test_the_benchmark_checks_its_own_measure(tmp_path, monkeypatch, capsys):
    packs = write_packs(tmp_path / "packs")
    prepare_film(packs / "film", packs / "pixels", 36)
    prepare_sprites(packs / "emoji", packs / "pixels", 32)
    words = ["--data", str(packs / "pixels"), "--model", "nano", "--check-fidelity", "--limit=2"]
    monkeypatch.setattr(sys, "argv", ["emoji_quality.py", *words])
    assert emoji_quality.main() == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["reference"] == pytest.approx(1, abs=1e-4)
    assert told["reference_steadiness"] == pytest.approx(1, abs=1e-4)
    assert told["reconstructed"] < 0.999
    assert told["frozen_steady"] == 0
