"""FVD: distance of two sets of clips in the features of a network for actions.

The Fréchet distance of I3D's 400 logits (Unterthiner et al., 2018; Carreira and Zisserman, 2017)
on clips scaled to 224×224. Few clips make it large: compare only sets of one size.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ursa_core.evaluation.measures.weight_files import FVD
from ursa_core.media import Frames, to_video

MIN_FRAMES = 9
"""Smallest number: I3D has a temporal stride of 8 and averages windows of 2 after it."""
_SIDE_PX = 224

Shape = tuple[int, int, int]
Array = NDArray[np.float64]

_MIXED = {  # channels of each branch: 1×1, then 1×1 and 3×3, again, and behind a pool
    "3b": (192, 64, 96, 128, 16, 32, 32),
    "3c": (256, 128, 128, 192, 32, 96, 64),
    "4b": (480, 192, 96, 208, 16, 48, 64),
    "4c": (512, 160, 112, 224, 24, 64, 64),
    "4d": (512, 128, 128, 256, 24, 64, 64),
    "4e": (512, 112, 144, 288, 32, 64, 64),
    "4f": (528, 256, 160, 320, 32, 128, 128),
    "5b": (832, 256, 160, 320, 32, 128, 128),
    "5c": (832, 384, 192, 384, 48, 128, 128),
}
_POOL_BEFORE: dict[str, tuple[Shape, Shape]] = {
    "3b": ((1, 3, 3), (1, 2, 2)),
    "4b": ((3, 3, 3), (2, 2, 2)),
    "5b": ((2, 2, 2), (2, 2, 2)),
}


def _padded(x: Tensor, kernel: Shape, stride: Shape) -> Tensor:
    """Zeros around (B, C, T, H, W), the odd one behind, so that a stride s leaves ⌈n / s⌉."""
    sides: list[int] = []
    for size, width, step in zip(x.shape[2:], kernel, stride, strict=True):
        both = max(width - (size % step or step), 0)
        sides = [both // 2, both - both // 2, *sides]  # the last dimension comes first
    return functional.pad(x, sides)


def _pool(x: Tensor, kernel: Shape, stride: Shape) -> Tensor:
    return functional.max_pool3d(_padded(x, kernel, stride), kernel, stride)


class _Unit(nn.Module):
    """A convolution, its batch norm and a ReLU."""

    def __init__(
        self, num_in: int, num_out: int, kernel: Shape = (1, 1, 1), stride: Shape = (1, 1, 1)
    ) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.conv3d = nn.Conv3d(num_in, num_out, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(num_out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """Features of ``x``."""
        return functional.relu(self.bn(self.conv3d(_padded(x, self.kernel, self.stride))))


class _Mixed(nn.Module):
    """Four branches side by side."""

    def __init__(self, num_in: int, *widths: int) -> None:
        super().__init__()
        self.b0 = _Unit(num_in, widths[0])
        self.b1a, self.b1b = _Unit(num_in, widths[1]), _Unit(widths[1], widths[2], (3, 3, 3))
        self.b2a, self.b2b = _Unit(num_in, widths[3]), _Unit(widths[3], widths[4], (3, 3, 3))
        self.b3b = _Unit(num_in, widths[5])

    def forward(self, x: Tensor) -> Tensor:
        """Features of ``x``."""
        pooled = _pool(x, (3, 3, 3), (1, 1, 1))
        branches = [self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)]
        return torch.cat(branches, dim=1)


class I3D(nn.Module):
    """Inception-v1, inflated to clips; its weights are in ``weight_files.FVD``."""

    def __init__(self) -> None:
        super().__init__()
        # Names as in the published file.
        self.Conv3d_1a_7x7 = _Unit(3, 64, (7, 7, 7), (2, 2, 2))
        self.Conv3d_2b_1x1 = _Unit(64, 64)
        self.Conv3d_2c_3x3 = _Unit(64, 192, (3, 3, 3))
        for name, widths in _MIXED.items():
            self.add_module(f"Mixed_{name}", _Mixed(*widths))
        self.logits = nn.ModuleDict({"conv3d": nn.Conv3d(1024, 400, 1)})

    @staticmethod
    def load(device: torch.device) -> "I3D":
        """The network with its weights; raises `CheckpointError` where they are others."""
        made = I3D()
        FVD.load_into_(made)
        return made.eval().to(device)

    def forward(self, video: Tensor) -> Tensor:
        """Logits (B, 400), means over time, of clips (B, 3, T, 224, 224) in [-1, 1]."""
        x = _pool(self.Conv3d_1a_7x7(video), (1, 3, 3), (1, 2, 2))
        x = self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x))
        for name in _MIXED:
            if name in _POOL_BEFORE:
                x = _pool(x, *_POOL_BEFORE[name])
            x = self.get_submodule(f"Mixed_{name}")(x)
        x = functional.avg_pool3d(x, (2, 7, 7), stride=1)
        logits: Tensor = self.logits["conv3d"](x).mean((2, 3, 4))
        return logits

    @torch.inference_mode()
    def features(self, frames: Frames) -> Array:
        """Logits (400,) of a clip of ``MIN_FRAMES`` or more."""
        video = to_video(frames)[0].transpose(0, 1)
        size = (_SIDE_PX, _SIDE_PX)
        scaled = functional.interpolate(video, size, mode="bilinear", align_corners=False)
        place = next(self.parameters()).device
        logits = self(scaled.transpose(0, 1)[None].to(place))[0]
        return np.asarray(logits.double().cpu())


def frechet_distance(a: Sequence[Array], b: Sequence[Array]) -> float:
    """|μ_a − μ_b|² + tr A + tr B − 2 tr √(A B) of the means and covariances of two sets.

    Args:
        a: Vectors of one set, 2 or more.
        b: Vectors of the other set, 2 or more, of the same length.
    """
    x, y = np.stack(a), np.stack(b)
    far = float(np.square(x.mean(0) - y.mean(0)).sum())
    x, y = ((each - each.mean(0)) / np.sqrt(len(each) - 1) for each in (x, y))
    # With A = xᵀx and B = yᵀy, tr √(A B) is the nuclear norm of x yᵀ, which is that of the
    # triangles of x and y alone.
    r_x, r_y = np.linalg.qr(x)[1], np.linalg.qr(y)[1]
    shared = float(np.linalg.norm(r_x @ r_y.T, "nuc"))
    return max(0.0, far + float(np.square(x).sum() + np.square(y).sum()) - 2 * shared)
