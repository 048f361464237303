import pytest
import torch

from ursa_core.errors import CheckpointError
from ursa_core.sampling.posterior import draw_codes, posterior_weights

LOGITS = torch.tensor([[0.0, 1.0, 2.0, -50.0], [3.0, 3.0, -1000.0, 3.0]])


def test_weights_are_the_softmax() -> None:
    for temperature in (0.5, 1.0, 2.0):
        weights = posterior_weights(LOGITS, temperature)
        probs = weights / weights.sum(-1, keepdim=True)
        torch.testing.assert_close(probs, (LOGITS / temperature).softmax(-1))


def test_huge_logits_stay_finite() -> None:
    weights = posterior_weights(torch.tensor([[3e38, -3e38, 0.0]]))
    assert float(weights[0, 0]) == 1
    assert float(weights[0, 1:].max()) < 1e-37


def test_temperature_zero_takes_the_likeliest() -> None:
    assert posterior_weights(LOGITS, 0.0).tolist() == [[0, 0, 1, 0], [1, 1, 0, 1]]


def test_nucleus_is_the_fewest_likeliest_that_reach_the_share() -> None:
    probs = torch.tensor([[0.1, 0.5, 0.15, 0.25]])
    kept = {
        top_p: (posterior_weights(probs.log(), 1.0, top_p) > 0).nonzero()[:, 1].tolist()
        for top_p in (0.01, 0.49, 0.6, 0.8, 0.95, 1.0)
    }
    assert kept == {
        0.01: [1], 0.49: [1], 0.6: [1, 3], 0.8: [1, 2, 3], 0.95: [0, 1, 2, 3], 1.0: [0, 1, 2, 3],
    }  # fmt: skip
    weights = posterior_weights(probs.log(), 1.0, 0.6)
    torch.testing.assert_close(weights[0, 3] / weights[0, 1], torch.tensor(0.5))


def test_codes_are_drawn_with_their_log_probabilities() -> None:
    hidden = LOGITS[None].expand(2000, 2, 4)
    log_probs = torch.empty(2000, 2)
    codes = draw_codes(
        lambda h: h, hidden, 4, torch.Generator().manual_seed(0), log_probs=log_probs
    )
    shares = torch.bincount(codes[:, 0], minlength=4) / 2000
    torch.testing.assert_close(shares, LOGITS[0].softmax(-1), atol=0.04, rtol=0)
    expected = LOGITS.log_softmax(-1).expand(2000, 2, 4).gather(2, codes[..., None])[..., 0]
    torch.testing.assert_close(log_probs, expected, atol=1e-5, rtol=1e-5)
    surest = draw_codes(
        lambda h: h, hidden, 4, torch.Generator().manual_seed(0), temperature=0.0,
        log_probs=log_probs,
    )  # fmt: skip
    assert set(surest[:, 0].tolist()) == {2}
    expected = LOGITS[0].log_softmax(-1)[2].expand(2000)
    torch.testing.assert_close(log_probs[:, 0], expected, atol=1e-5, rtol=1e-5)


def test_head_sees_chunks_and_the_draw_does_not_depend_on_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hidden = torch.randn(3, 10, 6, generator=torch.Generator().manual_seed(0))
    seen: list[int] = []

    def head(states: torch.Tensor) -> torch.Tensor:
        seen.append(len(states))
        return states

    whole = draw_codes(head, hidden, 6, torch.Generator().manual_seed(1))
    monkeypatch.setattr("ursa_core.sampling.posterior._CHUNK_BYTES", {"cpu": 4 * 6 * 3})
    monkeypatch.setattr("ursa_core.sampling.posterior._HEAD_ROWS", 7)
    pieces = draw_codes(head, hidden, 6, torch.Generator().manual_seed(1))
    assert seen == [30, 7, 7, 7, 7, 2]
    assert torch.equal(whole, pieces)


def test_what_cannot_be_drawn_from_is_refused() -> None:
    with pytest.raises(CheckpointError, match="finite"):
        posterior_weights(torch.tensor([[0.0, float("nan")]]))
