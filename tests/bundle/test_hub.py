"""Models of the Hugging Face hub: ids, downloads from a stand-in, and what is found offline."""

import ast
import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import huggingface_hub.file_download
import numpy as np
import pytest
from hub_stand_in import Hub, commit, files_of, serve
from safetensors.numpy import save

from ursa_cli.main import main
from ursa_core.bundle import hub as ursa_hub
from ursa_core.bundle.bundle import resolve_model
from ursa_core.bundle.folder import URSA_MODEL, shipped_models
from ursa_core.bundle.hub import (
    HubId,
    download,
    found_here,
    models_folder,
    name_of,
    parse_id,
    require_id,
)
from ursa_core.bundle.settings import load_settings
from ursa_core.bundle.summary import summary
from ursa_core.errors import (
    CheckpointError,
    DataError,
    HubError,
    HubUnreachableError,
    UsageError,
)

ROOT = Path(__file__).parents[2]
NANO = shipped_models()["nano"]
ID = "lab/tiny-model"
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
CODE = {"modeling.py": b"raise SystemExit", "pytorch_model.bin": b"pickle", "vae/net.py": b""}


@pytest.fixture(scope="module")
def files():
    names = [name for name in files_of(NANO) if name.endswith(".safetensors")]
    weights = {n: save({"w": np.full(100_000, k, np.float32)}) for k, n in enumerate(names)}
    extra = {"README.md": b"---\nlicense: mit\n---\n", "scheduler/scheduler_model.pth": b"p"}
    return {**files_of(NANO), **weights, **extra, **CODE}


@pytest.fixture
def hub(files, home):
    with serve(Hub(repos={ID: {"main": files}})) as served:
        home(served.address)
        yield served


def names(folder):
    return {name for name in files_of(folder) if not name.startswith(".")}


def two_lines(capsys):
    shown = capsys.readouterr()
    assert shown.out == ""
    error, hint = shown.err.splitlines()
    return error.removeprefix("error: "), hint.removeprefix("hint: ")


@pytest.mark.parametrize("text", [ID, "BAAI/URSA-1.7B-FSQ320", "a/b@main", "a/b@refs/pr/1"])
def test_ids_are_read(text):
    assert str(parse_id(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        *(
            "nano",
            "nanoo",
            "a/b/c",
            "./a/b",
            "/a/b",
            "~/b",
            "a/",
            "/b",
            "a//b",
            "a b/c",
            "a/b@",
            "@a/b",
        ),
        *("a/b.git", "a--b/c", "a/b..c", "a/-b", "a/b-", "a\\b/c", "hf:/a/b", "ä/b", "a/b\n"),
        *("a/b@../c", "a/b@x y", "a/" + "b" * 96, "x" * 300, "https://huggingface.co/a/b"),
    ],
)
def test_other_texts_are_no_ids_and_are_not_looked_up(text, home):
    assert parse_id(text) is None
    with pytest.raises(UsageError):
        require_id(text)
    if text != "nano":
        with pytest.raises(CheckpointError, match="no shipped name, folder or Hugging Face id"):
            resolve_model(text)


def test_an_address_of_the_hub_is_an_id(home):
    with pytest.raises(HubUnreachableError, match="the model a/b isn't on this machine"):
        resolve_model("hf://a/b")


def test_a_revision_is_given_once():
    assert require_id(ID, "v1") == require_id(f"{ID}@v1") == HubId(ID, "v1")
    with pytest.raises(UsageError, match="another revision"):
        require_id(f"{ID}@v1", "v2")
    with pytest.raises(UsageError, match="no revision"):
        require_id(ID, "../x")


