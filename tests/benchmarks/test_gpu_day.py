"""The GPU command without a GPU: its budget, its steps' ends, and a rehearsal of every phase."""

import json
import sys
import time
from pathlib import Path

import gpu_day
import gpu_day_figures
import numpy as np
import pytest
from gpu_day import ALL_BYTES, MAX_FILES, Outcome, Step, run_step, run_steps
from gpu_day_weights import train_all
from pixel_file import carry_pixels, restore_pixels
from pixel_packs import prepare_film, prepare_sprites
from tiny_packs import write_packs

from ursa_core.bundle.bundle import load_bundle
from ursa_core.errors import DataError
from ursa_core.worlds.sprites import load_film, load_sprites

ROOT = Path(__file__).parents[2]


def step(name: str, code: str = "", phase: str = "figures", seconds: float = 60.0) -> Step:
    return Step(phase, name, (sys.executable, "-c", code), seconds)


class Clock:
    """A clock that only steps move."""

    def __init__(self) -> None:
        self.now, self.limits = 0.0, {}

    def __call__(self) -> float:
        return self.now

    def start(self, taken: dict[str, float]):
        def run(wanted: Step, limit: float) -> Outcome:
            self.limits[wanted.name] = limit
            self.now += min(limit, taken[wanted.name])
            return Outcome("hung" if taken[wanted.name] > limit else "done")

        return run


def test_proof_and_figures_leave_the_time_of_training():
    clock, done = Clock(), {}
    steps = [step("a"), step("b"), step("c"), step("train", phase="weights", seconds=float("inf"))]
    run_steps(steps, 200, done, clock.start({"a": 1e9, "b": 20, "c": 1e9, "train": 1e9}), clock)
    assert [done[each.name].status for each in steps] == ["hung", "done", "left out", "hung"]
    assert clock.limits == {"a": 60, "b": pytest.approx(30), "train": pytest.approx(120)}
    assert clock.now == 200


def test_without_training_the_others_take_all_the_time():
    clock, done = Clock(), {}
    run_steps([step("a", seconds=500)], 200, done, clock.start({"a": 150}), clock)
    assert clock.limits == {"a": 200}


def test_a_second_call_skips_what_is_done_and_trains_on():
    clock = Clock()
    done = {"a": Outcome("done"), "b": Outcome("failed"), "train": Outcome("done")}
    steps = [step("a"), step("b"), step("train", phase="weights")]
    run_steps(steps, 100, done, clock.start({"b": 1, "train": 1}), clock)
    assert set(clock.limits) == {"b", "train"}


@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        ("import json, os; open(os.environ['RESULT'], 'w').write('{\"x\": 1}')", "done", ""),
        ("raise ValueError('planted')", "failed", "ValueError: planted"),
        ("import nowhere_to_be_found", "failed", "a package is missing: carry its wheel"),
        ("raise OSError(28, 'No space left on device')", "failed", "the disk is full"),
        ("raise RuntimeError('CUDA out of memory.')", "failed", "too little memory"),
        ("import os; open(os.environ['RESULT'], 'w').write('{'); ", "failed", "exit code 1"),
    ],
)
def test_an_end_is_recorded_with_its_reason(code, status, reason, tmp_path):
    outcome = run_step(step("planted", code), 30, tmp_path, {})
    assert outcome.status == status
    assert reason in outcome.reason
    assert outcome.result == ({"x": 1} if status == "done" else None)
    assert ("Traceback" in outcome.tail) == ("raise" in code or "nowhere" in code)


def test_a_hanging_step_is_killed_with_its_children_and_the_next_one_runs(tmp_path):
    alive = tmp_path / "alive"
    child = f"import time, pathlib\nwhile 1: pathlib.Path({str(alive)!r}).touch(); time.sleep(0.02)"
    hangs = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    outcomes = {}
    steps = [step("hangs", hangs), step("next")]
    limits = {"hangs": 2, "next": 30}
    run_steps(steps, 100, outcomes, lambda each, _: run_step(each, limits[each.name], tmp_path, {}))
    assert outcomes["hangs"].status == "hung"
    assert outcomes["next"].status == "done"
    alive.unlink(missing_ok=True)
    time.sleep(0.2)
    assert not alive.exists()


@pytest.fixture(scope="module")
def pixels(tmp_path_factory):
    """A prepared folder of tiny emoji and film, and the files that carry both, or emoji alone."""
    folder = tmp_path_factory.mktemp("pixels")
    packs = write_packs(folder / "packs")
    prepare_sprites(packs / "emoji", folder, 64)
    prepare_film(packs / "film", folder, 32)
    carry_pixels(folder, folder / "pixels.zip", 80, with_film=True)
    carry_pixels(folder, folder / "emoji.zip", 80, with_film=False)  # no shot is long enough
    return folder


