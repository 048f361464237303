"""NVIDIA's discrete video tokenizer against NVIDIA's code (tests/golden/README.md)."""

import json
from pathlib import Path

import pytest
import torch
from autoencoder_cases import clip, weight
from cosmos_cases import CASES, FIRST, FULL
from safetensors import safe_open
from safetensors.torch import load_file

from ursa_core.convert.cosmos import convert_weights, cosmos_name
from ursa_core.grids import Strides
from ursa_core.tokenizers.video_fsq import VideoTokenizer, VideoTokenizerConfig

GOLDEN = Path(__file__).parents[1] / "golden" / "cosmos.safetensors"


def shapes(name: str) -> dict[str, list[int]]:
    """Shapes of NVIDIA's weights in a case, by name."""
    with safe_open(GOLDEN, "pt") as opened:
        return json.loads(opened.metadata()[name])


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_codes_latents_and_pixels_are_nvidias(name: str) -> None:
    case, expected = CASES[name], load_file(GOLDEN)
    theirs = {key: weight(key, shape, case.salt) for key, shape in shapes(name).items()}
    # The first package's weights have every resize whatever the strides.
    config, ours = convert_weights(theirs, Strides(*case.stride) if case.package == FIRST else None)
    assert (config.temporal_stride, config.spatial_stride) == case.stride
    assert (config.patch_size, config.causal) == (case.patch_size, True)
    tokenizer = VideoTokenizer(config).eval()
    tokenizer.load_state_dict(ours)
    video = clip(case.shape, case.salt)
    latents = tokenizer.latents(video)[0].movedim(-1, 0)
    torch.testing.assert_close(latents, expected[f"{name}.latents"], atol=1e-4, rtol=1e-4)
    codes = tokenizer.encode(video)
    assert torch.equal(codes[0], expected[f"{name}.codes"].long())
    decoded = tokenizer.decode(codes)[0]
    wanted = expected[f"{name}.decoded"].float()  # stored in float16
    torch.testing.assert_close(decoded, wanted, atol=1e-3, rtol=1e-3)


def test_the_mask_matters() -> None:
    """Without the causal mask the latents are others, so parity would notice."""
    case, expected = CASES["later_4x8x8"], load_file(GOLDEN)
    theirs = {n: weight(n, shape, case.salt) for n, shape in shapes("later_4x8x8").items()}
    config, ours = convert_weights(theirs, None)
    unmasked = VideoTokenizer(VideoTokenizerConfig(**{**vars(config), "causal": False}))
    unmasked.load_state_dict(ours)
    with torch.no_grad():
        latents = unmasked.latents(clip(case.shape, case.salt))[0].movedim(-1, 0)
    assert (latents - expected["later_4x8x8.latents"]).abs().max() > 0.01


@pytest.mark.parametrize("name", FULL)
def test_full_size_weights_map_one_to_one(name: str) -> None:
    case = FULL[name]
    config = VideoTokenizerConfig(
        latent_channels=16 if case.package == FIRST else 256,
        patch_size=case.patch_size,
        causal=True,
    )
    with torch.device("meta"):
        ours = VideoTokenizer(config).state_dict()
    mapped = {
        cosmos_name(key, 3): [*value.shape, *(1, 1, 1)[: 3 * (value.ndim == 2)]]
        for key, value in ours.items()
    }
    theirs = shapes(name)
    assert mapped.items() <= theirs.items()
    unused = {key.rsplit(".", 3)[0] for key in theirs.keys() - mapped.keys()}
    resizes = {"encoder.down.0.downsample", "encoder.down.1.downsample"}
    resizes |= {"decoder.up.1.upsample", "decoder.up.2.upsample"}
    assert unused == (resizes if case.package == FIRST else set())
