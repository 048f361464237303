"""Packs of clips: the same codes as alone, whatever the library does with larger products."""

import dataclasses

import pytest
import torch
from torch import Tensor

from ursa_core.bundle.bundle import Bundle, load_bundle, resolve_model
from ursa_core.bundle.settings import load_settings
from ursa_core.sampling.batching import Packer, pack_key
from ursa_core.sampling.generate import Request, Sampler, generate

PROMPTS = ("a red circle on a navy background", "a cyan star spins on a brown background", "")
OPTIONS = dataclasses.replace(
    load_settings(resolve_model("nano")).defaults, steps=4, frames=5, guidance=2.0
)
REQUESTS = [
    Request(prompt, seed, options=OPTIONS)
    for seed, prompt in enumerate((*PROMPTS[:2], PROMPTS[0], PROMPTS[1]))
]


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle("nano")


def codes(requests: list[Request], packer: Packer) -> list[Tensor]:
    return [made for each in packer.passes(requests) for made in each.sample()]


def test_packs_give_the_codes_of_single_clips(bundle: Bundle) -> None:
    alone = [generate(bundle, each) for each in REQUESTS]
    packer = Packer(bundle)
    for size in (2, 3, 4):
        assert all(map(torch.equal, codes(REQUESTS[:size], packer), alone))
    assert not torch.equal(alone[0], alone[2])


def test_a_pass_without_guidance_holds_only_such_clips(bundle: Bundle) -> None:
    mixed = [REQUESTS[0], dataclasses.replace(REQUESTS[0], prompt=PROMPTS[2])]
    assert [len(each) for each in Packer(bundle).passes(mixed)] == [1, 1]


def test_inexact_products_are_run_one_by_one(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = [generate(bundle, each) for each in REQUESTS]
    whole = Sampler.network

    def rounds_otherwise(self: Sampler, prompt_ids: Tensor, x_t: Tensor) -> Tensor:
        hidden = whole(self, prompt_ids, x_t)
        return hidden if len(x_t) < 4 else hidden * (1 + 2**-23)

    monkeypatch.setattr(Sampler, "network", rounds_otherwise)
    packer = Packer(bundle)
    # Rows 2 and 3 of both halves of guidance: four, and six.
    assert [len(each) for each in packer.passes(REQUESTS[:2])] == [1, 1]
    assert all(map(torch.equal, codes(REQUESTS, packer), alone))
    off = dataclasses.replace(OPTIONS, guidance=1.0)
    unguided = [dataclasses.replace(each, options=off) for each in REQUESTS]
    assert [len(each) for each in packer.passes(unguided[:3])] == [3]
    assert [len(each) for each in packer.passes(unguided)] == [1, 1, 1, 1]


def test_only_what_may_differ_is_left_out_of_the_key() -> None:
    same = dataclasses.replace(OPTIONS, negative="c", motion=2.0)
    assert pack_key(OPTIONS) == pack_key(same)
    for change in ({"steps": 5}, {"frames": 9}, {"guidance": 3.0}, {"top_p": 0.5}, {"shift": 2.0}):
        assert pack_key(OPTIONS) != pack_key(dataclasses.replace(OPTIONS, **change))
