"""Batches on a Ray cluster: the same outputs as of one process, whatever dies."""

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from no_av import WithoutAv
from notes_task import Notes, make_notes
from PIL import Image
from waiting import is_open, wait_until

from ursa_cli.main import main
from ursa_cli.terminal import output
from ursa_core.batches import ray_pool
from ursa_core.batches.manifest import Records, Writer
from ursa_core.encoding import on_ray
from ursa_core.errors import DataError, DeviceError
from ursa_core.media import write_media
from ursa_core.parts import Part
from ursa_core.tokens.shards import shard_paths
from ursa_core.tokens.token_files import load_tokens

# Newer versions of Ray ask for a token, and read where it is when they are imported.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
pytest.importorskip("ray", reason="Ray isn't installed: pip install 'ursa-video[ray]'")
pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
TEN = "".join(f"note {k}\n" for k in range(10))


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Address of a cluster of two cores on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    paths = [str(ROOT), str(ROOT / "tests" / "stand_ins")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "RAY_USAGE_STATS_ENABLED": "0"}
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    start = ["start", "--head", f"--port={port}", "--node-ip-address=127.0.0.1", "--num-cpus=2",
             "--include-dashboard=false", "--block", "--object-store-memory=100000000"]  # fmt: skip
    log = subprocess.DEVNULL
    head = subprocess.Popen([*ray, *start], env=env, stdout=log, stderr=log, process_group=0)
    try:
        wait_until(lambda: is_open(port), head)
        yield f"127.0.0.1:{port}"
    finally:
        head.terminate()
        head.wait(60)


@pytest.fixture(autouse=True)
def _plain() -> None:
    output.configure()


def notes(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(folder.glob("[!.]*.png"))}


def entries(folder: Path) -> set[str]:
    """Lines of a manifest without times."""
    lines = map(json.loads, (folder / "manifest.jsonl").read_text().splitlines())
    return {
        json.dumps({k: v for k, v in line.items() if k not in ("time", "seconds")}, sort_keys=True)
        for line in lines
    }


