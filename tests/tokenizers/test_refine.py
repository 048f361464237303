"""Refined codes: a higher PSNR, by the tokenizer as it is."""

import pytest
import torch

from ursa_core.bundle.bundle import load_tokenizer
from ursa_core.encoding.encode import encode_clips, measure
from ursa_core.media import to_video
from ursa_core.tokenizers.refine import refined_codes
from ursa_core.worlds.shapes import training_clip


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("nano")[0]


@pytest.fixture(scope="module")
def clips():
    return [training_clip(0, k, "heldout", 9, 32, 32)[0] for k in range(2)]


def test_refined_codes_decode_better_the_more_steps(tokenizer, clips):
    weights = {name: tensor.clone() for name, tensor in tokenizer.state_dict().items()}
    found = [
        [
            measure(tokenizer, codes, frames).psnr
            for codes, frames in zip(encode_clips(tokenizer, clips, steps), clips, strict=True)
        ]
        for steps in (0, 4, 12)
    ]
    for few, more in ((0, 1), (1, 2)):
        assert all(b >= a - 0.05 for a, b in zip(found[few], found[more], strict=True))
    # Straight through the rounding, twelve steps gain 4.6 dB on both together.
    assert sum(found[2]) > sum(found[0]) + 4.9
    for name, tensor in tokenizer.state_dict().items():
        assert torch.equal(tensor, weights[name])
    assert all(parameter.grad is None for parameter in tokenizer.parameters())


def test_no_steps_give_the_codes_of_the_encoder(tokenizer, clips):
    video = to_video(clips[0])
    with torch.no_grad():
        assert torch.equal(refined_codes(tokenizer, video, 0), tokenizer.encode(video))
