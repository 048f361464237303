"""Causal 3D FSQ video autoencoder: 1 + sk frames become 1 + k grids of codes, and back.

Architecture and weight names are those of the published checkpoints (``AutoencoderVQCosmos3D``).
Inside, a clip is (B, T, C, H, W), with a pixel's channels adjacent in memory: frames fold into the
batch for 2D convolutions over space, and those over time are 2D over frames and pixels.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from threading import RLock
from typing import Annotated, Any

import torch
import torch.nn.functional as F  # noqa: N812  (the field's name for it)
from torch import Tensor, nn

from ursa_core import configs
from ursa_core.configs import MAX_CODES, PUBLISHED_LEVELS, Levels, Switch, Whole, Wholes, unusable
from ursa_core.errors import CheckpointError
from ursa_core.tokenizers.quantizers import FiniteScalarQuantizer, PixelTokenizer


@dataclass(frozen=True)
class VideoTokenizerConfig:
    """Widths, strides and codes of a video tokenizer, named as in the published config."""

    block_out_channels: Wholes = (128, 256, 512, 512)  # after the input, then of each stage
    layers_per_block: Whole = 2  # residual blocks per encoder stage; the decoder has one more
    latent_channels: Whole = 16  # width between network and quantizer
    levels: Levels = PUBLISHED_LEVELS  # FSQ levels, first one fastest
    spatial_stride: Whole = 8  # pixels per code in height and width; a power of two
    temporal_stride: Whole = 4  # frames per latent frame after the first; a power of two
    patch_size: Whole = 4  # height and width of the Haar patches in pixels
    # Whether attention over time is masked, so that codes never depend on later frames; the
    # published URSA checkpoints have no mask.
    causal: Switch = False
    temporal_patch_size: Annotated[int, configs.whole(0)] = 0  # frames of a patch; 0: patch_size

    def __post_init__(self) -> None:
        """Fill in the frames of a patch, so that equal networks have equal configs."""
        frames = self.temporal_patch_size or self.patch_size
        object.__setattr__(self, "temporal_patch_size", frames)

    def to_json(self) -> dict[str, Any]:
        """The published ``vae/config.json``, with our additions (levels, causal, patch frames)."""
        stages = len(self.block_out_channels) - 1
        own = asdict(self)
        if self.temporal_patch_size == self.patch_size:
            del own["temporal_patch_size"]
        return {
            "_class_name": configs.VIDEO_CLASS,
            "_quantizer_name": "FSQuantizer",
            "act_fn": "silu",
            "in_channels": 3,
            "out_channels": 3,
            "norm_num_groups": 1,
            "num_vq_embeddings": FiniteScalarQuantizer(list(self.levels)).num_codes,
            "vq_embed_dim": len(self.levels),
            "down_block_types": ["DownEncoderBlock3D"] * stages,
            "up_block_types": ["UpDecoderBlock3D"] * stages,
            **{name: list(v) if isinstance(v, tuple) else v for name, v in own.items()},
        }

    @classmethod
    def from_json(cls, config: dict[str, Any]) -> "VideoTokenizerConfig":
        """Read a ``vae/config.json``; CheckpointError for values that no such network has."""
        file = "vae/config.json"
        read = configs.read_config(cls, config, file)
        patch, widths = read.patch_size, read.block_out_channels
        if read.temporal_patch_size > patch:
            expected = f"at most the patch_size {patch}"
            raise unusable(file, "temporal_patch_size", read.temporal_patch_size, expected)
        frames_key = "temporal_patch_size" if "temporal_patch_size" in config else "patch_size"
        for key, size, stride_key, stride in (
            ("patch_size", patch, "spatial_stride", read.spatial_stride),
            (frames_key, read.temporal_patch_size, "temporal_stride", read.temporal_stride),
        ):
            if size & (size - 1):
                raise unusable(file, key, size, "a power of 2")
            patches, rest = divmod(stride, size)
            if rest or patches & (patches - 1):
                raise unusable(file, stride_key, stride, f"a power of 2 from the {key} {size}")
        temporal, spatial = read.resizes
        if temporal > spatial:
            expected = f"at most {read.temporal_patch_size << spatial}"
            raise unusable(file, "temporal_stride", read.temporal_stride, expected)
        least = spatial + 2
        if len(widths) < least:
            expected = f"{least} widths or more, for spatial_stride {read.spatial_stride}"
            raise unusable(file, "block_out_channels", list(widths), expected)
        num_codes, levels = math.prod(read.levels), list(read.levels)
        if num_codes > MAX_CODES:
            raise unusable(file, "levels", levels, f"levels that make {MAX_CODES} codes or less")
        if config.get("num_vq_embeddings", num_codes) != num_codes:
            raise CheckpointError(
                f"{file} has {config['num_vq_embeddings']!r} codes,"
                f" but its FSQ levels {levels} make {num_codes}",
                "add the right `levels` to vae/config.json",
            )
        return read

    @property
    def resizes(self) -> tuple[int, int]:
        """Halvings in time and in space between patches and codes."""
        temporal = self.temporal_stride // self.temporal_patch_size
        spatial = self.spatial_stride // self.patch_size
        return temporal.bit_length() - 1, spatial.bit_length() - 1

    @property
    def patch_channels(self) -> int:
        """Channels of a Haar patch."""
        return 3 * self.temporal_patch_size * self.patch_size**2

    @property
    def patch_dims(self) -> list[tuple[int, ...]]:
        """Dimensions of (B, T, C, H, W) that each Haar split of a patch halves, first one first.

        Time is first, so that shorter patches have the channels of longer ones' slow change.
        """
        spatial, temporal = self.patch_size.bit_length(), self.temporal_patch_size.bit_length()
        return [(1, 3, 4) if i < temporal else (3, 4) for i in range(1, spatial)]


def haar_split(x: Tensor, dims: Iterable[int] = (1, 3, 4)) -> Tensor:
    """Half-size bands of a clip: (B, T, C, H, W) to (B, T/2, 8C, H/2, W/2), or as ``dims`` say."""
    bands = [x]
    for dim in dims:
        pairs = [b.unfold(dim, 2, 2).unbind(-1) for b in bands]
        bands = [half for a, b in pairs for half in ((a + b) / 2, (a - b) / 2)]
    return torch.cat(bands, 2)


def haar_join(x: Tensor, dims: Sequence[int] = (1, 3, 4)) -> Tensor:
    """Inverse of ``haar_split``."""
    bands = list(x.chunk(2 ** len(dims), 2))
    for dim in reversed(dims):
        pairs = zip(bands[::2], bands[1::2], strict=True)
        stacked = (torch.stack((low + high, low - high), dim + 1) for low, high in pairs)
        bands = [each.flatten(dim, dim + 1) for each in stacked]
    return bands[0]


class SpaceConv(nn.Module):
    """Convolution of each frame, k×k, weights in the 3D shape (out, in, 1, k, k)."""

    def __init__(self, width: int, out_width: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_width, width, 1, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(out_width))
        self.stride = stride
        self.padding = kernel // 2 if stride == 1 else 0
        # Unit gain keeps the latents' spread; the biases keep flat frames apart, whose level the
        # frame norms would otherwise take away.
        if not self.weight.is_meta:  # drawing on the meta device imports all of torch.compile
            nn.init.normal_(self.weight, 0, (width * kernel**2) ** -0.5)
            nn.init.uniform_(self.bias, -0.3, 0.3)

    def forward(self, x: Tensor) -> Tensor:
        frames = x.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        y = F.conv2d(frames, self.weight.squeeze(2), self.bias, self.stride, self.padding)
        return y.unflatten(0, (x.shape[0], -1))


class Streamed(nn.Module):
    """A part whose output depends on earlier frames."""

    # Within `slice_by_slice` the last frames of the slice before, empty for the first.
    past: list[Tensor] | None = None


_STREAMING = RLock()


@contextmanager
def slice_by_slice(module: nn.Module) -> Iterator[None]:
    """Make a module take a clip in slices of frames, one call each, as if it saw it whole."""
    parts = [part for part in module.modules() if isinstance(part, Streamed)]
    with _STREAMING:  # what went before is kept in the module, which threads share
        try:
            for part in parts:
                part.past = []
            yield
        finally:
            for part in parts:
                part.past = None


class TimeConv(Streamed):
    """Causal convolution over three frames at each pixel, weights (out, in, 3, 1, 1).

    Starts as the identity. The first frame is repeated in front. Only stride 1 runs in slices.
    """

    def __init__(self, width: int, stride: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width, width, 3, 1, 1))
        self.bias = nn.Parameter(torch.zeros(width))
        self.stride = stride
        with torch.no_grad():
            self.weight[:, :, 2, 0, 0].fill_diagonal_(1.0)

    def forward(self, x: Tensor) -> Tensor:
        x = x.movedim(2, -1)
        front = self.past.pop() if self.past else x[:, :1].expand(-1, 3 - self.stride, -1, -1, -1)
        x = torch.cat([front, x], 1)
        if self.past is not None:
            self.past.append(x[:, -2:].clone())
        by_pixel = x.flatten(2, 3).movedim(-1, 1)
        y = F.conv2d(by_pixel, self.weight.squeeze(-1), self.bias, (self.stride, 1))
        return y.transpose(1, 2).unflatten(3, x.shape[2:4])


class FrameNorm(nn.GroupNorm):
    """Group norm with one group, over channels and pixels of each frame."""

    def __init__(self, width: int) -> None:
        super().__init__(1, width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def conv_pair(width: int, out_width: int) -> nn.Sequential:
    """A 3×3 convolution of each frame, then a causal one over three frames."""
    return nn.Sequential(SpaceConv(width, out_width, 3), TimeConv(out_width))


class Attention(nn.Module):
    """Single-head attention over the pixels of a frame, or over the frames of a pixel."""

    def __init__(self, width: int, over_time: bool, causal: bool) -> None:
        super().__init__()
        self.group_norm = FrameNorm(width)
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])
        self.over_time, self.causal = over_time, over_time and causal

    def forward(self, x: Tensor) -> Tensor:
        b, t, _, h, w = x.shape
        y = self.group_norm(x)
        if self.over_time:
            y = y.permute(0, 3, 4, 1, 2).flatten(0, 2)
        else:
            y = y.flatten(0, 1).flatten(2).transpose(1, 2)
        q, k, v = (f(y).unsqueeze(1) for f in (self.to_q, self.to_k, self.to_v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal).squeeze(1)
        y = self.to_out[0](y)
        if self.over_time:
            return x + y.unflatten(0, (b, h, w)).permute(0, 3, 4, 1, 2)
        return x + y.transpose(1, 2).unflatten(2, (h, w)).unflatten(0, (b, t))


class ResidualBlock(nn.Module):
    """Norm, SiLU, convolution pair, twice, added to a shortcut."""

    def __init__(self, width: int, out_width: int) -> None:
        super().__init__()
        self.norm1 = FrameNorm(width)
        self.conv1 = conv_pair(width, out_width)
        self.norm2 = FrameNorm(out_width)
        self.conv2 = conv_pair(out_width, out_width)
        self.conv_shortcut = SpaceConv(width, out_width, 1) if width != out_width else nn.Identity()
        with torch.no_grad():
            self.conv2[-1].get_parameter("weight").zero_()  # a fresh block passes its input on

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        return self.conv_shortcut(x) + self.conv2(F.silu(self.norm2(y)))


class Downsample(nn.Module):
    """Halve height and width, and with ``temporal`` frames too."""

    def __init__(self, width: int, temporal: bool) -> None:
        super().__init__()
        self.conv1 = SpaceConv(width, width, 3, stride=2)
        self.conv2 = TimeConv(width, stride=2) if temporal else nn.Identity()
        self.conv3 = SpaceConv(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean = F.avg_pool2d(x.flatten(0, 1), 2).unflatten(0, x.shape[:2])
        x = self.conv1(F.pad(x, (0, 1, 0, 1))) + mean
        if isinstance(self.conv2, TimeConv):
            x = torch.cat([x[:, :1], x], 1)
            x = self.conv2(x) + (x[:, ::2] + x[:, 1::2]) / 2
        return self.conv3(x)


class Upsample(Streamed):
    """Double height and width, and with ``temporal`` all frames but the first."""

    def __init__(self, width: int, temporal: bool) -> None:
        super().__init__()
        self.conv1 = TimeConv(width) if temporal else nn.Identity()
        self.conv2 = SpaceConv(width, width, 3)
        self.conv3 = SpaceConv(width, width, 1)
        nn.init.zeros_(self.conv2.weight)  # it is added to its input
        if isinstance(self.conv1, TimeConv):
            nn.init.zeros_(self.conv1.weight)

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.conv1, TimeConv):
            x = x.repeat_interleave(2, 1)
            if not self.past:
                x = x[:, 1:]
            if self.past is not None:
                self.past = [x[:, -1:].clone()]
            x = self.conv1(x) + x
        x = F.interpolate(x.flatten(0, 1), scale_factor=2.0).unflatten(0, x.shape[:2])
        return self.conv3(self.conv2(x) + x)


class Stage(nn.Sequential):
    """Residual blocks at one resolution, then at most one change of resolution."""

    def __init__(
        self, widths: tuple[int, int], depth: int, resize: nn.Module | None, up: bool
    ) -> None:
        super().__init__()
        ins = [widths[0], *[widths[1]] * (depth - 1)]
        self.resnets = nn.Sequential(*[ResidualBlock(width, widths[1]) for width in ins])
        resizes = nn.Sequential(*([] if resize is None else [resize]))
        self.add_module("upsamplers" if up else "downsamplers", resizes)


class Middle(nn.Module):
    """Residual block, attention over space and time, residual block."""

    def __init__(self, width: int, causal: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResidualBlock(width, width) for _ in range(2))
        pair = nn.Sequential(Attention(width, False, causal), Attention(width, True, causal))
        self.attentions = nn.ModuleList([pair])

    def forward(self, x: Tensor) -> Tensor:
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class Encoder(nn.Module):
    """Pixels (B, F, 3, H, W) to latents (B, f, latent_channels, h, w)."""

    def __init__(self, config: VideoTokenizerConfig) -> None:
        super().__init__()
        widths = config.block_out_channels
        temporal, spatial = config.resizes
        self.patch_frames, self.patch_dims = config.temporal_patch_size, config.patch_dims
        self.conv_in = conv_pair(config.patch_channels, widths[0])
        self.down_blocks = nn.Sequential()
        for i, pair in enumerate(itertools.pairwise(widths)):
            halves = i < min(spatial, len(widths) - 2)
            resize = Downsample(pair[1], i < temporal) if halves else None
            self.down_blocks.append(Stage(pair, config.layers_per_block, resize, up=False))
        self.mid_block = Middle(widths[-1], config.causal)
        self.conv_norm_out = FrameNorm(widths[-1])
        self.conv_out = conv_pair(widths[-1], config.latent_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x[:, :1].expand(-1, self.patch_frames - 1, -1, -1, -1), x], 1)
        for dims in self.patch_dims:
            x = haar_split(x, dims)
        x = self.conv_in(x)
        for stage in self.down_blocks:  # in a loop, which lets go of the largest map
            x = stage(x)
        return self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))


class Decoder(nn.Module):
    """Latents (B, f, latent_channels, h, w) to pixels (B, F, 3, H, W)."""

    def __init__(self, config: VideoTokenizerConfig) -> None:
        super().__init__()
        widths = config.block_out_channels[::-1]
        temporal, spatial = config.resizes
        self.patch_frames, self.patch_dims = config.temporal_patch_size, config.patch_dims
        self.conv_in = conv_pair(config.latent_channels, widths[0])
        self.mid_block = Middle(widths[0], config.causal)
        self.up_blocks = nn.Sequential()
        for i, width in enumerate(widths[:-1]):
            in_time = 0 < i <= temporal
            in_space = in_time or (spatial > temporal and i < spatial)
            resize = Upsample(width, in_time) if in_space and i < len(widths) - 2 else None
            pair = (widths[max(i - 1, 0)], width)
            self.up_blocks.append(Stage(pair, config.layers_per_block + 1, resize, up=True))
        self.conv_norm_out = FrameNorm(widths[-2])
        self.conv_out = conv_pair(widths[-2], config.patch_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.upwards(self.mid_block(self.conv_in(x)))[:, self.patch_frames - 1 :]

    def upwards(self, x: Tensor) -> Tensor:
        """From the middle to pixels, where no frame sees a later one; patch_frames - 1 in front."""
        x = self.conv_out(F.silu(self.conv_norm_out(self.up_blocks(x))))
        for dims in reversed(self.patch_dims):
            x = haar_join(x, dims)
        return x

    def slices(self, x: Tensor, size: int) -> Iterator[Tensor]:
        """The pixels of ``forward`` in slices of at most ``size`` latent frames."""
        with slice_by_slice(self.up_blocks), slice_by_slice(self.conv_out):
            # The middle sees all frames at once, at the latents' resolution.
            for i, part in enumerate(self.mid_block(self.conv_in(x)).split(size, 1)):
                y = self.upwards(part)
                yield y[:, self.patch_frames - 1 :] if i == 0 else y


class VideoTokenizer(PixelTokenizer):
    """Video to codes and back."""

    config: VideoTokenizerConfig
    quantizer: FiniteScalarQuantizer

    def __init__(self, config: VideoTokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = SpaceConv(config.latent_channels, len(config.levels), 1)
        self.post_quant_conv = SpaceConv(len(config.levels), config.latent_channels, 1)
        self.quantizer = FiniteScalarQuantizer(list(config.levels))
        with torch.no_grad():  # spread a fresh encoder's latents over the levels
            self.quant_conv.weight.mul_(4.0)
            self.decoder.conv_out[0].get_parameter("weight").mul_(0.3)

    def latents(self, video: Tensor) -> Tensor:
        """Latents (B, f, h, w, C) of video (B, 3, F, H, W) in [-1, 1]; ShapeError if unfit."""
        self.check_pixels(video, "a video")
        return self.quant_conv(self.encoder(video.transpose(1, 2))).permute(0, 1, 3, 4, 2)

    def reconstruct(self, vectors: Tensor) -> Tensor:
        """Video (B, 3, F, H, W), about [-1, 1], of code vectors (B, f, h, w, C)."""
        x = self.post_quant_conv(vectors.permute(0, 1, 4, 2, 3).to(self.post_quant_conv.bias.dtype))
        return self.decoder(x).transpose(1, 2)

    def encode(self, video: Tensor) -> Tensor:
        """Codes (B, f, h, w) int64 of video (B, 3, F, H, W) in [-1, 1]."""
        return self.quantizer.quantize(self.latents(video))

    def decode(self, codes: Tensor) -> Tensor:
        """Video (B, 3, F, H, W), about [-1, 1], of codes (B, f, h, w) int64."""
        return self.reconstruct(self.quantizer.vectors(codes))

    def decode_slices(self, codes: Tensor, size: int) -> Iterator[Tensor]:
        """The same video in slices of at most ``size`` latent frames, for less memory.

        Nothing but the middle at the latents' resolution sees later frames, so no seam shows.
        """
        vectors = self.quantizer.vectors(codes).permute(0, 1, 4, 2, 3)
        x = self.post_quant_conv(vectors.to(self.post_quant_conv.bias.dtype))
        for part in self.decoder.slices(x, size):
            yield part.transpose(1, 2)

    def forward(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruction and latents (B, f, h, w, C), gradients straight through the rounding."""
        latents = self.latents(video)
        return self.reconstruct(self.quantizer.straight_through(latents)), latents