def test_carried_pixels_come_back_as_they_were(pixels, tmp_path):
    assert restore_pixels(pixels / "pixels.zip", tmp_path)
    before, after = load_sprites(pixels), load_sprites(tmp_path)
    assert (before.subjects, before.starts) == (after.subjects, after.starts)
    on_white = [
        each.frames[..., :3] * (each.frames[..., 3:] / 255.0) + 255 - each.frames[..., 3:]
        for each in (before, after)
    ]
    assert np.abs(on_white[0] - on_white[1]).mean() < 3
    films = [load_film(folder) for folder in (pixels, tmp_path)]
    assert films[0].shots == films[1].shots
    assert np.abs(films[0].frames.astype(int) - films[1].frames).mean() < 3
    (tmp_path / "cut.zip").write_bytes((pixels / "pixels.zip").read_bytes()[:-100])
    with pytest.raises(DataError, match="can't be read"):
        restore_pixels(tmp_path / "cut.zip", tmp_path / "other")


@pytest.mark.parametrize("name", [n for n in gpu_day.MEASUREMENTS if "compiled" not in n])
def test_every_figure_is_measured_in_small(name):
    assert set(gpu_day.MEASUREMENTS) == set(gpu_day_figures.FIGURES)
    found = gpu_day_figures.FIGURES[name](gpu_day_figures.Sizes(rehearse=True))
    numbers = [value for value in found.values() if isinstance(value, float | int)]
    assert numbers
    assert all(number > 0 for number in numbers)


class Ticking:
    """A clock on which every look takes a second."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def trained(out, pixels, scratch):
    """Train in 100 ticks, and pack the weights into `out`; what was done."""
    done = {}
    given = pixels / "emoji.zip", out, scratch, 100
    train_all(*given, done.__setitem__, rehearse=True, clock=Ticking())
    gpu_day.export(scratch / gpu_day.GENERATOR, out)
    return done


def test_a_rehearsal_makes_weights_and_a_second_call_trains_on(pixels, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    done = trained(out, pixels, tmp_path / "one")
    # The tokenizer has 35 ticks, of which 20 are measured; what is left is the generator's.
    assert done["tokenizer"] == {"steps": 20, "seconds_per_step": 1}
    assert 8 <= done["clips"] <= 12
    assert 25 < done["generator"]["steps"] < 50
    files = [file for file in out.rglob("*") if file.is_file()]
    assert len(files) < MAX_FILES  # and the results
    assert sum(file.stat().st_size for file in files) < ALL_BYTES
    assert {"bundle.zip", "metrics.jsonl", "samples.png"} <= {file.name for file in files}
    first = load_bundle(gpu_day.unpack(out, tmp_path / "first"))
    assert {subject.name for subject in first.subjects} >= {"fox", "cat"}
    again = trained(out, pixels, tmp_path / "two")
    assert again["trains_on"] is True
    assert "tokenizer" not in again
    second = load_bundle(gpu_day.unpack(out, tmp_path / "second"))
    vae = "vae/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "first" / vae).read_bytes() == (tmp_path / "second" / vae).read_bytes()
    weights = [bundle.transformer.state_dict() for bundle in (first, second)]
    changes = [float((weights[0][n] - weights[1][n]).abs().mean()) for n in weights[0]]
    assert 0 < max(changes) < 0.1


def test_too_many_weights_are_refused(tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    for number in range(5):
        file = run / "transformer" / f"{number}.safetensors"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(1_000_001))
    with pytest.raises(ValueError, match="5 files"):
        gpu_day.export(run, out)


def test_the_command_runs_its_steps_as_processes(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gpu_day, "MEASUREMENTS", ("environment", "solver_step"))
    wanted = ["--out", str(tmp_path), "--rehearse", "--only", "figures", "--minutes", "2"]
    assert gpu_day.main(wanted) == 0, capsys.readouterr().out
    steps = json.loads((tmp_path / "gpu_day.json").read_text())["steps"]
    assert [(name, each["status"]) for name, each in steps.items()] == [
        ("environment", "done"), ("solver_step", "done"),
    ]  # fmt: skip
    assert steps["environment"]["result"]["matrix_operations_per_second"] > 0
    assert "environment" in capsys.readouterr().out


def test_the_proof_is_what_pytest_reports(tmp_path, capsys):
    wanted = ["--out", str(tmp_path), "--rehearse", "--only", "proof", "--minutes", "2"]
    assert gpu_day.main(wanted) == 0, capsys.readouterr().out
    proof = json.loads((tmp_path / "gpu_day.json").read_text())["steps"]["proof"]["result"]
    assert proof["passed"] == 1
    assert proof["failed"] == []
    assert any("codes equal after one step" in name for name in proof["noted"])


def test_failures_of_the_proof_are_named(tmp_path):
    report = "<testsuite><testcase name='a'><failure/></testcase><testcase name='b'/></testsuite>"
    (tmp_path / "proof.xml").write_text(report)
    found = gpu_day.proof_of(tmp_path / "proof.xml")
    assert found == {"passed": 1, "skipped": 0, "failed": ["a"], "noted": {}}
    assert gpu_day.proof_of(tmp_path / "none.xml") is None


def test_files_that_it_does_not_need_are_listed():
    needed, others = gpu_day.needless_files()
    names = {name for _, name in others}
    assert "docs/emoji.gif" in names
    assert not any(name.startswith("ursa_core/training") for name in names)
    assert needed + sum(size for size, _ in others) > 1e6
