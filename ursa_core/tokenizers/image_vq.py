"""Image autoencoder with a learned codebook: each frame becomes a grid of codes, and back.

Architecture and weight names are those of the published checkpoints (``AutoencoderVQ``, with a
codebook trained as IBQ). Frames don't interact: inside, they are a batch of images.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F  # noqa: N812  (the field's name for it)
from torch import Tensor, nn

from ursa_core.configs import Switch, Whole, Wholes, read_config, unusable
from ursa_core.errors import CheckpointError
from ursa_core.tokenizers.quantizers import PixelTokenizer, VectorQuantizer

NORM_GROUPS = 32


@dataclass(frozen=True)
class ImageTokenizerConfig:
    """Widths and codebook of an image tokenizer; field names are those of the published config."""

    block_out_channels: Wholes = (128, 256, 512, 512)  # of each stage; multiples of 32
    layers_per_block: Whole = 2  # residual blocks per encoder stage; the decoder has one more
    latent_channels: Whole = 16  # width between network and quantizer
    num_vq_embeddings: Whole = 16_384  # number of codes K
    vq_embed_dim: Whole = 8  # width C of a code's vector
    attn_down_block: Switch = False  # attention after each block of the encoder's last stage
    attn_up_block: Switch = False  # attention after each block of the decoder's first stage

    # Further keys of a video tokenizer's config: one frame per latent frame, no FSQ.
    temporal_stride: ClassVar[int] = 1
    levels: ClassVar[tuple[int, ...]] = ()

    @property
    def spatial_stride(self) -> int:
        """Pixels per code in height and width."""
        return 1 << (len(self.block_out_channels) - 1)

    @classmethod
    def from_json(cls, config: dict[str, Any]) -> "ImageTokenizerConfig":
        """Read a ``vae/config.json``; CheckpointError for another quantizer or an unfit value."""
        file, quantizer = "vae/config.json", config.get("_quantizer_name", "VQuantizer")
        if quantizer != "VQuantizer":
            fault = f"{file} has the quantizer {quantizer!r} in an image tokenizer"
            raise CheckpointError(fault, "this version reads VQuantizer there")
        read = read_config(cls, config, file)
        widths = list(read.block_out_channels)
        if any(width % NORM_GROUPS for width in widths):
            raise unusable(file, "block_out_channels", widths, f"multiples of {NORM_GROUPS}")
        for key, made in (("spatial_stride", read.spatial_stride), ("temporal_stride", 1)):
            if config.get(key, made) != made:
                raise CheckpointError(
                    f"{file}: {key} can't be {config[key]!r},"
                    f" its {len(read.block_out_channels)} stages make it {made}",
                    "use the config.json that belongs to these weights",
                )
        return read


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(NORM_GROUPS, width, eps=1e-6)


class Attention(nn.Module):
    """Single-head attention of an image's cells, after a norm and added to its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.group_norm = _norm(width)
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor) -> Tensor:
        cells = self.group_norm(x).flatten(2).transpose(1, 2)
        q, k, v = (f(cells).unsqueeze(1) for f in (self.to_q, self.to_k, self.to_v))
        y = self.to_out[0](F.scaled_dot_product_attention(q, k, v).squeeze(1))
        return x + y.transpose(1, 2).reshape(x.shape)


