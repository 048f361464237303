"""Estimates of training's memory and time beside what a small network really has."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ursa_core.configs import PUBLISHED_LEVELS
from ursa_core.grids import LatentGrid
from ursa_core.models.presets import PRESETS
from ursa_core.models.transformer import Transformer, TransformerConfig
from ursa_core.path.fast.distance_table import DistanceTable
from ursa_core.path.metric import MetricPath
from ursa_core.path.mixture import MixturePath
from ursa_core.path.schedules import PowerSchedule
from ursa_core.recipe.fields import LoraSettings, OptimizerSettings, TrainSettings
from ursa_core.tokenizers.quantizers import FiniteScalarQuantizer
from ursa_core.training.generator.estimates import (
    num_parameters,
    pass_operations,
    training_memory,
    with_held,
)
from ursa_core.training.generator.objective import DenoisingObjective

GRID, PROMPT, BATCH = LatentGrid(3, 4, 4), 15, 2
LORA = LoraSettings(rank=4)
ADAMW = OptimizerSettings(learning_rate=1e-3, warmup_steps=0)


def config(name="nano", layers=3):
    size = replace(PRESETS[name], num_hidden_layers=layers)
    return TransformerConfig.from_size(size, 40, 500, 1)


def settings(**values):
    return TrainSettings(steps=1, batch_size=BATCH, **values)


def estimate(train, optimizer=ADAMW, **values):
    return training_memory(config(), GRID, PROMPT, train, optimizer, **values)


@pytest.fixture(scope="module")
def network():
    model = Transformer(config())
    model.initialise_(torch.randn(500, 3), torch.Generator().manual_seed(0))
    return model


@pytest.fixture
def adapted(network):
    from peft import LoraConfig, inject_adapter_in_model

    targets = list(LORA.targets)
    return inject_adapter_in_model(LoraConfig(r=4, target_modules=targets), deepcopy(network))


PATH = MixturePath(500)


def inputs():
    codes = torch.randint(500, (2, GRID.num_codes))
    times = torch.full(codes.shape, 0.5)
    prompts = torch.zeros(2, PROMPT, dtype=torch.int64)
    return prompts, codes, times, GRID, torch.Generator().manual_seed(0)


def test_parameters_are_counted():
    for name in PRESETS:
        with torch.device("meta"):
            model = Transformer(config(name, layers=2))
        assert num_parameters(config(name, layers=2)) == sum(p.numel() for p in model.parameters())


def kept_by(network):
    """Bytes that a pass keeps for the gradient, weights apart."""
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        DenoisingObjective(network, PATH)(*inputs())
    return sum(t.untyped_storage().nbytes() for place, t in kept.items() if place not in own)


def test_activations_are_about_those_that_autograd_keeps(network):
    assert estimate(settings())["activations"] == pytest.approx(kept_by(network), rel=0.25)
    saved = estimate(settings(recompute=True))["activations"]
    assert saved < estimate(settings())["activations"] / 2


@pytest.mark.slow
def test_what_is_held_beside_training_is_counted(network):
    path = MetricPath(FiniteScalarQuantizer(PUBLISHED_LEVELS).codebook, PowerSchedule(1.0, 5.0))
    parts = with_held(estimate(settings()), path, tokenizer=network)
    assert parts["tokenizer"] == 4 * num_parameters(config())
    table = DistanceTable.of(path.codebook)
    held = sum(each.nbytes for each in vars(table).values() if isinstance(each, torch.Tensor))
    assert parts["table"] == pytest.approx(held, rel=0.15)
    assert parts["total"] == sum(number for name, number in parts.items() if name != "total")
    assert with_held(estimate(settings()), PATH)["table"] == 0


def test_operations_are_those_of_a_step(network):
    with FlopCounterMode(display=False) as counter:
        DenoisingObjective(network, PATH)(*inputs())[0].backward()
    ours = BATCH * pass_operations(config(), GRID, PROMPT, recompute=False)
    assert ours == pytest.approx(counter.get_total_flops(), rel=0.1)


def test_an_adapter_is_counted(adapted):
    ours = BATCH * pass_operations(config(), GRID, PROMPT, recompute=False, lora=LORA)
    with FlopCounterMode(display=False) as counter:
        loss, _ = DenoisingObjective(adapted, PATH)(*inputs())
        loss.backward()
    # The first of the three layers needs no gradient of its inputs.
    assert ours == pytest.approx(counter.get_total_flops(), rel=0.15)
    assert ours < BATCH * pass_operations(config(), GRID, PROMPT, recompute=False)
    found = estimate(settings(), lora=LORA)
    real = 4 * sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert (found["gradients"], found["average"], found["optimizer"]) == (real, real, 2 * real)
    assert found["weights"] == 4 * sum(p.numel() for p in adapted.parameters())
    assert found["activations"] == pytest.approx(kept_by(adapted), rel=0.25)
    half = estimate(settings(), is_bfloat16=True, lora=LORA)
    assert half["weights"] < found["weights"]


def test_shards_divide_what_stays():
    alone, sharded = settings(), settings(distributed="fsdp", accumulate=8)
    for part in ("average", "optimizer"):
        whole = estimate(alone)[part]
        assert estimate(sharded, ranks=8)[part] == pytest.approx(whole / 8, rel=1e-3)
    muon = ADAMW.model_copy(update={"kind": "muon"})
    assert estimate(alone, muon)["optimizer"] < estimate(alone)["optimizer"]
    assert estimate(alone, is_bfloat16=True)["activations"] < estimate(alone)["activations"]
    found = estimate(alone)
    assert found["total"] == sum(value for name, value in found.items() if name != "total")
