"""Mistakes of every kind that the simulated device is there for: each is planted, and caught."""

from unittest.mock import patch

import pytest
import torch

from ursa_core.bundle.bundle import load_bundle
from ursa_core.path import draws, metric
from ursa_core.path.fast.distance_table import DistanceTable
from ursa_core.sampling.conditioning import Conditioning
from ursa_core.sampling.generate import Request, decode, generate

OPTIONS = Request("a red circle", seed=3)


@pytest.fixture
def bundle(tiny_model, sim):
    return load_bundle(tiny_model, sim)


@pytest.fixture
def caught():
    from simulated_device import MixedDevicesError

    return pytest.raises(MixedDevicesError)


def test_without_a_mistake_nothing_is_caught(bundle):
    decode(bundle, generate(bundle, OPTIONS, conditioning=given(bundle)))


def given(bundle):
    grid = bundle.grid(bundle.settings.shape)
    codes = torch.ones(grid.frames, grid.rows, grid.columns, dtype=torch.int64)
    return Conditioning(codes, torch.arange(grid.frames) < 1, cond_noise=0.2)


def test_a_table(bundle, caught, monkeypatch):
    monkeypatch.setattr(DistanceTable, "_to", lambda self, device: self)
    with caught:
        generate(bundle, OPTIONS)


def test_a_mask(bundle, caught, monkeypatch):
    flat = Conditioning._flat

    def left(self, like):
        mask, codes = flat(self, like)
        return mask.cpu(), codes

    monkeypatch.setattr(Conditioning, "_flat", left)
    with caught:
        generate(bundle, OPTIONS, conditioning=given(bundle))


def test_a_generator(bundle, caught, monkeypatch):
    def drawn_there(shape, randomness, device):
        (generator,) = randomness
        return torch.rand(tuple(shape), generator=generator, device=device, dtype=torch.float64)

    assert metric.uniforms is draws.uniforms
    monkeypatch.setattr(metric, "uniforms", drawn_there)
    monkeypatch.setattr(draws, "uniforms", drawn_there)
    with caught:
        generate(bundle, OPTIONS)


@pytest.mark.parametrize("name", ["radix", "sizes", "half_range"])
def test_a_buffer(name, bundle, caught):
    buffers = bundle.video_tokenizer.quantizer._buffers
    buffers[name] = buffers[name].cpu()
    with caught:
        codes = bundle.video_tokenizer.encode(torch.zeros(1, 3, 9, 16, 16).to(bundle.device))
        decode(bundle, codes[0])


def test_a_weight(bundle, caught):
    bundle.transformer.model.layers[0].to("cpu")
    with caught:
        generate(bundle, OPTIONS)


def test_an_array_of_the_device(bundle, sim):
    with pytest.raises(TypeError, match="copy it to the CPU first"):
        torch.zeros(3, device=sim).numpy()
    with patch.object(torch.Tensor, "cpu", lambda self: self), pytest.raises(TypeError):
        decode(bundle, torch.zeros(3, 4, 4, dtype=torch.int64))