class ResidualBlock(nn.Module):
    """Norm, SiLU, 3×3 convolution, twice, added to a shortcut."""

    def __init__(self, width: int, out_width: int) -> None:
        super().__init__()
        self.norm1 = _norm(width)
        self.conv1 = nn.Conv2d(width, out_width, 3, padding=1)
        self.norm2 = _norm(out_width)
        self.conv2 = nn.Conv2d(out_width, out_width, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(width, out_width, 1) if width != out_width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        return self.conv_shortcut(x) + self.conv2(F.silu(self.norm2(y)))


def _downsample(width: int) -> nn.Sequential:
    """Halve height and width; zeros are put right and below."""
    conv = nn.Conv2d(width, width, 3, stride=2)
    return nn.Sequential(OrderedDict(pad=nn.ZeroPad2d((0, 1, 0, 1)), conv=conv))


def _upsample(width: int) -> nn.Sequential:
    """Double height and width by repeating, then a 3×3 convolution."""
    conv = nn.Conv2d(width, width, 3, padding=1)
    return nn.Sequential(OrderedDict(repeat=nn.Upsample(scale_factor=2.0), conv=conv))


class Stage(nn.Module):
    """Residual blocks at one resolution, optionally with attention, then an optional resize."""

    def __init__(
        self, width: int, out_width: int, depth: int, attends: bool, down: bool, up: bool
    ) -> None:
        super().__init__()
        ins, num_attending = [width, *[out_width] * (depth - 1)], depth if attends else 0
        self.resnets = nn.ModuleList(ResidualBlock(each, out_width) for each in ins)
        self.attentions = nn.ModuleList(Attention(out_width) for _ in range(num_attending))
        self.downsamplers = nn.Sequential(*[_downsample(out_width)] if down else [])
        self.upsamplers = nn.Sequential(*[_upsample(out_width)] if up else [])

    def forward(self, x: Tensor) -> Tensor:
        for i, block in enumerate(self.resnets):
            x = block(x)
            if self.attentions:
                x = self.attentions[i](x)
        return self.upsamplers(self.downsamplers(x))


def _stages(widths: tuple[int, ...], depth: int, attends: bool, *, up: bool) -> nn.Sequential:
    """A stage per width, the coarsest one with attention; a resize follows all but the last."""
    stages, last = [], len(widths) - 1
    for i, width in enumerate(widths):
        has_attention = attends and i == (0 if up else last)
        resizes = (i < last and not up, i < last and up)
        stages.append(Stage(widths[max(i - 1, 0)], width, depth, has_attention, *resizes))
    return nn.Sequential(*stages)


class Middle(nn.Module):
    """Residual block, attention, residual block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResidualBlock(width, width) for _ in range(2))
        self.attentions = nn.ModuleList([Attention(width)])

    def forward(self, x: Tensor) -> Tensor:
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class Encoder(nn.Module):
    """Images (B, 3, H, W) to latents (B, latent_channels, h, w)."""

    def __init__(self, config: ImageTokenizerConfig) -> None:
        super().__init__()
        widths = config.block_out_channels
        depth, attends = config.layers_per_block, config.attn_down_block
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        self.down_blocks = _stages(widths, depth, attends, up=False)
        self.mid_block = Middle(widths[-1])
        self.conv_norm_out = _norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for stage in self.down_blocks:  # in a loop, which lets go of the largest map
            x = stage(x)
        return self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))


class Decoder(nn.Sequential):
    """Latents (B, latent_channels, h, w) to images (B, 3, H, W)."""

    def __init__(self, config: ImageTokenizerConfig) -> None:
        super().__init__()
        widths = config.block_out_channels[::-1]
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.mid_block = Middle(widths[0])
        depth, attends = config.layers_per_block + 1, config.attn_up_block
        self.up_blocks = _stages(widths, depth, attends, up=True)
        self.conv_norm_out = _norm(widths[-1])
        self.activation = nn.SiLU()
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)


class ImageTokenizer(PixelTokenizer):
    """Images to codes and back; a clip is a batch of images."""

    def __init__(self, config: ImageTokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv2d(config.latent_channels, config.vq_embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(config.vq_embed_dim, config.latent_channels, 1)
        self.quantizer = VectorQuantizer(config.num_vq_embeddings, config.vq_embed_dim)

    def encode(self, video: Tensor) -> Tensor:
        """Codes (B, F, h, w) int64 of clips (B, 3, F, H, W) in [-1, 1]; ShapeError if unfit."""
        self.check_pixels(video, "an image")
        latents = self.quant_conv(self.encoder(video.transpose(1, 2).flatten(0, 1)))
        codes = self.quantizer.quantize(latents.permute(0, 2, 3, 1))
        return codes.unflatten(0, (-1, video.shape[2]))

    def decode(self, codes: Tensor) -> Tensor:
        """Images or clips (B, 3, F, H, W), about [-1, 1], of codes (B, F, h, w) int64."""
        vectors = self.quantizer.vectors(codes.flatten(0, 1)).permute(0, 3, 1, 2)
        images = self.decoder(self.post_quant_conv(vectors))
        return images.unflatten(0, (-1, codes.shape[1])).transpose(1, 2)

    def decode_slices(self, codes: Tensor, size: int) -> Iterator[Tensor]:
        """The same in slices of at most ``size`` frames, for less memory."""
        yield from map(self.decode, codes.split(size, 1))
