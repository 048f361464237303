"""Packs of clips: the same codes as alone, whatever the library does with larger products."""

import dataclasses

import pytest
import torch
from torch import Tensor

from ursa_core.bundle.bundle import Bundle, load_bundle
from ursa_core.sampling.batching import Packer, pack_key
from ursa_core.sampling.generate import GenerateOptions, Pass, generate

PROMPTS = ("a red circle on a navy background", "a cyan star spins on a brown background", "")
OPTIONS = [
    GenerateOptions(prompt, seed=seed, steps=4, frames=5, guidance=2.0)
    for seed, prompt in enumerate((*PROMPTS[:2], PROMPTS[0], PROMPTS[1]))
]


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle("nano")


def codes(bundle: Bundle, options: list[GenerateOptions], packer: Packer) -> list[Tensor]:
    passes = packer.passes(options)
    return [made for each in passes for made in each.sample([0] * len(each))]


def test_packs_give_the_codes_of_single_clips(bundle: Bundle) -> None:
    alone = [next(generate(bundle, each)).codes for each in OPTIONS]
    packer = Packer(bundle)
    for size in (2, 3, 4):
        assert all(map(torch.equal, codes(bundle, OPTIONS[:size], packer), alone))
    assert not torch.equal(alone[0], alone[2])


def test_a_pass_without_guidance_holds_only_such_clips(bundle: Bundle) -> None:
    mixed = [OPTIONS[0], dataclasses.replace(OPTIONS[0], prompt=PROMPTS[2])]
    assert [len(each) for each in Packer(bundle).passes(mixed)] == [1, 1]


def test_inexact_products_are_run_one_by_one(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = [next(generate(bundle, each)).codes for each in OPTIONS]
    whole = Pass.network

    def rounds_otherwise(self: Pass, prompt_ids: Tensor, x_t: Tensor) -> Tensor:
        hidden = whole(self, prompt_ids, x_t)
        return hidden if len(x_t) < 4 else hidden * (1 + 2**-23)

    monkeypatch.setattr(Pass, "network", rounds_otherwise)
    packer = Packer(bundle)
    # Rows 2 and 3 of both halves of guidance: four, and six.
    assert [len(each) for each in packer.passes(OPTIONS[:2])] == [1, 1]
    assert all(map(torch.equal, codes(bundle, OPTIONS, packer), alone))
    unguided = [dataclasses.replace(each, guidance=1.0) for each in OPTIONS]
    assert [len(each) for each in packer.passes(unguided[:3])] == [3]
    assert [len(each) for each in packer.passes(unguided)] == [1, 1, 1, 1]


def test_only_what_may_differ_is_left_out_of_the_key() -> None:
    one = OPTIONS[0]
    same = dataclasses.replace(one, prompt="b", seed=9, negative="c", motion=2.0)
    assert pack_key(one) == pack_key(same)
    for change in ({"steps": 5}, {"frames": 9}, {"guidance": 3.0}, {"top_p": 0.5}, {"shift": 2.0}):
        assert pack_key(one) != pack_key(dataclasses.replace(one, **change))