def test_download_brings_the_model_and_no_code(hub, files):
    done = []

    class Progress:
        def __init__(self, total, label):
            assert ID in label
            self.total = total

        def __enter__(self):
            return done.append

        def __exit__(self, *_):
            assert sum(done) == self.total

    folder = download(HubId(ID), progress=Progress)
    assert names(folder) == set(files) - set(CODE)
    assert all((folder / name).read_bytes() == files[name] for name in names(folder))
    assert sum(done) == sum(len(files[name]) for name in names(folder))
    assert not set(hub.fetched()) & set(CODE)
    assert name_of(folder) == ID
    assert name_of(folder, exact=True) == f"{ID}@{commit(files)}"
    # A second one fetches nothing.
    hub.asked.clear()
    assert download(HubId(ID)) == folder
    assert hub.fetched() == []


def test_after_a_download_no_network_is_needed(hub, home, files):
    folder = resolve_model(ID)
    asked = len(hub.asked)
    assert resolve_model(ID) == folder
    assert len(hub.asked) == asked
    home("http://127.0.0.1:9")
    assert resolve_model(ID) == folder
    assert resolve_model(f"{ID}@{commit(files)}") == folder
    assert load_settings(folder).frames == load_settings(NANO).frames
    assert ursa_hub.pulled_models() == {ID: folder}
    with pytest.raises(HubUnreachableError):
        resolve_model(f"{ID}@other")


def test_a_broken_connection_is_taken_up_where_it_broke(hub, files, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1 << 14)
    hub.cut[WEIGHTS] = 1
    folder = download(HubId(ID))
    assert (folder / WEIGHTS).read_bytes() == files[WEIGHTS]
    ranges = [part for method, name, part in hub.asked if (method, name) == ("GET", WEIGHTS)]
    half = len(files[WEIGHTS]) // 2
    assert ranges == ["", f"bytes={half - half % (1 << 14)}-"]


def test_whole_files_are_kept_when_a_download_stops(hub, files, monkeypatch):
    monkeypatch.setattr(huggingface_hub.file_download.time, "sleep", lambda _: None)
    hub.cut[WEIGHTS] = 1000
    with pytest.raises(HubError, match="was cut") as caught:
        download(HubId(ID))
    assert "same command again" in caught.value.hint
    assert found_here(HubId(ID)) is None
    hub.cut.clear()
    before = set(hub.fetched()) - {WEIGHTS}
    hub.asked.clear()
    URSA_MODEL.check(download(HubId(ID)))
    assert WEIGHTS in hub.fetched()
    assert not set(hub.fetched()) & before


def test_ctrl_c_stops_a_download_at_once(hub):
    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(HubId(ID), progress=lambda *_: ursa_hub.nullcontext(stop))
    assert len(hub.fetched()) == 1


def test_revisions_are_models_of_their_own(hub, files):
    old = {**files, "README.md": b"old"}
    hub.repos[ID]["v1"] = old
    first, now = resolve_model(f"{ID}@v1"), resolve_model(ID)
    assert (first / "README.md").read_bytes() == b"old"
    assert (now / "README.md").read_bytes() == files["README.md"]
    assert name_of(first) == f"{ID}@v1"
    assert set(ursa_hub.pulled_models()) == {ID, f"{ID}@v1"}
    # A branch that moved is followed by a pull, not by a look-up.
    hub.repos[ID]["v1"] = {**files, "README.md": b"new"}
    assert resolve_model(f"{ID}@v1") == first
    assert (download(HubId(ID, "v1")) / "README.md").read_bytes() == b"new"


@pytest.mark.parametrize(
    ("refusal", "message", "hint"),
    [
        ((404, {"X-Error-Code": "RepoNotFound"}), "there is no model 'lab/x'", "spelling"),
        ((401, {}), "neither a folder here, nor one", "HF_TOKEN"),
        ((401, {"X-Error-Message": "Invalid credentials in Authorization header"}), "token", ""),
        ((403, {"X-Error-Code": "GatedRepo"}), "permission", "hf auth login"),
        ((403, {}), "permission", "HF_TOKEN"),
        ((404, {"X-Error-Code": "RevisionNotFound"}), "no revision 'main'", "branch"),
        ((500, {}), "error 500", "later"),
    ],
)
def test_refusals_say_what_to_do(hub, refusal, message, hint, capsys):
    hub.refusals["lab/x"] = refusal
    assert main(["models", "pull", "lab/x"]) == 1
    told, advice = two_lines(capsys)
    assert message in told
    assert hint in advice