def test_notes_are_those_of_one_process_and_either_goes_on(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_notes(tmp_path / "one", TEN)
    make_notes(tmp_path / "ray", TEN, batch_size=2, ray=address)
    told = capsys.readouterr().err
    assert re.search(r"items/s, [12] actors? on 1 node$", told.strip())
    assert notes(tmp_path / "ray") == notes(tmp_path / "one")
    assert {line.replace('"device": "cpu", ', "") for line in entries(tmp_path / "ray")} == entries(
        tmp_path / "one"
    )
    assert make_notes(tmp_path / "ray", TEN).packs == []
    lines = "".join(f"note {k}\n" for k in range(5))
    make_notes(tmp_path / "begun", lines)
    make_notes(tmp_path / "begun", TEN, ray=address)
    assert "5 made, 5 kept" in capsys.readouterr().err
    assert notes(tmp_path / "begun") == notes(tmp_path / "one")


def test_items_of_an_actor_that_dies_go_to_others(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = Notes()
    task.deaths = tmp_path / "deaths"
    task.deaths.mkdir()
    make_notes(tmp_path / "out", f"die\n{TEN}", task, ray=address)
    assert len(list(task.deaths.iterdir())) == 3
    assert len(notes(tmp_path / "out")) == 11
    again = re.search(r"(\d+) given to others", capsys.readouterr().err)
    assert again
    assert int(again[1]) >= 2


def test_an_item_that_kills_its_actors_fails_and_the_rest_goes_on(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_pool, "_MAX_LOST", 2)
    task = Notes()
    task.deaths = tmp_path / "deaths"
    task.deaths.mkdir()
    with pytest.raises(DataError, match="1 of 11 items failed"):
        make_notes(tmp_path / "out", f"die\n{TEN}", task, ray=address)
    record = Records(tmp_path / "out")["item 0"]
    assert (record.status, record.error) == ("failed", "the worker died, 2 times")
    assert len(notes(tmp_path / "out")) == 10


def test_ctrl_c_leaves_a_batch_that_goes_on(address: str, tmp_path: Path) -> None:
    def press() -> None:
        wait_until(lambda: notes(tmp_path / "out"))
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press).start()
    with pytest.raises(KeyboardInterrupt):
        make_notes(tmp_path / "out", TEN, Notes(seconds=0.5), ray=address)
    made = notes(tmp_path / "out")
    assert 0 < len(made) < 10
    assert sum(r.status == "done" for r in Records(tmp_path / "out").values()) == len(made)
    make_notes(tmp_path / "out", TEN, ray=address)
    make_notes(tmp_path / "one", TEN)
    assert notes(tmp_path / "out") == notes(tmp_path / "one")


def test_a_failed_item_is_told_and_the_rest_is_made(address: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 of 11 items failed"):
        make_notes(tmp_path / "out", f"fail\n{TEN}", batch_size=3, ray=address)
    assert Records(tmp_path / "out")["item 0"].error == "fail fails"
    assert len(notes(tmp_path / "out")) == 10


def test_another_version_and_a_model_that_is_not_there_are_told(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Notes()
    task.model_folder = tmp_path / "gone"
    with pytest.raises(DataError, match=r"the node [\d.]+ has no model in .*gone"):
        make_notes(tmp_path / "out", TEN, task, ray=address)
    monkeypatch.setattr(ray_pool, "__version__", "99")
    with pytest.raises(DataError, match=r"has ursa .*, this one 99"):
        make_notes(tmp_path / "out", TEN, ray=address)
    monkeypatch.undo()
    make_notes(tmp_path / "out", TEN, ray=address)
    assert len(notes(tmp_path / "out")) == 10


def test_why_nothing_runs_is_told(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_pool, "_PATIENCE_SECONDS", 0.0)
    import ray

    ray.init(address, logging_level="ERROR", log_to_driver=False)
    try:
        with Writer(tmp_path, Part()) as writer:
            pool = ray_pool.RayPool(
                ray, ray_pool.RayOptions(gpus=1), Notes(), writer.append, str, output.warn
            )
        assert "a worker takes 1 GPU; of 0 in the cluster 0 are free" in pool._why_idle()
    finally:
        ray.shutdown()


def png(path: Path, k: int) -> None:
    picture = Image.new("RGB", (64, 64), (9 * k, 80, 200 - 7 * k))
    picture.paste((200, 10 * k, 30), (k, k, 20 + k, 20 + k))
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    path.with_suffix(".txt").write_text(f"square {k}\n")


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [row for path in shard_paths(folder) for row in pq.read_table(path).to_pylist()]


TOKENIZE = ["--model", "nano", "--device", "cpu", "--frames", "1", "--size", "64x64"]


@pytest.fixture
def media(tmp_path: Path) -> Path:
    for k in range(20):
        png(tmp_path / "media" / f"{k:02d}.png", k)
    (tmp_path / "media" / "07.png").write_bytes(b"no picture")
    return tmp_path / "media"


def test_shards_are_those_of_one_process_and_either_goes_on(
    address: str, media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)  # as a worker of one core

    def made(folder: str, *more: str, code: int = 1) -> dict[str, Any]:
        capsys.readouterr()
        asked = ["tokenize", str(media), "shapes:train", "--num", "3", "--check", "99", "--json"]
        assert main([*asked, "-o", str(tmp_path / folder), *TOKENIZE, *more]) == code
        found = capsys.readouterr()
        assert code == 0 or "skipped: " in found.err
        kept = ("num_done", "num_kept", "num_skipped", "items", "psnr", "ssim")
        payload: dict[str, Any] = json.loads(found.out)
        payload["items"].sort(key=str)  # faults are found early in one process
        return {name: payload[name] for name in kept}

    one = made("one")
    assert made("ray", "--ray", address) == one
    assert one["num_done"] == 22
    assert rows_of(tmp_path / "ray") == rows_of(tmp_path / "one")
    reports = [(tmp_path / name / "report.jsonl").read_text() for name in ("ray", "one")]
    assert sorted(reports[0].splitlines()) == sorted(reports[1].splitlines())
    assert str(media / "07.png") in str(one["items"])
    for first, second in (([], ["--ray", address]), (["--ray", address], [])):
        folder = f"begun{len(first)}"
        hidden = (media / "19.png").rename(tmp_path / "19.png")
        made(folder, *first)
        hidden.rename(media / "19.png")
        assert made(folder, *second)["num_kept"] == 21
        assert len(rows_of(tmp_path / folder)) == 22
    png(media / "07.png", 7)
    png(media / "03.png", 23)
    assert made("ray", "--ray", address, code=0)["num_done"] == 2
    assert len(rows_of(tmp_path / "ray")) == 23


def test_files_of_an_actor_that_dies_go_to_others(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("RAY_ADDRESS", address)
    asked = ["tokenize", "shapes:train", "--num", "200", "--model", "nano", "--device", "cpu"]
    plain = ["--frames", "1", "--check", "0"]
    assert main([*asked, *plain, "-o", str(tmp_path / "one")]) == 0
    killed = threading.Event()

    def kill() -> None:
        while not killed.is_set():
            for found in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    if found.read_bytes().startswith(b"ray::_Worker.make"):
                        os.kill(int(found.parent.name), signal.SIGKILL)
                        killed.set()
                        return
            time.sleep(0.01)

    threading.Thread(target=kill, daemon=True).start()
    asked += ["--ray", "auto"]
    assert main([*asked, *plain, "-o", str(tmp_path / "ray")]) == 0
    assert killed.is_set()
    assert "given to others" in capsys.readouterr().err
    assert rows_of(tmp_path / "ray") == rows_of(tmp_path / "one")


def test_ctrl_c_leaves_shards_that_go_on(address: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    asked = ["tokenize", "shapes:train", "--num", "300", "-o", str(out), "--ray", address]
    asked += ["--model", "nano", "--device", "cpu", "--frames", "1", "--check", "0"]
    command = [sys.executable, "-m", "ursa_cli", *asked]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    workers = Path("/proc").glob
    wait_until(lambda: any(_holds(p, b"ray::_Worker.make") for p in workers("[0-9]*/cmdline")), run)
    run.send_signal(signal.SIGTERM)
    errors = run.communicate(timeout=120)[1]
    assert run.returncode == 130, errors
    assert "the same command goes on" in errors
    num = len(rows_of(out))
    assert num < 300
    assert main(asked) == 0
    assert len({row["source"] for row in rows_of(out)}) == len(rows_of(out)) == 300


def _holds(path: Path, start: bytes) -> bool:
    with suppress(OSError):
        return path.read_bytes().startswith(start)
    return False


def test_a_worker_that_cannot_read_what_this_machine_can_is_told(
    address: str, media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(on_ray, "_EncodeTask", WithoutAv)
    film = media / "film.mkv"
    write_media(film, np.zeros((5, 64, 64, 3), np.uint8), 8.0, {})
    asked = ["tokenize", str(media), "-o", str(tmp_path / "out"), *TOKENIZE, "--ray", address]
    assert main(asked) == 1
    errors = capsys.readouterr().err
    assert re.search(rf"error: the node \S+ can't read {film}, which this one can: .*PyAV", errors)
    assert "hint: install the same versions of PyAV and Pillow on all nodes" in errors
    assert rows_of(tmp_path / "out")  # nothing that was made is lost
    monkeypatch.undo()
    assert main(asked) == 1
    assert "error: 1 of 21 clips were skipped" in capsys.readouterr().err


@pytest.mark.parametrize("more", [["--shard", "1/2"], ["-o", "one.safetensors"]])
def test_what_does_not_go_with_ray_is_refused(
    more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = [] if "-o" in more else ["-o", str(tmp_path / "out")]
    assert main(["tokenize", "shapes:train", "--ray", "auto", *out, *more]) == 2
    assert "--ray can't both be given" in capsys.readouterr().err


def test_no_cluster_is_told(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"no Ray cluster can be used at nowhere\.invalid:1"):
        make_notes(tmp_path / "out", TEN, ray="nowhere.invalid:1")


def test_clips_of_given_frames_are_those_of_one_process(address: str, tmp_path: Path) -> None:
    os.chdir(tmp_path)
    fast = ["--steps", "2", "--device", "cpu", "--dtype", "float32", "--seed", "3"]
    assert main(["sample", "a red circle", "-o", "first.png", "--frames", "1", *fast]) == 0
    Path("list.jsonl").write_text('{"prompt": "a", "image": "first.png"}\n{"prompt": "b"}\n')
    for folder, more in (("one", []), ("ray", ["--ray", address])):
        asked = ["sample", "--from-file", "list.jsonl", *fast, "--save-tokens", f"{folder}-tokens"]
        assert main([*asked, "-o", folder, *more]) == 0
        longer = [
            "extend",
            "--from-file",
            "clips.txt",
            "-o",
            f"{folder}-longer",
            "--frames",
            "21",
            *fast,
        ]
        Path("clips.txt").write_text("one/00001-b.mp4\n")
        assert main([*longer, *more]) == 0
    for folder in ("", "-longer"):
        made = {p.name: p.read_bytes() for p in Path(f"one{folder}").glob("[!.m]*")}
        assert made
        assert {p.name: p.read_bytes() for p in Path(f"ray{folder}").glob("[!.m]*")} == made
    for tokens in Path("one-tokens").iterdir():  # whose metadata have no order
        one, other = load_tokens(tokens), load_tokens(Path("ray-tokens") / tokens.name)
        assert torch.equal(one.codes, other.codes)
        assert one.metadata == other.metadata


def test_samples_of_a_suite_are_those_of_one_process(address: str, tmp_path: Path) -> None:
    fast = ["--model", "nano", "--steps", "2", "--device", "cpu", "--dtype", "float32"]
    asked = ["eval", "shapes", *fast, "--limit", "1", "--only", "sample", "-o"]
    assert main([*asked, str(tmp_path / "one")]) == 0
    assert main([*asked, str(tmp_path / "ray"), "--ray", address]) == 0
    made = {path.name: path.read_bytes() for path in tmp_path.glob("one/samples/**/*.mp4")}
    assert made
    assert {path.name: path.read_bytes() for path in tmp_path.glob("ray/samples/**/*.mp4")} == made
