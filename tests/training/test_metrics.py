"""Metrics in TensorBoard, read back by its own reader, and what is told where a tracker lacks."""

import sys

import pytest
from tiny_runs import TOKENIZER, recipe_of, train

from ursa_core.errors import UrsaError
from ursa_core.training.run import plan_training


def test_tensorboard_shows_each_step_once(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    track = "train.track=[tensorboard]"
    train(TOKENIZER, tmp_path, "run", track, "train.steps=3")
    train(TOKENIZER, tmp_path, "run", track, "train.steps=5")
    found = reader.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    found.Reload()
    assert {"loss", "psnr", "learning_rate", "gradient_norm"} <= set(found.Tags()["scalars"])
    assert [event.step for event in found.Scalars("loss")] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_tracker_that_is_not_installed_is_named(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    track = f"train.track=[{name}]"
    with pytest.raises(UrsaError, match=f"{name}, which isn't installed") as caught:
        train(TOKENIZER, tmp_path, "run", track)
    assert f"pip install --upgrade {name}" in caught.value.hint
    with pytest.raises(UrsaError, match="which isn't installed"):
        plan_training(recipe_of(TOKENIZER, tmp_path, track), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import a_package_that_is_not_there", "No module named 'a_package_that"),
        ("raise TypeError('old protobuf')", "old protobuf"),
    ],
)
def test_a_tracker_whose_own_import_fails_is_not_called_missing(
    code, reason, tmp_path, monkeypatch
):
    (tmp_path / "wandb.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(UrsaError, match=f"import fails: {reason}") as caught:
        train(TOKENIZER, tmp_path, "run", "train.track=[wandb]")
    assert "isn't installed" not in caught.value.message