def test_an_answer_that_is_no_hubs_is_refused(hub):
    hub.refusals["lab/x"] = (200, {"Content-Type": "text/html"})
    with pytest.raises(HubError, match="doesn't answer as a hub does"):
        download(HubId("lab/x"))


def test_without_network_the_folder_for_files_is_named(home, capsys):
    for words in (["models", "pull", ID], ["sample", "x", "-o", "a.mp4", "--model", ID]):
        assert main(words) == 1
        told, advice = two_lines(capsys)
        assert ID in told
        assert "can't be reached" in told
        assert str(models_folder() / "lab--tiny-model") in advice


def test_an_address_that_is_none_is_told(home):
    home("nonsense")
    with pytest.raises(HubUnreachableError, match="nonsense can't be reached"):
        download(HubId(ID))


def test_offline_mode_is_honoured(hub, monkeypatch, capsys):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert main(["models", "pull", ID]) == 1
    told, advice = two_lines(capsys)
    assert "HF_HUB_OFFLINE" in told
    assert "lab--tiny-model" in advice
    assert hub.asked == []


def test_files_put_by_hand_are_found(home):
    by_hand = models_folder() / "lab--tiny-model"
    shutil.copytree(NANO, by_hand)
    assert resolve_model(ID) == by_hand
    assert name_of(by_hand, exact=True) == ID
    assert ursa_hub.pulled_models() == {ID: by_hand}
    (by_hand / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=f"lacks {WEIGHTS}"):
        resolve_model(ID)


def test_what_is_no_ursa_model_is_refused_before_its_weights(hub, files):
    index = json.dumps({"_class_name": "FluxPipeline"}).encode()
    hub.repos["lab/flux"] = {"main": {**files, "model_index.json": index}}
    hub.repos["lab/bare"] = {"main": {"README.md": b"hello", "model.safetensors": b"0"}}
    hub.repos["lab/empty"] = {"main": {}}
    with pytest.raises(CheckpointError, match="describes a 'FluxPipeline'"):
        resolve_model("lab/flux")
    with pytest.raises(CheckpointError, match=r"lacks model_index\.json, scheduler/.* and 4 more"):
        resolve_model("lab/bare")
    with pytest.raises(CheckpointError, match="lacks model_index"):
        resolve_model("lab/empty")
    assert not [name for name in hub.fetched() if name.endswith(".safetensors")]
    assert ursa_hub.pulled_models() == {}


@pytest.mark.parametrize("name", ["bin", "fp16.safetensors"])
def test_the_way_to_weights_in_another_form_is_told(hub, files, name):
    other = {n: content for n, content in files.items() if n != WEIGHTS}
    hub.repos["lab/tuned"] = {"main": {**other, WEIGHTS.replace("safetensors", name): b"0"}}
    with pytest.raises(CheckpointError, match=f"lacks {WEIGHTS}") as caught:
        resolve_model("lab/tuned")
    assert "ursa models convert DIR" in caught.value.hint


def test_a_shard_that_is_missing_is_named(hub, files):
    index = json.dumps({"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}).encode()
    sharded = {name: content for name, content in files.items() if name != WEIGHTS}
    sharded |= {f"{WEIGHTS}.index.json": index, "transformer/a.safetensors": files[WEIGHTS]}
    hub.repos["lab/half"] = {"main": sharded}
    with pytest.raises(CheckpointError, match=r"lacks transformer/b\.safetensors"):
        resolve_model("lab/half")


def test_a_full_disk_is_told_before_and_during_a_download(hub, monkeypatch):
    usage = shutil._ntuple_diskusage(10, 10, 0)
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda _: usage)
        with pytest.raises(DataError, match=r"takes .* GB, the disk of .* has 0 GB free"):
            download(HubId(ID))
    assert hub.asked == []

    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface_hub.file_download, "http_get", fail)
    with pytest.raises(DataError, match="the disk is full"):
        download(HubId(ID))


