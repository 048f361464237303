"""Metrics in TensorBoard, read back by its own reader, and what is told where a tracker lacks."""

import sys

import pytest
from tiny_runs import TOKENIZER, train

from ursa_core.errors import UrsaError


def test_tensorboard_shows_each_step_once(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    track = "train.track=[tensorboard]"
    train(TOKENIZER, tmp_path, "run", track, "train.steps=3")
    train(TOKENIZER, tmp_path, "run", track, "train.steps=5")
    found = reader.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    found.Reload()
    assert {"loss", "psnr", "learning_rate", "gradient_norm"} <= set(found.Tags()["scalars"])
    assert [event.step for event in found.Scalars("loss")] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("name", "module"), [("tensorboard", "torch.utils.tensorboard.writer"), ("wandb", "wandb")]
)
def test_a_tracker_that_is_not_installed_is_named(name, module, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UrsaError, match=f"{name}, which isn't installed") as caught:
        train(TOKENIZER, tmp_path, "run", f"train.track=[{name}]")
    assert "ursa-video[track]" in caught.value.hint
    assert not (tmp_path / "run" / "checkpoints").exists()
