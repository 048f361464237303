"""`ursa models push`, to the stand-in of the hub."""

import json
import re

import pytest
from hub_stand_in import Hub, files_of, serve
from huggingface_hub import constants
from tiny_runs import TOKENIZER, train

from ursa_cli.main import main
from ursa_core.bundle.bundle import load_bundle, resolve_model
from ursa_core.bundle.folder import shipped_models

ID = "me/mine"
NANO = shipped_models()["nano"]


def two_lines(capsys):
    error, hint = capsys.readouterr().err.splitlines()
    return error, hint


@pytest.fixture
def hub(home, monkeypatch):
    with serve(Hub()) as served:
        home(served.address)
        monkeypatch.setenv("HF_TOKEN", served.token)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the stand-in has no such store
        yield served


def test_a_run_becomes_a_private_model_that_can_be_pulled(generator_recipe, hub, tmp_path, capsys):
    run = tmp_path / "run"
    train(generator_recipe, tmp_path, "run", "train.steps=2", "licence=cc0-1.0")
    assert main(["models", "push", str(run), ID, "--quiet"]) == 0
    assert capsys.readouterr().out.strip().startswith(f"{hub.address}/{ID}/commit/")
    files = hub.repos[ID]["main"]
    assert hub.private[ID] is True
    assert {name.split("/")[0] for name in files} == {
        *("README.md", "model_index.json", "scheduler", "tokenizer"),
        *("transformer", "ursa.json", "vae"),
    }
    assert all(files[name] == (run / name).read_bytes() for name in files)
    pulled = load_bundle(resolve_model(ID))
    for name, value in load_bundle(run).transformer.state_dict().items():
        assert value.equal(pulled.transformer.state_dict()[name])


def test_a_name_that_exists_is_kept_unless_asked(hub, tmp_path, capsys):
    hub.repos[ID] = {"main": {"README.md": b"theirs", "other.txt": b"kept"}}
    assert main(["models", "push", str(NANO), ID]) == 1
    error, hint = two_lines(capsys)
    assert "has a me/mine already" in error
    assert "--force" in hint
    assert hub.repos[ID]["main"] == {"README.md": b"theirs", "other.txt": b"kept"}
    assert main(["models", "push", str(NANO), ID, "--force"]) == 0
    assert hub.repos[ID]["main"] == {**files_of(NANO), "other.txt": b"kept"}
    assert main(["models", "push", str(NANO), "me/open", "--public"]) == 0
    assert hub.private["me/open"] is False


@pytest.mark.parametrize(
    ("token", "address", "message", "advice"),
    [
        ("", None, "takes models only from those it knows", "hf auth login"),
        ("hf_other", None, "doesn't let you write me/mine", "may write"),
        (None, "http://127.0.0.1:9", "can't be reached", "connect"),
    ],
)
def test_what_keeps_a_push_from_the_hub(
    token, address, message, advice, hub, home, tmp_path, capsys, monkeypatch
):
    if address:
        home(address)
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    assert main(["models", "push", str(NANO), ID]) == 1
    error, hint = two_lines(capsys)
    assert message in error
    assert advice in hint
    assert hub.repos == {}


def test_what_is_no_model_or_no_id_is_refused(hub, tmp_path, capsys):
    train(TOKENIZER, tmp_path, "tokenizer", "train.steps=1")
    capsys.readouterr()
    assert main(["models", "push", str(tmp_path / "tokenizer"), ID]) == 1
    error, hint = two_lines(capsys)
    assert "is a tokenizer, which goes to the hub as a part of a model" in error
    assert "push a generator" in hint
    assert main(["models", "push", str(tmp_path / "none"), ID]) == 1
    assert "there is no folder" in two_lines(capsys)[0]
    assert main(["models", "push", str(NANO), f"{ID}@v1"]) == 2
    assert two_lines(capsys)[1] == f"hint: give {ID}"
    assert main(["models", "push", str(NANO), "mine"]) == 2
    assert "is no Hugging Face id" in two_lines(capsys)[0]
    assert hub.repos == {}


def test_the_card_says_what_a_model_is_and_never_assumes_a_licence(generator_recipe, tmp_path):
    train(generator_recipe, tmp_path, "run", "train.steps=2")
    card = tmp_path / "run" / "README.md"
    text = card.read_text()
    assert "license" not in text.partition("\n# ")[0]
    assert "## Licence\n\nNot stated." in text
    assert "- clips: 24" in text
    assert "- step: 2" in text
    assert re.search(r"- loss: \d", text)
    assert "kind: generator" in text
    assert json.loads((tmp_path / "run" / "ursa.json").read_text())["licence"] == "not stated"
    more = ("train.steps=3", "optimizer.learning_rate=1e-4", "licence=mit")
    train(generator_recipe, tmp_path, "run", *more, allow_change=True)
    text = card.read_text()
    assert text.startswith("---\nlicense: mit\n")
    assert "- after step 2: optimizer.learning_rate is 0.0001, was 0.001" in text
    assert json.loads((tmp_path / "run" / "ursa.json").read_text())["licence"] == "mit"
    tuned = (f"init={tmp_path / 'run'}", "train.steps=1")
    train(generator_recipe, tmp_path, "tuned", *tuned)
    assert "whose licence is: mit" in (tmp_path / "tuned" / "README.md").read_text()
    train(generator_recipe, tmp_path, "run", *more[:2], "licence=bsd", allow_change=True)
    assert card.read_text().startswith("---\nlicense: bsd\n")  # of a run that was finished
    assert re.search(r"- loss: \d", card.read_text())
    assert json.loads((tmp_path / "run" / "ursa.json").read_text())["licence"] == "bsd"
    timed = ("train.max_hours=1e-9", "train.steps=9")  # at its end, too, though not of its steps
    train(generator_recipe, tmp_path, "timed", *timed)
    train(generator_recipe, tmp_path, "timed", *timed, "licence=mit")
    assert (tmp_path / "timed" / "README.md").read_text().startswith("---\nlicense: mit\n")
    card.write_text("my own words")
    train(generator_recipe, tmp_path, "run", *more, "train.steps=4", allow_change=True)
    assert card.read_text() == "my own words"