def test_pull_prints_the_folder(hub, tmp_path, capsys):
    assert main(["models", "pull", ID]) == 0
    folder = resolve_model(ID)
    assert capsys.readouterr().out == f"{folder}\n"
    assert main(["models", "pull", ID, "--revision", "main", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"name": f"{ID}@main", "folder": str(folder)}
    assert main(["models", "pull", ID, "--to", str(tmp_path / "here"), "--quiet"]) == 0
    shown = capsys.readouterr()
    assert shown.out == f"{tmp_path / 'here'}\n"
    assert shown.err == ""
    URSA_MODEL.check(tmp_path / "here")
    assert not list((tmp_path / "here").rglob("*.py"))
    assert main(["models", "list", "--json"]) == 0
    listed = {m["name"]: m for m in json.loads(capsys.readouterr().out)["models"]}
    assert set(listed) == {*shipped_models(), ID}
    assert main(["models", "show", ID]) == 0
    assert f"name             {ID}\n" in capsys.readouterr().out


def test_pull_without_network_keeps_what_is_there(hub, home, capsys):
    assert main(["models", "pull", ID]) == 0
    out = capsys.readouterr().out
    home("http://127.0.0.1:9")
    assert main(["models", "pull", ID]) == 0
    shown = capsys.readouterr()
    assert shown.out == out
    assert shown.err.startswith("warning: http://127.0.0.1:9 can't be reached")


def test_show_downloads_nothing(hub, capsys):
    assert main(["models", "show", ID]) == 1
    assert f"ursa models pull {ID}" in two_lines(capsys)[1]
    assert hub.asked == []


def test_pull_refuses_what_it_cannot_do(hub, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    for words, told in (
        (["nano"], "comes with ursa"),
        (["a/b/c"], "no Hugging Face id"),
        ([""], "is empty"),
        ([ID, "--to", str(tmp_path / "full")], "isn't empty"),
        ([ID, "--to", str(tmp_path / "full" / "mine.txt")], "no folder"),
    ):
        assert main(["models", "pull", *words]) == 2
        assert told in two_lines(capsys)[0]
    assert main(["models", "pull", ID, "--to", str(tmp_path / "full" / "mine.txt" / "a")]) == 1
    assert "can't be written" in two_lines(capsys)[0]


def test_list_goes_on_past_a_download_that_was_cut(hub, capsys):
    assert main(["models", "pull", ID]) == 0
    (resolve_model(ID) / WEIGHTS).unlink()
    capsys.readouterr()
    assert main(["models", "list"]) == 0
    shown = capsys.readouterr()
    assert "nano" in shown.out
    assert ID not in shown.out
    assert WEIGHTS in shown.err
    assert f"hint: ursa models pull {ID}" in shown.err


def test_the_librarys_environment_is_honoured(files, tmp_path):
    with serve(Hub(repos={ID: {"main": files}})) as hub:
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("HF_", "URSA_"))},
            "HF_ENDPOINT": hub.address,
            "HF_HOME": str(tmp_path / "home"),
            "PYTHONPATH": str(ROOT),
        }
        command = [sys.executable, "-m", "ursa_cli", "models", "pull", ID]
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip())
    assert folder.is_relative_to(tmp_path / "home")
    URSA_MODEL.check(folder)
    assert "error" not in done.stderr


def test_shipped_names_and_folders_need_no_hub_library(monkeypatch):
    for file in [*ROOT.glob("ursa_core/**/*.py"), *ROOT.glob("ursa_cli/**/*.py")]:
        tops = [
            node for node in ast.parse(file.read_text()).body if "huggingface" in ast.dump(node)
        ]
        assert not [node for node in tops if isinstance(node, ast.Import | ast.ImportFrom)]
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # an import of it fails
    assert resolve_model("nano") == resolve_model(str(NANO)) == NANO
    assert summary(NANO).name == "nano"
