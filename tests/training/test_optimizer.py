"""Learning rates, Muon and the average of weights."""

import copy

import pytest
import torch

from ursa_core.models.presets import PRESETS
from ursa_core.models.transformer import Transformer, TransformerConfig
from ursa_core.recipe.fields import OptimizerSettings
from ursa_core.training.optimizer import Ema, build_optimizer, learning_rate, orthogonalize

MUON = OptimizerSettings(kind="muon", learning_rate=0.01, warmup_steps=0, weight_decay=0.1)


def test_learning_rate_warms_up_then_falls_to_its_share():
    settings = OptimizerSettings(learning_rate=1.0, warmup_steps=10, final_ratio=0.1)
    rates = [learning_rate(step, 100, settings) for step in range(101)]
    assert rates[0] == 0.1
    assert rates[9] == rates[10] == 1.0
    assert rates[100] == pytest.approx(0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)


@pytest.mark.parametrize(
    ("schedule", "middle", "later"),
    [("constant", 1.0, 1.0), ("linear", 0.55, 0.19), ("warmup-stable-decay", 1.0, 0.55)],
)
def test_schedules_by_name(schedule, middle, later):
    settings = OptimizerSettings(
        learning_rate=1.0, warmup_steps=10, final_ratio=0.1, schedule=schedule, decay_share=0.2
    )
    rates = [learning_rate(step, 110, settings) for step in range(111)]
    assert rates[4] == 0.5
    assert rates[60] == pytest.approx(middle)
    assert rates[100] == pytest.approx(later)
    assert rates[110] == pytest.approx(1.0 if schedule == "constant" else 0.1)


def test_average_forgets_the_start():
    model = torch.nn.Linear(1, 1)
    average = Ema(model, 0.9)
    with torch.no_grad():
        model.weight.fill_(3.0)
    for step in range(200):
        average.update_(dict(model.named_parameters()), step)
    assert average.average["weight"].item() == pytest.approx(3.0, abs=1e-6)


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 8, 40), (2, 40, 8)])
def test_orthogonalized_matrices_keep_their_directions(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    result = orthogonalize(matrices * 1e-3)
    spread = u.transpose(1, 2) @ result @ v.transpose(1, 2)
    gains = spread.diagonal(dim1=1, dim2=2)
    assert (spread - torch.diag_embed(gains)).abs().max() < 1e-4
    assert gains[:, :-2].min() > 0.65  # the least singular values may lag behind
    assert gains.max() < 1.3


def test_adamw_is_fused_and_steps_as_the_plain_one():
    torch.manual_seed(0)
    layer = torch.nn.Linear(8, 4)
    plain = copy.deepcopy(layer)
    settings = OptimizerSettings(learning_rate=0.01, warmup_steps=0)
    optimizer = build_optimizer(layer, settings)
    assert optimizer.defaults["fused"]
    groups = [{"params": [plain.weight]}, {"params": [plain.bias], "weight_decay": 0.0}]
    theirs = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95), weight_decay=0.05, fused=False)
    for _ in range(20):
        x = torch.randn(16, 8)
        for module, each in ((layer, optimizer), (plain, theirs)):
            module(x).square().mean().backward()
            each.step()
            each.zero_grad()
    for ours, other in zip(layer.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(ours, other, atol=1e-6)


def test_muon_steps_have_the_size_of_adamw_steps():
    layer = torch.nn.Sequential(torch.nn.Linear(64, 32, bias=False))
    before = layer[0].weight.detach().clone()
    layer[0].weight.grad = torch.randn(32, 64, generator=torch.Generator().manual_seed(0))
    build_optimizer(layer, MUON).step()
    step = (layer[0].weight - before * (1 - 0.01 * 0.1)) / 0.01
    assert 0.15 < step.square().mean().sqrt() < 0.25


def test_muon_learns_a_kernel():
    torch.manual_seed(0)
    target, learner = (torch.nn.Conv2d(6, 5, 3) for _ in range(2))
    optimizer = build_optimizer(learner, MUON.model_copy(update={"weight_decay": 0.0}))
    for step in range(150):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, 150, MUON)
        x = torch.randn(16, 6, 5, 5)
        (target(x) - learner(x)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert (target.weight - learner.weight).abs().max() < 0.01


def test_embeddings_and_head_stay_with_adamw():
    model = Transformer(TransformerConfig.from_size(PRESETS["nano"], 40, 30, 1))
    groups = build_optimizer(model, MUON).param_groups
    muon = {id(p) for group in groups if "momentum" in group for p in group["params"]}
    named = {name for name, p in model.named_parameters() if id(p) in muon}
    assert named == {n for n, p in model.named_parameters() if "layers" in n and p.ndim == 2}


@pytest.mark.parametrize("decay_all", [False, True])
def test_gains_and_biases_decay_if_asked_for(decay_all):
    layer = torch.nn.Linear(3, 2)
    torch.nn.init.ones_(layer.bias)
    settings = OptimizerSettings(learning_rate=0.1, warmup_steps=0, decay_all=decay_all)
    optimizer = build_optimizer(layer, settings)
    layer.bias.grad = torch.zeros(2)
    optimizer.step()
    assert layer.bias.tolist() == pytest.approx([1 - 0.1 * 0.05 * decay_all] * 2)
