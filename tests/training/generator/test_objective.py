"""What counts in the loss of a generator, and how it is told by time."""

import pytest
import torch
from tiny_runs import recipe_of

from ursa_core.path.mixture import MaskedPath
from ursa_core.training.distributed import Ranks
from ursa_core.training.generator.objective import by_time_bin
from ursa_core.training.metrics import means
from ursa_core.training.run import build_learner

CPU = torch.device("cpu")


def test_losses_are_told_by_quarters_of_time():
    each, times = torch.tensor([[1.0, 2.0, 3.0, 6.0]]), torch.tensor([[0.1, 0.2, 0.9, 1.0]])
    expected = {"loss_time_1_of_4": 1.5, "loss_time_4_of_4": 4.5}
    assert means([by_time_bin(each, times)], Ranks()) == expected
    later = by_time_bin(torch.tensor([[5.0]]), torch.tensor([[0.0]]))
    both = means([by_time_bin(each, times), later], Ranks())
    assert both["loss_time_1_of_4"] == pytest.approx((1 + 2 + 5) / 3)
    loss_mask = torch.tensor([[True, False, True, True]])
    assert means([by_time_bin(each, times, loss_mask)], Ranks())["loss_time_1_of_4"] == 1


def test_revealed_codes_of_the_masked_path_do_not_count(generator_recipe, tmp_path, monkeypatch):
    x_t = torch.tensor([[0, 3, 2, 3]])
    assert MaskedPath(3).loss_mask(x_t).tolist() == [[False, True, False, True]]
    learner = build_learner(recipe_of(generator_recipe, tmp_path, "path.kind=masked"), CPU)
    x_1, prompt_ids, times, grid, _ = learner.batch(0)
    x_t = torch.where(torch.arange(x_1.shape[1]) % 2 == 0, x_1, learner.path.mask_id)
    monkeypatch.setattr(learner.path, "corrupt", lambda *_: x_t)
    loss, _ = learner.objective(prompt_ids, x_1, times, grid, torch.Generator())
    logits = learner.model.lm_head(learner.model(prompt_ids, x_t, grid))[:, 1::2]
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), x_1[:, 1::2].flatten())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
