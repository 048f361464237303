"""Autoencoders of unusual shapes against the reference implementation (tests/golden/README.md)."""

from pathlib import Path

import pytest
import torch
from autoencoder_cases import CASES, clip, fill_
from safetensors.torch import load_file

from ursa_core.tokenizers.visual import build_visual_tokenizer

GOLDEN = Path(__file__).parents[1] / "golden" / "autoencoders.safetensors"


@pytest.mark.parametrize("name", CASES)
def test_codes_and_pixels_are_the_references(name: str) -> None:
    case, expected = CASES[name], load_file(GOLDEN)
    tokenizer = build_visual_tokenizer(case.config).eval()
    fill_(tokenizer, case.salt)
    with torch.no_grad():
        codes = tokenizer.encode(clip(case.shape, case.salt))
        decoded = tokenizer.decode(codes)
    assert torch.equal(codes[0], expected[f"{name}.codes"].long())
    wanted = expected[f"{name}.decoded"].float()  # stored in float16
    torch.testing.assert_close(decoded[0], wanted, atol=1e-3, rtol=1e-3)
