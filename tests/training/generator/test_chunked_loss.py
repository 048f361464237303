"""The chunked cross-entropy beside the plain one: values, gradients, memory."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from ursa_core.training.generator.chunked_loss import CHUNK_BYTES, chunked_cross_entropy

N, D, K = 37, 8, 50


def parts(dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(N, D, generator=generator, dtype=dtype).requires_grad_()
    head = torch.randn(K, D, generator=generator, dtype=dtype).requires_grad_()
    return hidden, head, torch.randint(K, (N,), generator=generator)


@pytest.mark.parametrize("rows", [1, 5, 36, 37, 1000])
@pytest.mark.parametrize("is_weighted", [False, True])
def test_equals_the_plain_one_whatever_the_chunks(rows, is_weighted, monkeypatch):
    monkeypatch.setitem(CHUNK_BYTES, "cpu", rows * 4 * K)
    hidden, head, x_1 = parts()
    weights = torch.arange(N, dtype=torch.float64) % 3 if is_weighted else None
    each = F.cross_entropy(hidden @ head.T, x_1, reduction="none")
    plain = each.mean() if weights is None else (each * weights).sum() / weights.sum()
    wanted = torch.autograd.grad(3 * plain, (hidden, head))
    loss, ours = chunked_cross_entropy(hidden, head, x_1, weights)
    assert not ours.requires_grad
    torch.testing.assert_close(loss, plain, rtol=0, atol=1e-12)
    torch.testing.assert_close(ours, each.detach(), rtol=0, atol=1e-12)
    for found, expected in zip(torch.autograd.grad(3 * loss, (hidden, head)), wanted, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_a_matrix_that_is_embedding_and_head_gets_both_gradients(monkeypatch):
    monkeypatch.setitem(CHUNK_BYTES, "cpu", 4 * K)
    _, table, x_1 = parts()
    ids = (x_1 + 1) % K

    def gradient(loss_of):
        return torch.autograd.grad(loss_of(torch.tanh(table[ids])), table)[0]

    wanted = gradient(lambda hidden: F.cross_entropy(hidden @ table.T, x_1))
    found = gradient(lambda hidden: chunked_cross_entropy(hidden, table, x_1)[0])
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def test_autocast_multiplies_in_bfloat16_and_sums_in_float32(monkeypatch):
    monkeypatch.setitem(CHUNK_BYTES, "cpu", 10 * 4 * K)
    hidden, head, x_1 = parts(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss, each = chunked_cross_entropy(hidden, head, x_1)
        plain = F.cross_entropy((hidden @ head.T).float(), x_1)
    assert each.dtype == torch.float32
    torch.testing.assert_close(loss, plain, rtol=0, atol=1e-6)
    wanted = torch.autograd.grad(plain, (hidden, head))
    for found, expected in zip(torch.autograd.grad(loss, (hidden, head)), wanted, strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=0.05, atol=1e-3)


def test_without_gradients_none_are_computed():
    hidden, head, x_1 = parts()
    with torch.no_grad():
        loss, _ = chunked_cross_entropy(hidden, head, x_1)
    assert not loss.requires_grad
    frozen, _ = chunked_cross_entropy(hidden, head.detach(), x_1)
    frozen.backward()
    assert hidden.grad is not None


def test_where_no_position_counts_nothing_moves():
    hidden, head, x_1 = parts()
    loss, _ = chunked_cross_entropy(hidden, head, x_1, torch.zeros(N, dtype=torch.float64))
    loss.backward()
    assert loss.item() == hidden.grad.abs().sum() == head.grad.abs().sum() == 0


def test_logits_of_all_positions_are_never_held(monkeypatch):
    monkeypatch.setitem(CHUNK_BYTES, "cpu", 4 * K)
    hidden, head, x_1 = parts()
    with torch.profiler.profile(profile_memory=True) as profile:
        chunked_cross_entropy(hidden, head, x_1)[0].backward()
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert largest < hidden.element_size() * N * K / 4
