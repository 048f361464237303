"""Against self-deception: what the shipped model shows comes from its weights and its prompt."""

import dataclasses

import pytest
import torch

from ursa_core.bundle.bundle import load_bundle
from ursa_core.evaluation.suites.shapes_judge import judge
from ursa_core.models.transformer import Transformer
from ursa_core.sampling.generate import Request, decode, generate

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "white", "cyan")
BACKGROUNDS = ("black", "gray", "navy", "brown")
PROMPTS = [
    (colour, background) for i, colour in enumerate(COLOURS) for background in (BACKGROUNDS[i % 4],)
] * 2


def scores(bundle):
    """Shares of clips whose background and whose object colour are those of the prompt."""
    backgrounds = colours = 0
    for seed, (colour, background) in enumerate(PROMPTS):
        prompt = f"a {colour} square stays still on a {background} background"
        options = dataclasses.replace(bundle.settings.defaults, steps=4, frames=5)
        verdict = judge(decode(bundle, generate(bundle, Request(prompt, seed, options=options))))
        backgrounds += verdict.background == background
        colours += verdict.colour == colour
    return backgrounds / len(PROMPTS), colours / len(PROMPTS)


@pytest.fixture(scope="module")
def nano():
    return load_bundle("nano")


def test_shuffled_weights_fall_to_chance(nano):
    shuffled = Transformer(nano.transformer.config).eval()
    generator = torch.Generator().manual_seed(0)
    state = {
        name: value.flatten()[torch.randperm(value.numel(), generator=generator)].view_as(value)
        for name, value in nano.transformer.state_dict().items()
    }
    shuffled.load_state_dict(state)
    background, colour = scores(dataclasses.replace(nano, transformer=shuffled))
    # Chance is 1/4 and 1/8; of 16 clips, more than these come out right once in a few hundred.
    assert background <= 0.6
    assert colour <= 0.45
    real_background, real_colour = scores(nano)
    assert real_background >= 0.8
    assert real_colour > colour


def test_another_prompt_makes_another_clip(nano):
    options = dataclasses.replace(nano.settings.defaults, steps=4)
    request = Request("a red square stays still on a navy background", options=options)
    one, same = (generate(nano, request) for _ in range(2))
    two = generate(nano, dataclasses.replace(request, prompt="a white star grows on gray"))
    assert torch.equal(one, same)
    assert not torch.equal(one, two)
