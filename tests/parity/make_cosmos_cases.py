"""Run NVIDIA's discrete video tokenizers on `cosmos_cases.py` (how: tests/golden/README.md).

python make_cosmos_cases.py COSMOS_TOKENIZER COSMOS_PREDICT1 OUT.safetensors
"""

import importlib
import json
import sys
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from autoencoder_cases import clip, weight
from cosmos_cases import CASES, FULL, CosmosCase
from loguru import logger
from safetensors.torch import save_file

MARGIN = 1e-4
"""Latents nearer than this to a change of code would make the codes depend on the machine."""


def network(case: CosmosCase) -> torch.nn.Module:
    """NVIDIA's tokenizer, in float32."""
    networks = importlib.import_module(f"{case.package}.networks")
    temporal, spatial = case.stride
    published = dict(networks.TokenizerConfigs[case.published].value)
    config = {
        **published,
        **case.changes,
        "temporal_compression": temporal,
        "spatial_compression": spatial,
    }
    return networks.TokenizerModels.DV.value(**config).to(dtype=torch.float32).eval()


def shapes(model: torch.nn.Module) -> dict[str, list[int]]:
    """Shape of each weight by name."""
    return {name: list(value.shape) for name, value in model.named_parameters()}


@torch.no_grad()
def outputs(model: torch.nn.Module, case: CosmosCase) -> dict[str, torch.Tensor]:
    """Codes int32 (F, h, w), latents (6, F, h, w), pixels float16 (3, F, H, W) of NVIDIA's."""
    for name, value in model.named_parameters():
        value.copy_(weight(name, value.shape, case.salt))
    video = clip(case.shape, case.salt)
    latents = model.quant_conv(model.encoder(video))
    codes = model.encode(video)[0]
    bounded = model.quantizer.bound(latents.movedim(1, -1))
    away = float((0.5 - (bounded - bounded.round()).abs()).min())
    print(f"{codes.unique().numel()} of {codes.numel()} codes differ, margin {away:.1e}")
    assert away > MARGIN, "change the salt"
    return {"codes": codes[0], "latents": latents[0], "decoded": model.decode_code(codes)[0].half()}


if __name__ == "__main__":
    logger.remove()
    sys.path[:0] = sys.argv[1:3]
    tensors, names = {}, {}
    for name, case in CASES.items():
        print(name, end=": ", flush=True)
        model = network(case)
        names[name] = shapes(model)
        tensors |= {f"{name}.{key}": value for key, value in outputs(model, case).items()}
    for name, case in FULL.items():
        # The convolutions alone are large; the rest reads values, which the meta device has not.
        with mock.patch.object(torch.nn, "Conv3d", partial(torch.nn.Conv3d, device="meta")):
            names[name] = shapes(network(case))
    metadata = {name: json.dumps(value, separators=(",", ":")) for name, value in names.items()}
    save_file({k: v.contiguous() for k, v in tensors.items()}, Path(sys.argv[3]), metadata)
