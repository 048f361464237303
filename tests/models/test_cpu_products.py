"""Attention and norms on the CPU against PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from ursa_core.models import transformer
from ursa_core.models.transformer import attend, rms_norm


def drawn(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(shape[1])).to(dtype)


@pytest.mark.parametrize("rows", [1, 7, 1000])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_attention_is_that_of_pytorch(groups, rows, monkeypatch):
    monkeypatch.setattr(transformer, "SCORE_BYTES", 1)
    monkeypatch.setattr(transformer, "SCORE_ROWS", rows)
    q = drawn(2, 37, 4, 16).transpose(1, 2)  # as the network has them
    k, v = (drawn(2, length, groups, 16).transpose(1, 2) for length in (37, 37))
    wide = [x.float() for x in (q, k, v)]
    exact = F.scaled_dot_product_attention(*wide, enable_gqa=groups != 4)
    with torch.inference_mode():
        found = attend(q, k, v)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), exact, rtol=0.02, atol=0.02)


def test_training_takes_gradients_through_the_attention_of_pytorch():
    q, k, v = (drawn(1, 2, 9, 16).requires_grad_() for _ in range(3))
    attend(q, k, v).sum().backward()
    assert v.grad is not None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_norm_is_that_of_pytorch(dtype):
    x, gain = drawn(3, 5, 64, dtype=dtype), torch.rand(64)
    trained = rms_norm(x, gain, 1e-6)
    with torch.inference_mode():
        sampled = rms_norm(x, gain, 1e-6)
    assert sampled.dtype == trained.dtype == dtype
    torch.testing.assert_close(
        sampled, trained, rtol=1.6e-2 if dtype != torch.float32 else 1e-6, atol=1e-6
    )
