"""Steps that can't be right: the run stops or leaves them out, and says so."""

import json
import math

import pytest
from tiny_runs import TOKENIZER, train

from ursa_core.errors import UrsaError
from ursa_core.training import run as run_module
from ursa_core.training.run import build_learner
from ursa_core.training.trainer import MOST_IN_A_ROW, Guard


def trained(guard: Guard, steps: int = 30) -> Guard:
    assert [guard.fault(step, 2.0, 1.0) for step in range(steps)] == [None] * steps
    return guard


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (2.0, math.inf)])
def test_what_is_not_finite_is_a_fault(loss, norm):
    with pytest.raises(UrsaError, match="at step 31") as caught:
        trained(Guard("stop", None)).fault(31, loss, norm)
    assert caught.value.hint.startswith("give the same command with train.on_fault=skip")
    assert str(loss) in trained(Guard("skip", None)).fault(31, loss, norm)


def test_a_spike_is_one_beside_the_recent_mean():
    guard = trained(Guard("skip", 3.0))
    assert "4 times its recent mean" in guard.fault(31, 8.0, 1.0)
    assert guard.state["mean"] == pytest.approx(2.0)
    assert guard.fault(32, 5.9, 1.0) is None
    assert trained(Guard("skip", None)).fault(31, 800.0, 1.0) is None
    assert Guard("skip", 3.0).fault(1, 800.0, 1.0) is None


def test_faults_in_a_row_end_the_run():
    guard = Guard("skip", None)
    for step in range(1, MOST_IN_A_ROW):
        assert guard.fault(step, math.nan, 1.0)
    with pytest.raises(UrsaError, match="in a row"):
        guard.fault(MOST_IN_A_ROW, math.nan, 1.0)
    trained(guard := Guard("skip", None))
    guard.fault(31, math.nan, 1.0)
    trained(guard)
    assert guard.state["in_a_row"] == 0


@pytest.fixture
def failing_at_3(monkeypatch):
    """Training whose third micro-batch has an infinite loss."""

    def build(*given):
        learner = build_learner(*given)
        loss_of = learner.loss

        def loss(index, objective):
            loss, figures = loss_of(index, objective)
            return (loss * math.inf if index == 2 else loss), figures

        learner.loss = loss
        return learner

    monkeypatch.setattr(run_module, "build_learner", build)


def test_a_step_left_out_is_told_and_changes_nothing(failing_at_3, tmp_path):
    told = []
    with pytest.raises(UrsaError, match=r"the loss is inf .* at step 3"):
        train(TOKENIZER, tmp_path, "run", "train.checkpoint_every=1")
    skipping = ("train.checkpoint_every=1", "train.on_fault=skip")
    trainer = train(TOKENIZER, tmp_path, "run", *skipping, on_step=lambda now: told.append(now))
    assert trainer.step == 6
    assert [now.step for now in told if now.fault] == [3]

    def refuse(number):
        raise AssertionError(f"{number} is no JSON")

    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    lines = [json.loads(x, parse_constant=refuse) for x in text.splitlines()]
    assert [line["step"] for line in lines if line["loss"] is None] == [3]
    assert [line["step"] for line in lines if "skipped" in line] == [3]
    steps = {int(state["step"]) for state in trainer.optimizer.state.values()}
    assert steps == {5}
