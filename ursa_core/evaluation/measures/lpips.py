"""LPIPS: perceptual distance of two frames (Zhang et al., 2018).

Version 0.1 with AlexNet: differences of normalised features after each of its five convolutions,
weighted by the published heads, which come with torchmetrics.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from ursa_core.errors import ShapeError
from ursa_core.evaluation.measures.weight_files import LPIPS, read_tensors
from ursa_core.media import Frames, to_float

MIN_SIDE_PX = 31
"""Smallest side; below it nothing is left for the last convolutions."""
_CHUNK = 16
_EPSILON = 1e-8


class Lpips(nn.Module):
    """The distance of frames; its weights are in ``weight_files.LPIPS``."""

    def __init__(self) -> None:
        super().__init__()
        # AlexNet's convolutions, numbered as in its file: ReLUs and pools lie between them.
        self.features = nn.ModuleDict(
            {
                "0": nn.Conv2d(3, 64, 11, stride=4, padding=2),
                "3": nn.Conv2d(64, 192, 5, padding=2),
                "6": nn.Conv2d(192, 384, 3, padding=1),
                "8": nn.Conv2d(384, 256, 3, padding=1),
                "10": nn.Conv2d(256, 256, 3, padding=1),
            }
        )
        self.shift = torch.tensor((-0.030, -0.088, -0.188))[:, None, None]
        self.scale = torch.tensor((0.458, 0.448, 0.450))[:, None, None]
        self.heads: list[Tensor] = []

    @staticmethod
    def load(device: torch.device) -> "Lpips":
        """The network with its weights; raises `CheckpointError` where they are others."""
        from torchmetrics.functional.image import lpips

        made = Lpips()
        LPIPS.load_into_(made)
        file = Path(str(lpips.__file__)).parent / "lpips_models" / "alex.pth"
        tensors = read_tensors(file, "install torchmetrics again")
        made.heads = [tensors[f"lin{k}.model.1.weight"].to(device) for k in range(5)]
        made.shift, made.scale = made.shift.to(device), made.scale.to(device)
        return made.eval().to(device)

    @torch.inference_mode()
    def distance(self, a: Frames, b: Frames) -> float:
        """Mean distance of the frames of two clips of one shape; 0 is none."""
        if min(a.shape[1:3]) < MIN_SIDE_PX:
            raise ShapeError(
                f"frames of {a.shape[1]}x{a.shape[2]} are too small for LPIPS",
                f"compare frames of at least {MIN_SIDE_PX}x{MIN_SIDE_PX} pixels",
            )
        chunks = (slice(at, at + _CHUNK) for at in range(0, len(a), _CHUNK))
        images = (((to_float(each[at]).permute(0, 3, 1, 2)) for each in (a, b)) for at in chunks)
        return float(torch.cat([self(*pair) for pair in images]).mean())

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances (B,) of images (B, 3, H, W) in [-1, 1]."""
        pairs = zip(self._layers(a), self._layers(b), self.heads, strict=True)
        distances = [((x - y).square() * head).sum(1).mean((1, 2)) for x, y, head in pairs]
        return torch.stack(distances).sum(0)

    def _layers(self, images: Tensor) -> list[Tensor]:
        """Features after each convolution, of length 1 at each place."""
        x = (images.to(self.shift) - self.shift) / self.scale
        found = []
        for name, convolution in self.features.items():
            if name in ("3", "6"):
                x = functional.max_pool2d(x, 3, stride=2)
            x = functional.relu(convolution(x))
            found.append(x / (x.square().sum(1, keepdim=True) + _EPSILON).sqrt())
        return found
