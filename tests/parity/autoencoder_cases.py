"""Small autoencoders of unusual shapes whose weights and clips follow from a formula.

`make_autoencoder_cases.py` runs the reference implementation on them, `test_autoencoder_parity.py`
ours. Whole numbers make the values the same on every machine, so that no weights are stored.
"""

import math
import zlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Case:
    """A `vae/config.json`, and the shape (frames, height, width) of a clip that it encodes."""

    config: dict[str, Any]
    shape: tuple[int, int, int]
    salt: int = 0


def _video(widths: list[int], shape: tuple[int, int, int], salt: int = 0, **changes: int) -> Case:
    config = {
        "_class_name": "AutoencoderVQCosmos3D",
        "block_out_channels": widths,
        "layers_per_block": 1,
        "latent_channels": 6,
        "spatial_stride": 8,
        "temporal_stride": 4,
        "patch_size": 4,
        **changes,
    }
    return Case(config, shape, salt)


def _image(widths: list[int], shape: tuple[int, int, int], salt: int = 0, **changes: int) -> Case:
    config = {
        "_class_name": "AutoencoderVQ",
        "block_out_channels": widths,
        "layers_per_block": 1,
        "latent_channels": 6,
        "spatial_stride": 2 ** (len(widths) - 1),
        **changes,
    }
    return Case(config, shape, salt)


CASES = {
    "video_widths": _video([8, 16, 24, 12], (5, 24, 40), layers_per_block=2),
    "video_image": _video([8, 8, 8, 8], (1, 8, 24)),
    "video_spatial_16": _video([8, 12, 8, 16], (9, 48, 16), spatial_stride=16),
    "video_both_double": _video([8, 8, 12, 8], (17, 16, 32), spatial_stride=16, temporal_stride=8),
    "video_patch_2": _video([8, 8, 8, 8], (5, 24, 8), patch_size=2),
    "image_plain": _image([32, 64, 32], (1, 20, 36), num_vq_embeddings=100, vq_embed_dim=5),
    "image_attention": _image(
        [32, 32, 64, 64],
        (1, 40, 24),
        layers_per_block=2,
        num_vq_embeddings=5_000,
        vq_embed_dim=7,
        attn_down_block=True,
        attn_up_block=True,
    ),
}


def scatter(name: str, count: int) -> Tensor:
    """Numbers float32 (count,) in [-1, 1), spread as at random; a name has numbers of its own."""
    x = torch.arange(count, dtype=torch.int64) * 2_654_435_761 + zlib.crc32(name.encode())
    for factor in (2_246_822_519, 3_266_489_917):  # keeps products below 2^63
        x = ((x ^ (x >> 15)) & 0x7FFF_FFFF) * factor
    return ((x >> 12) & 0xFFFF).float() / 2**15 - 1


def weight(name: str, shape: torch.Size | list[int], salt: int) -> Tensor:
    """A weight of that name by formula."""
    numbers = scatter(f"{salt}.{name}", math.prod(shape)).view(shape)
    if len(shape) == 1:  # gains of norms are about 1, biases about 0
        is_gain = "norm" in name and name.endswith("weight")
        return 0.2 * numbers + is_gain
    gain = 4.0 if name.startswith("quant_conv") else 1.0
    return numbers * gain * math.sqrt(3 / numbers[0].numel())


@torch.no_grad()
def fill_(model: nn.Module, salt: int) -> None:
    """Set the weights of a model, whose names are those of a checkpoint, by formula."""
    for name, value in model.named_parameters():
        value.copy_(weight(name, value.shape, salt))


def clip(shape: tuple[int, int, int], salt: int) -> Tensor:
    """A clip (1, 3, F, H, W) of a shape (F, H, W), in [-1, 1)."""
    return scatter(f"{salt}.clip", 3 * math.prod(shape)).view(1, 3, *shape)
