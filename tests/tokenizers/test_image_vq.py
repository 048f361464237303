"""The image tokenizer: shapes, the codebook look-up, its faults (parity: tests/parity)."""

from typing import Any

import numpy as np
import pytest
import torch

from ursa_core.errors import CheckpointError, ShapeError
from ursa_core.tokenizers import quantizers
from ursa_core.tokenizers.image_vq import ImageTokenizer, ImageTokenizerConfig
from ursa_core.tokenizers.quantizers import VectorQuantizer
from ursa_core.tokenizers.visual import build_visual_tokenizer

CONFIG: dict[str, Any] = {
    "_class_name": "AutoencoderVQ",
    "_quantizer_name": "VQuantizer",
    "block_out_channels": [32, 32, 64],
    "layers_per_block": 1,
    "latent_channels": 6,
    "num_vq_embeddings": 40,
    "vq_embed_dim": 5,
    "spatial_stride": 4,
    "temporal_stride": 1,
}


def tokenizer() -> ImageTokenizer:
    torch.manual_seed(0)
    return ImageTokenizer(ImageTokenizerConfig.from_json(CONFIG)).eval()


@torch.no_grad()
def test_frames_are_so_many_images() -> None:
    model = tokenizer()
    video = torch.rand(2, 3, 3, 12, 20) * 2 - 1
    codes = model.encode(video)
    assert (codes.shape, codes.dtype) == ((2, 3, 3, 5), torch.int64)
    decoded = model.decode(codes)
    assert decoded.shape == video.shape
    for b, f in ((0, 0), (1, 2)):
        assert torch.equal(
            model.encode(video[b : b + 1, :, f : f + 1]), codes[b : b + 1, f : f + 1]
        )
        image = model.decode(codes[b : b + 1, f : f + 1])
        torch.testing.assert_close(image[0, :, 0], decoded[b, :, f], atol=1e-5, rtol=1e-5)


def test_it_offers_what_a_video_tokenizer_does() -> None:
    model = tokenizer()
    assert (model.strides.temporal, model.strides.spatial) == (1, 4)
    assert model.codebook.shape == (40, 5)
    assert not model.codebook.requires_grad
    assert model.config.levels == ()


def test_faults_of_pixels_are_named() -> None:
    model = tokenizer()
    with pytest.raises(ShapeError, match="height of 10"):
        model.encode(torch.zeros(1, 3, 1, 10, 8))
    with pytest.raises(ShapeError, match=r"shape \(1, 3, 8, 8\)"):
        model.encode(torch.zeros(1, 3, 8, 8))


def test_the_largest_product_wins_in_blocks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    quantizer = VectorQuantizer(1000, 8)
    z = torch.randn(3, 7, 5, 8)
    with torch.no_grad():
        wanted = (z @ quantizer.codebook.T).argmax(-1)
        for block in (64, 999, 1000, 4096):
            monkeypatch.setattr(quantizers, "_PRODUCTS", block * 1000)
            assert torch.equal(quantizer.quantize(z), wanted)
        for block in (1, 64):
            monkeypatch.setattr(quantizers, "_PRODUCTS", block * 1000)
            assert torch.equal(quantizer.quantize(z[0, 0, :2]), wanted[0, 0, :2])
            assert torch.equal(quantizer.quantize(z[0, 0, 0]), wanted[0, 0, 0])
        monkeypatch.setattr(quantizers, "_PRODUCTS", 64_000)
        quantizer.embedding.weight.round_()  # now many products are exactly equal
        products = (z.round() @ quantizer.codebook.T).numpy()
        assert np.array_equal(quantizer.quantize(z.round()).numpy(), products.argmax(-1))


def test_a_look_up_never_holds_a_row_for_each_position(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantizers, "_PRODUCTS", 256)
    quantizer = VectorQuantizer(200, 4)
    largest = 0

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.is_floating_point():
                largest = max(largest, result.numel())
            return result

    with torch.no_grad(), Watch():
        quantizer.quantize(torch.randn(100, 4))
    assert 16 * 16 <= largest < 100 * 200 / 10


@pytest.mark.parametrize(
    ("changes", "named", "hint"),
    [
        ({"_quantizer_name": "LFQuantizer"}, "'LFQuantizer'", "VQuantizer"),
        ({"_quantizer_name": "FSQuantizer"}, "'FSQuantizer'", "VQuantizer"),
        (
            {"block_out_channels": [32, 48]},
            r"block_out_channels can't be \[32, 48\]",
            "multiples of 32",
        ),
        (
            {"block_out_channels": []},
            r"block_out_channels can't be \[\]",
            "a list of whole numbers",
        ),
        ({"block_out_channels": "32"}, "block_out_channels can't be '32'", "a list"),
        ({"block_out_channels": [-32]}, "block_out_channels", "numbers from 1"),
        ({"layers_per_block": 0}, "layers_per_block can't be 0", "a whole number from 1"),
        ({"num_vq_embeddings": 40.5}, r"num_vq_embeddings can't be 40\.5", "a whole number"),
        ({"vq_embed_dim": True}, "vq_embed_dim can't be True", "a whole number"),
        ({"latent_channels": None}, "latent_channels can't be None", "a whole number"),
        ({"attn_up_block": 1}, "attn_up_block can't be 1", "true or false"),
        ({"spatial_stride": 16}, "its 3 stages make it 4", "config.json"),
        ({"temporal_stride": 4}, "temporal_stride can't be 4", "config.json"),
        ({"_class_name": "AutoencoderKL"}, "'AutoencoderKL'", "AutoencoderVQ"),
    ],
)
def test_configs_that_make_no_tokenizer_are_refused(
    changes: dict[str, Any], named: str, hint: str
) -> None:
    with pytest.raises(CheckpointError, match=named) as caught:
        build_visual_tokenizer({**CONFIG, **changes})
    assert hint in caught.value.hint


def test_an_unknown_class_names_the_known_ones() -> None:
    with pytest.raises(CheckpointError, match="'AutoencoderKL'") as caught:
        build_visual_tokenizer({"_class_name": "AutoencoderKL"})
    assert "AutoencoderVQCosmos3D" in caught.value.hint
    assert "AutoencoderVQ (images)" in caught.value.hint
    assert isinstance(build_visual_tokenizer(CONFIG), ImageTokenizer)
