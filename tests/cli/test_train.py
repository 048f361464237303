"""`ursa train` as a user calls it."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hub_stand_in import Hub, serve
from tiny_runs import TOKENIZER
from waiting import wait_until

from ursa_cli.main import main

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


@pytest.fixture
def recipe(tmp_path):
    file = tmp_path / "tiny.yaml"
    text = TOKENIZER.replace("steps: 6", "steps: 3")
    file.write_text(text.replace("checkpoint_every: 100", "checkpoint_every: 1000"))
    return str(file)


def test_trains_and_continues(recipe, tmp_path, capsys):
    run = str(tmp_path / "run")
    assert main(["train", recipe, "-o", run, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 3
    assert main(["train", recipe, "train.steps=5", "-o", run, "--quiet"]) == 0
    assert capsys.readouterr().out.strip() == run
    steps = [json.loads(x)["step"] for x in (tmp_path / "run" / "metrics.jsonl").open()]
    assert steps == [1, 2, 3, 4, 5]
    assert main(["train", recipe, "train.steps=5", "-o", run]) == 0
    assert "nothing to do, its 5 steps are done" in capsys.readouterr().out
    assert main(["train", recipe, "train.steps=4", "-o", run, "--dry-run"]) == 0
    assert "4, 5 done" in capsys.readouterr().out
    change = ["train.steps=6", "optimizer.learning_rate=1e-5", "-o", run]
    assert main(["train", recipe, *change]) == 1
    assert "go on with this by --allow-change" in capsys.readouterr().err
    assert main(["train", recipe, *change, "--allow-change"]) == 0
    assert "changed from step 5 on: optimizer.learning_rate is 1e-05" in capsys.readouterr().err


def test_dry_run_writes_nothing(recipe, tmp_path, capsys):
    assert main(["train", recipe, "-o", str(tmp_path / "run"), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "parameters" in out
    assert not (tmp_path / "run").exists()


def test_a_dry_run_lists_the_shapes_of_the_data(tmp_path, capsys):
    nano = str(next(file for file in RECIPES if file.name == "nano.yaml"))
    for frames, num in ((9, 3), (1, 2)):
        given = ["shapes:train", "--num", str(num), "--frames", str(frames), "--check", "0"]
        assert main(["tokenize", *given, "-o", str(tmp_path / str(frames)), "--quiet"]) == 0
    shards = f"data.shards=[{tmp_path / '9'}, {tmp_path / '1'}]"
    words = ["train", nano, "tokenizer=nano", shards, "data.batch_tokens=1000", "--dry-run"]
    capsys.readouterr()
    assert main([*words, "-o", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert "data        3 clips of 3×8×8 codes, 4 per pass: 836 tokens, 82% of all passes" in out
    assert "            2 clips of 1×8×8 codes, 12 per pass: 972 tokens, 18% of all passes" in out
    assert main([*words, "-o", str(tmp_path / "run"), "--json", "data.latent_frames=2"]) == 0
    found = json.loads(capsys.readouterr().out)["data"]
    assert found["num_left_out"] == 2
    assert found["grids"][0]["grid"] == {"frames": 2, "rows": 8, "columns": 8}


def test_all_faults_of_a_recipe_at_once(recipe, capsys):
    faults = ["train.stepz=3", "optimizer.learning_rate=fast", "data.frames=0"]
    assert main(["train", recipe, *faults]) == 2
    err = capsys.readouterr().err
    assert "train.steps" in err
    assert "optimizer.learning_rate" in err
    assert "data.frames" in err
    assert "Traceback" not in err
    assert len(err.splitlines()) == 5


def test_frames_that_do_not_fit_are_refused(recipe, capsys):
    assert main(["train", recipe, "data.frames=6"]) == 2
    assert "5 or 9" in capsys.readouterr().err


@pytest.mark.parametrize("file", RECIPES, ids=lambda f: f.name)
def test_shipped_recipes_load_and_say_what_they_are(file):
    from ursa_core.recipe.loading import load_recipe

    assert load_recipe(file, []).name == file.stem
    head = file.read_text().split("kind:")[0]
    for word in ("Purpose", "Hardware", "Time", "Command", "Result"):
        assert f"# {word}" in head


def test_ctrl_c_saves_and_exits_130(recipe, tmp_path):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "ursa_cli", "train", recipe, "train.steps=100000"]
    process = subprocess.Popen(
        [*command, "-o", str(run)], stderr=subprocess.PIPE, text=True, env={**os.environ}
    )
    metrics = run / "metrics.jsonl"
    wait_until(lambda: metrics.exists() and metrics.read_text(), process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the run is saved" in err
    assert "Traceback" not in err
    saved = [p.name for p in (run / "checkpoints").iterdir()]
    assert len(saved) == 1
    step = int(saved[0].removeprefix("step-"))
    assert main(["train", recipe, f"train.steps={step + 2}", "-o", str(run), "--quiet"]) == 0


def test_a_file_is_no_run_folder(recipe, tmp_path, capsys):
    (tmp_path / "a.mp4").write_text("x")
    assert main(["train", recipe, "-o", str(tmp_path / "a.mp4"), "--dry-run"]) == 2
    assert "is a file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tokenizer", "message", "advice"),
    [
        (
            "runs/nano_tokenizer",
            "/nano_tokenizer isn't on this machine, .* can't be reached",
            "runs--",
        ),
        ("lab/gone", "there is no model 'lab/gone'", "check the spelling"),
        ("lab/gated", "doesn't let you have lab/gated", "hf auth login"),
        ("lab/flux", "lab/flux is no URSA model, the hub's copy lacks", "URSA-1.7B-FSQ320"),
        ("mine", "there is no model 'mine': no shipped name", "shipped models: emoji, nano"),
    ],
)
def test_a_missing_tokenizer_says_why_and_what_to_train_first(
    tokenizer, message, advice, tmp_path, capsys, monkeypatch, home
):
    monkeypatch.chdir(tmp_path)
    nano = next(file for file in RECIPES if file.name == "nano.yaml")
    words = ["train", str(nano), f"tokenizer={tokenizer}", "-o", "run", "--dry-run"]
    refusals = {"lab/gated": (403, {"X-Error-Code": "GatedRepo"})}
    repos = {"lab/flux": {"main": {"README.md": b"hello"}}}
    with serve(Hub(repos=repos, refusals=refusals)) as hub:
        if tokenizer.startswith("lab/"):
            home(hub.address)
        assert main(words) == 1
    error, hint = capsys.readouterr().err.splitlines()
    assert re.search(message, error)
    assert advice in hint
    assert hint.endswith("or train it first, by a recipe of `kind: tokenizer`")
    assert not (tmp_path / "run").exists()
