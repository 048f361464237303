"""The network: parity with the reference implementation, and what it promises."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ursa_core.errors import CheckpointError, ShapeError
from ursa_core.grids import LatentGrid
from ursa_core.models import transformer
from ursa_core.models.presets import PRESETS
from ursa_core.models.transformer import (
    Transformer,
    TransformerConfig,
    codebook_features,
    positions,
    rotations,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "published_transformer"
TINY = TransformerConfig(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    lm_vocab_size=10,
    lm_head_size=24,
    bov_token_id=2,
    head_dim=16,
)


def published():
    config = TransformerConfig.from_json(json.loads((GOLDEN / "config.json").read_text()))
    model = Transformer(config)
    state = load_file(GOLDEN / "diffusion_pytorch_model.safetensors")
    model.load_state_dict({name: value.float() for name, value in state.items()})
    grid = LatentGrid(*json.loads((GOLDEN / "expected.json").read_text())["grid"])
    return model.eval(), grid, load_file(GOLDEN / "expected.safetensors")


def tiny():
    model = Transformer(TINY)
    model.initialise_(torch.randn(24, 3), torch.Generator().manual_seed(0))
    return model.eval()


def test_the_mlp_runs_in_chunks_unless_it_learns(monkeypatch):
    model, x = tiny().model.layers[0].mlp, torch.randn(2, 9, 32)
    whole = model(x)
    assert whole.requires_grad
    monkeypatch.setattr(transformer, "MLP_ROWS", 4)
    seen = []
    model.up_proj.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    with torch.no_grad():
        chunks = model(x)
    assert seen == [4, 4, 4, 4, 2]
    assert torch.allclose(chunks, whole, atol=1e-6)


def test_logits_equal_those_of_the_reference():
    model, grid, expected = published()
    with torch.no_grad():
        logits = model.head(model(expected["prompt_ids"].long(), expected["x_t"].long(), grid))
    at = logits[:, expected["logits_positions"].long()]
    scale = expected["logits"].abs().max()
    assert (at - expected["logits"]).abs().max() / scale < 1e-4
    torch.testing.assert_close(
        logits.logsumexp(-1), expected["logits_logsumexp"], rtol=1e-5, atol=1e-5
    )
    assert torch.equal(logits.argmax(-1), expected["logits_argmax"].long())


def test_positions_equal_those_of_the_reference():
    _, grid, expected = published()
    ours = positions(expected["prompt_ids"].shape[1], grid)
    assert torch.equal(ours, expected["rope_pos"].long())


def test_text_rotations_are_those_of_one_dimension():
    cos, _ = rotations(torch.tensor([[5, 5, 5]]), 32, 1e6)
    plain = 5.0 / 1e6 ** (torch.arange(16) / 16)
    torch.testing.assert_close(cos[0, :16], plain.cos())


def test_every_position_sees_every_other():
    model, grid = tiny(), LatentGrid(2, 2, 2)
    prompt, codes = torch.zeros(1, 3, dtype=torch.int64), torch.zeros(1, 8, dtype=torch.int64)
    changed = codes.clone()
    changed[0, 0] = 5
    with torch.no_grad():
        difference = (model(prompt, codes, grid) - model(prompt, changed, grid)).abs().amax(-1)[0]
    assert (difference > 0).all()


def test_codes_must_fill_the_grid():
    with pytest.raises(ShapeError, match="7 codes"):
        tiny()(
            torch.zeros(1, 3, dtype=torch.int64),
            torch.zeros(1, 7, dtype=torch.int64),
            LatentGrid(2, 2, 2),
        )


def test_near_codes_begin_near():
    line = torch.linspace(-1, 1, 7)[:, None]
    similarity = codebook_features(line) @ codebook_features(line).T
    assert similarity[3, 4] > similarity[3, 6] > 0.0 or similarity[3, 4] > 0.3
    assert torch.allclose(similarity.diagonal(), torch.ones(7))
    assert (similarity[0].diff() < 1e-6).all()


def test_config_round_trip_and_faults():
    assert TransformerConfig.from_json(TINY.to_json()) == TINY
    with pytest.raises(CheckpointError, match="OtherModel"):
        TransformerConfig.from_json({**TINY.to_json(), "_class_name": "OtherModel"})
    with pytest.raises(CheckpointError, match="vocab_size"):
        TransformerConfig.from_json({**TINY.to_json(), "vocab_size": 99})
    without = TINY.to_json()
    del without["hidden_size"]
    with pytest.raises(CheckpointError, match="hidden_size"):
        TransformerConfig.from_json(without)


@pytest.mark.parametrize(
    ("name", "billions"), [("nano", 0.0), ("0.6B", 0.6), ("1.7B", 1.7), ("4B", 4.0)]
)
def test_presets_have_the_size_in_their_name(name, billions):
    config = TransformerConfig.from_size(PRESETS[name], 151_669, 64_000, 151_652)
    with torch.device("meta"):
        model = Transformer(config)
    layers = sum(p.numel() for n, p in model.named_parameters() if "layers" in n)
    embeddings = 151_669 * config.hidden_size
    if billions:
        assert (layers + embeddings) / 1e9 == pytest.approx(billions, rel=0.1)
    else:
        assert layers < 6e6
