import pytest
import torch

from ursa_core.errors import UsageError
from ursa_core.sampling.guidance import Guidance, guided_hidden

COND, UNCOND = torch.full((2, 3), 4), torch.full((2, 3), 9)


class CountingNetwork:
    """Hidden states that hold the prompt and the code; remembers the rows of each pass."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def __call__(self, prompt_ids: torch.Tensor, x_t: torch.Tensor) -> torch.Tensor:
        self.rows.append(len(x_t))
        prompt = prompt_ids[:, :1].expand_as(x_t)
        return torch.stack([prompt, x_t], dim=-1).float()


def run(guidance: Guidance, t: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
    network = CountingNetwork()
    x_t = torch.arange(10).reshape(2, 5)
    hidden = guided_hidden(network, COND, UNCOND, x_t, t, guidance)
    assert torch.equal(hidden[..., 1], x_t.float())
    return hidden[..., 0], network.rows


@pytest.mark.parametrize(
    ("scale", "t", "value", "rows"),
    [
        (7.0, 0.5, 9 + 7 * (4 - 9), [4]),
        (7.0, 0.2, 9 + 7 * (4 - 9), [4]),
        (7.0, 0.9, 4, [2]),
        (7.0, 0.1, 4, [2]),
        (1.0, 0.5, 4, [2]),
        (0.0, 0.5, 9, [4]),
    ],
)
def test_acts_in_its_interval_and_costs_only_there(
    scale: float, t: float, value: float, rows: list[int]
) -> None:
    prompt, seen = run(Guidance(scale, (0.2, 0.9)), torch.tensor(t))
    assert seen == rows
    assert torch.equal(prompt, torch.full((2, 5), float(value)))


def test_acts_on_the_positions_whose_time_is_in_the_interval() -> None:
    t = torch.tensor([0.0, 0.5, 0.5, 0.95, 1.0])
    prompt, seen = run(Guidance(3.0, (0.1, 0.9)), t)
    assert seen == [4]
    assert prompt.tolist() == [[4, -6, -6, 4, 4]] * 2


def test_guided_hidden_states_give_guided_logits() -> None:
    network = CountingNetwork()
    head = torch.nn.Linear(2, 6, bias=False)
    x_t = torch.arange(10).reshape(2, 5)
    hidden = guided_hidden(network, COND, UNCOND, x_t, torch.tensor(0.5), Guidance(7.0))
    cond, uncond = head(network(COND, x_t)), head(network(UNCOND, x_t))
    torch.testing.assert_close(head(hidden), uncond + 7 * (cond - uncond), atol=1e-3, rtol=1e-4)


def test_impossible_guidance_is_refused() -> None:
    for interval in ((0.5, 0.4), (-0.1, 1.0), (0.0, 1.1), (float("nan"), 1.0)):
        with pytest.raises(UsageError, match="interval"):
            Guidance(2.0, interval)
    with pytest.raises(UsageError, match="negative prompt"):
        guided_hidden(CountingNetwork(), COND, None, COND, torch.tensor(0.5), Guidance(2.0))
