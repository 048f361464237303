"""The video tokenizer: parity with the reference, causality, the quantizer, its faults."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ursa_core.errors import CheckpointError, ShapeError
from ursa_core.tokenizers.quantizers import FiniteScalarQuantizer
from ursa_core.tokenizers.video_fsq import (
    VideoTokenizer,
    VideoTokenizerConfig,
    haar_join,
    haar_split,
)
from ursa_core.tokenizers.visual import build_visual_tokenizer

GOLDEN = Path(__file__).parents[1] / "golden" / "published_tokenizer"


def small(**changes):
    torch.manual_seed(0)
    config = VideoTokenizerConfig(
        **{
            "block_out_channels": (8, 8, 12, 12),
            "layers_per_block": 1,
            "latent_channels": 4,
            "levels": (5, 5, 5),
            "spatial_stride": 16,
            "causal": True,
            **changes,
        }
    )
    model = VideoTokenizer(config).eval()
    with torch.no_grad():  # fresh blocks pass their input on; stir them so that tests see all
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def test_codes_and_pixels_equal_those_of_the_reference():
    config = VideoTokenizerConfig.from_json(json.loads((GOLDEN / "config.json").read_text()))
    model = VideoTokenizer(config)
    model.load_state_dict(load_file(GOLDEN / "diffusion_pytorch_model.safetensors"))
    expected = load_file(GOLDEN / "expected.safetensors")
    video = expected["video_uint8"].permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    with torch.no_grad():
        codes = model.encode(video)
        back = model.decode(expected["encoded_tokens"].long())
    assert torch.equal(codes, expected["encoded_tokens"].long())
    pixels = ((back.clamp(-1, 1) + 1) * 127.5).permute(0, 2, 3, 4, 1)
    # The reference truncates to uint8.
    assert (pixels.floor() - expected["decoded_uint8"].float()).abs().max() <= 1


@pytest.mark.parametrize("frames", [1, 5, 9])
@pytest.mark.parametrize(
    ("spatial", "temporal", "patch"), [(8, 4, 4), (16, 4, 4), (16, 8, 4), (8, 2, 2), (8, 4, 2)]
)
def test_shapes_follow_the_strides(frames, spatial, temporal, patch):
    frames = 1 + (frames - 1) * temporal // 4
    model = small(spatial_stride=spatial, temporal_stride=temporal, temporal_patch_size=patch)
    with torch.no_grad():
        codes = model.encode(torch.rand(2, 3, frames, 32, 48))
        back = model.decode(codes)
    assert codes.shape == (2, 1 + (frames - 1) // temporal, 32 // spatial, 48 // spatial)
    assert back.shape == (2, 3, frames, 32, 48)


@pytest.mark.parametrize(("temporal", "patch"), [(4, 4), (8, 4), (2, 2), (4, 2)])
def test_a_causal_tokenizer_never_looks_ahead(temporal, patch):
    model = small(temporal_stride=temporal, temporal_patch_size=patch)
    video = torch.rand(1, 3, 1 + 2 * temporal, 32, 32)
    changed = video.clone()
    changed[:, :, 1 + temporal :] = torch.rand(1, 3, temporal, 32, 32)
    with torch.no_grad():
        latents, others = model.latents(video), model.latents(changed)
    assert torch.allclose(latents[:, :2], others[:, :2], atol=1e-6)
    assert not torch.allclose(latents[:, 2], others[:, 2], atol=1e-4)


def test_without_the_mask_it_does():
    model = small(causal=False)
    video = torch.rand(1, 3, 9, 32, 32)
    changed = video.clone()
    changed[:, :, 5:] = 0
    with torch.no_grad():
        assert not torch.allclose(model.latents(video)[:, :2], model.latents(changed)[:, :2])


def test_haar_bands_invert():
    clip = torch.randn(2, 4, 3, 8, 6, dtype=torch.float64)
    assert torch.allclose(haar_join(haar_split(clip)), clip)
    flat = torch.ones(1, 2, 3, 4, 4)
    bands = haar_split(flat)
    assert torch.equal(bands[:, :, :3], torch.ones(1, 1, 3, 2, 2))
    assert not bands[:, :, 3:].any()


def test_patches_of_fewer_frames_have_the_slow_bands_of_longer_ones():
    clip = torch.randn(1, 4, 3, 8, 8, dtype=torch.float64)

    def bands(frames):
        x = clip
        for dims in VideoTokenizerConfig(temporal_patch_size=frames).patch_dims:
            x = haar_split(x, dims)
        return x

    short, long = bands(2), bands(4)
    assert short.shape == (1, 2, 96, 2, 2)
    assert long.shape == (1, 1, 192, 2, 2)
    assert torch.allclose(long[:, :, :96], short.mean(1, keepdim=True))


@pytest.mark.parametrize("levels", [[8, 8, 8, 5, 5, 5], [7, 5, 5, 5, 5], [2, 3]])
def test_every_code_has_its_vector(levels):
    quantizer = FiniteScalarQuantizer(levels)
    vectors = quantizer.codebook
    assert vectors.shape == (quantizer.num_codes, len(levels))
    assert vectors.abs().max() <= 1
    assert len(torch.unique(vectors, dim=0)) == quantizer.num_codes
    # A latent that the bound maps onto a digit must come back as that code.
    codes = torch.arange(0, quantizer.num_codes, max(quantizer.num_codes // 500, 1))
    targets = quantizer.vectors(codes) * quantizer.centre
    z = torch.atanh((targets + quantizer.offset) / quantizer.half_range) - quantizer.z_shift
    assert torch.equal(quantizer.quantize(z), codes)


def test_gradients_pass_the_rounding():
    quantizer = FiniteScalarQuantizer([5, 5])
    z = torch.randn(10, 2, requires_grad=True)
    vectors = quantizer.straight_through(z)
    assert torch.equal(vectors.detach(), quantizer.vectors(quantizer.quantize(z)))
    vectors.sum().backward()
    assert (z.grad > 0).all()


@pytest.mark.parametrize("levels", [[4, 4, 4], [5, 8], [2, 3]])
def test_soft_rounding_goes_from_none_to_all(levels):
    quantizer = FiniteScalarQuantizer(levels)
    z = (2 * torch.randn(500, len(levels))).requires_grad_(True)
    bounded = quantizer.bound(z)
    assert torch.allclose(quantizer.soft(z, 1e-3) * quantizer.centre, bounded, atol=1e-4)
    is_clear = (bounded - bounded.floor() - 0.5).abs() > 0.1
    soft, rounded = quantizer.soft(z, 64), quantizer.vectors(quantizer.quantize(z))
    assert torch.allclose(soft[is_clear], rounded[is_clear], atol=2e-3)
    quantizer.soft(z, 2).sum().backward()
    assert z.grad.min() >= 0
    assert z.grad[z.abs().amax(1) < 1].min() > 0


def test_faults_are_named():
    model = small()
    with pytest.raises(ShapeError, match="7 frames") as caught:
        model.encode(torch.rand(1, 3, 7, 32, 32))
    assert "5 or 9" in caught.value.hint
    with pytest.raises(ShapeError, match="height of 40") as caught:
        model.encode(torch.rand(1, 3, 5, 40, 32))
    assert "32 or 48" in caught.value.hint
    with pytest.raises(ShapeError, match="video tensor"):
        model.encode(torch.rand(3, 5, 32, 32))
    with pytest.raises(CheckpointError, match="AutoencoderKL"):
        build_visual_tokenizer({"_class_name": "AutoencoderKL"})
    with pytest.raises(CheckpointError, match="64000 codes"):
        VideoTokenizerConfig.from_json(
            {
                "_class_name": "AutoencoderVQCosmos3D",
                "num_vq_embeddings": 64_000,
                "levels": [5, 5],
            }
        )


@pytest.mark.parametrize(("stride", "patch"), [(4, 4), (4, 0), (2, 2), (4, 2)])
def test_config_round_trip(stride, patch):
    config = small(temporal_stride=stride, temporal_patch_size=patch).config
    written = json.loads(json.dumps(config.to_json()))
    assert VideoTokenizerConfig.from_json(written) == config
    assert written.get("temporal_patch_size", 4) == config.temporal_patch_size
    with pytest.raises(CheckpointError, match="temporal_stride can't be 2"):
        VideoTokenizerConfig.from_json({**written, "temporal_stride": 2, "temporal_patch_size": 4})


def test_published_configs_are_written_as_they_were():
    published = json.loads((GOLDEN / "config.json").read_text())
    written = VideoTokenizerConfig.from_json(published).to_json()
    assert written.keys() - {"levels", "causal"} <= published.keys()
    assert all(published.get(key, value) == value for key, value in written.items())
