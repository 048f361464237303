"""The shipped loss on one position, where its fixed point is known."""

import torch
from torch import nn

from ursa_core.grids import LatentGrid
from ursa_core.path.metric import MetricPath
from ursa_core.path.schedules import PowerSchedule
from ursa_core.recipe.fields import RewardObjective
from ursa_core.seeding import stream
from ursa_core.training.reward.objective import ClipLikelihood, advantages, reward_loss

K, GROUP, GROUPS, KL = 6, 8, 128, 0.5
GRID = LatentGrid(1, 1, 1)


class OnePosition(nn.Module):
    """A network with the same logits for every x_t: hidden states 1, and the head's rows."""

    def __init__(self, logits):
        super().__init__()
        self.lm_head = nn.Linear(1, K, bias=False)
        self.lm_head.weight.data = logits[:, None].clone()

    def forward(self, prompt_ids, x_t, grid):
        return torch.ones(len(x_t), 1, 1)


def fixed_point(p_ref, rewards):
    """Where p·(w − s·(r − r̄)) = w·p_ref, with s = 1 − 1/GROUP, as a group's mean has each clip.

    The gradient of the expected loss is −s·Σ p(r − r̄)∇log p − w·Σ p_ref ∇log p. In the logits of
    a softmax it is 0 where s·p·(r − r̄) + w·p_ref is p times its sum w. So p ∝ p_ref / (λ − r).
    """
    weight = KL / (1 - 1 / GROUP)
    low, high = float(rewards.max()) + 1e-9, float(rewards.max()) + 10 * weight
    for _ in range(100):
        middle = (low + high) / 2
        total = float((weight * p_ref / (middle - rewards)).sum())
        low, high = (middle, high) if total > 1 else (low, middle)
    return weight * p_ref / (middle - rewards)


def test_the_fixed_point_is_reached():
    generator = stream(0, "toy")
    rewards = torch.linspace(0, 1, K)
    reference = torch.tensor([1.0, 0.5, 0.0, 0.5, -0.5, -1.0])
    network = OnePosition(reference)
    start, own = ClipLikelihood(OnePosition(reference)), ClipLikelihood(network)
    path = MetricPath(torch.arange(float(K))[:, None], PowerSchedule(1.0, 4.0))
    settings = RewardObjective(kl=KL, normalise=False, states=1, latest=0.0)
    optimizer = torch.optim.SGD(network.parameters(), lr=4.0)
    steps, mean = 600, torch.zeros(K)
    for step in range(steps):
        probs = network.lm_head.weight.detach()[:, 0].softmax(0)
        x_1 = torch.multinomial(probs, GROUP * GROUPS, True, generator=generator)[:, None]
        advantage = advantages(rewards[x_1[:, 0]], GROUP, settings.normalise)
        inputs = (x_1, path.corrupt(x_1, 0.0, generator), x_1, GRID, None)
        with torch.no_grad():
            before = start(*inputs)
        now = own(*inputs)
        loss, _ = reward_loss(now[None], now.detach()[None], before[None], advantage, settings)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        mean += probs / (steps // 2) if step >= steps // 2 else 0
    wanted = fixed_point(reference.softmax(0), rewards)
    assert abs(float(wanted.sum()) - 1) < 1e-5
    torch.testing.assert_close(mean, wanted, atol=0.005, rtol=0)
    boltzmann = (reference + rewards / KL).softmax(0)  # what p_ref·exp(r/w) would be
    assert float((mean - boltzmann).abs().max()) > 0.03
