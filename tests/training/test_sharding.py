"""What training does with the blocks of a network."""

import torch
from tiny_runs import recipe_of

from ursa_core.training.run import build_task
from ursa_core.training.sharding import recompute_


def test_recomputed_layers_have_the_same_gradients_and_keep_less(generator_recipe, tmp_path):
    recipe = recipe_of(generator_recipe, tmp_path)
    gradients, kept = [], []
    for is_recomputed in (False, True):
        task = build_task(recipe, torch.device("cpu"))
        if is_recomputed:
            recompute_(task.blocks)
        saved = []

        def keep(tensor, saved=saved):
            saved.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss, _ = task.loss(0, task.objective)
        loss.backward()
        kept.append(sum(saved))
        gradients.append({name: p.grad for name, p in task.model.named_parameters()})
    assert kept[1] < kept[0] / 2
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name
