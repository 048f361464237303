"""Run the reference's autoencoders on `autoencoder_cases.py` (how: tests/golden/README.md).

python make_autoencoder_cases.py REFERENCE OUT.safetensors
"""

import importlib
import sys
import types
from pathlib import Path

import torch
from autoencoder_cases import CASES, Case, clip, fill_
from safetensors.torch import save_file

MODULES = {
    "AutoencoderVQCosmos3D": "autoencoder_vq_cosmos3d",
    "AutoencoderVQ": "autoencoder_vq",
}
PACKAGE = "diffnext.models.autoencoders"
MARGIN = 1e-4
"""Latents nearer than this to a change of code would make the codes depend on the machine."""


def reference_class(checkout: Path, name: str) -> type[torch.nn.Module]:
    """A class of the reference, its packages' own imports (which need CUDA) left out."""
    parts = PACKAGE.split(".")
    for k in range(len(parts)):
        package = types.ModuleType(".".join(parts[: k + 1]))
        package.__path__ = [str(checkout.joinpath(*parts[: k + 1]))]
        sys.modules.setdefault(package.__name__, package)
    found = getattr(importlib.import_module(f"{PACKAGE}.{MODULES[name]}"), name)
    assert issubclass(found, torch.nn.Module)
    return found


def margin(model: torch.nn.Module, z: torch.Tensor) -> float:
    """How far the latents (1, C, ...) are from other codes."""
    z = z.movedim(1, -1)
    if hasattr(model.quantizer, "embedding"):
        best = (z @ model.quantizer.embedding.weight.T).topk(2).values
        return float((best[..., 0] - best[..., 1]).min())
    bounded = model.quantizer.bound(z)
    return float((0.5 - (bounded - bounded.round()).abs()).min())


@torch.no_grad()
def outputs(checkout: Path, case: Case) -> dict[str, torch.Tensor]:
    """Codes int32 (F, h, w) and decoded pixels float16 (3, F, H, W) of the reference."""
    config = {k: v for k, v in case.config.items() if k != "_class_name"}
    if case.config["_class_name"] == "AutoencoderVQCosmos3D":
        config["sample_frames"] = case.shape[0]  # one tile
    model = reference_class(checkout, case.config["_class_name"])(**config).eval()
    fill_(model, case.salt)
    video = clip(case.shape, case.salt)
    x = video if "sample_frames" in config else video[:, :, 0]
    codes = model.encode(x).latent_dist.parameters
    decoded = model.decode(codes).sample
    away = margin(model, model.quant_conv(model.encoder(x)))
    print(f"{codes.unique().numel()} of {codes.numel()} codes differ, margin {away:.1e}")
    assert away > MARGIN, "change the salt"
    grid = codes.reshape(-1, *codes.shape[-2:])
    return {"codes": grid.int(), "decoded": decoded.reshape(video.shape[1:]).half()}


if __name__ == "__main__":
    checkout, out = map(Path, sys.argv[1:])
    found = {}
    for name, case in CASES.items():
        print(name, end=": ")
        found |= {f"{name}.{key}": value for key, value in outputs(checkout, case).items()}
    save_file({key: value.contiguous() for key, value in found.items()}, out)
