"""Files behind addresses: an S3-compatible server, a web server, cut connections and refusals."""

import functools
import http.server
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import is_open, wait_until

import ursa_core as ursa
from ursa_cli.main import main
from ursa_core import places
from ursa_core.batches.manifest import Records
from ursa_core.errors import DataError, UsageError
from ursa_core.media import read_media, write_media
from ursa_core.tokens.shards import read_shards
from ursa_core.worlds.shapes import training_clip

SECRET = "aVerySecretKey"
FAST = ["--steps", "2", "--frames", "1", "--device", "cpu", "--dtype", "float32"]


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an S3-compatible server."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    log = tmp_path_factory.mktemp("s3") / "log"
    command = [sys.executable, "-m", "moto.server", "-p", str(port)]
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as server:
        wait_until(lambda: is_open(port), server, report=log.read_text)
        yield f"http://127.0.0.1:{port}"
        server.kill()


@pytest.fixture
def bucket(
    endpoint: str, home: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Any:  # fmt: skip
    """File system of a bucket, which is called after the test, and its address."""
    import s3fs

    for name, value in {
        "AWS_ACCESS_KEY_ID": "ursa", "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": endpoint, "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    fs, name = s3fs.S3FileSystem(), request.node.name.replace("_", "-").lower()[:60]
    fs.mkdir(name)
    places._known.clear()
    return fs, f"s3://{name}"


def use_new_machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("URSA_HOME", str(folder))
    places._known.clear()


@pytest.fixture
def films(tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    folder.mkdir()
    for k in range(3):
        clip, caption = training_clip(0, k, "all", 17, 64, 64)
        write_media(folder / f"{k}.mkv", clip, fps=8)
        (folder / f"{k}.txt").write_text(caption)
    return folder


def test_tokens_from_a_bucket_to_a_bucket(bucket, films, tmp_path, monkeypatch, capsys):
    fs, address = bucket
    fs.put(str(films), f"{address}/films", recursive=True)
    assert main(["tokenize", str(films), "-o", str(tmp_path / "here")]) == 0
    assert main(["tokenize", f"{address}/films", "-o", f"{address}/shards"]) == 0
    assert f"{address}/shards" in capsys.readouterr().out
    here, there = read_shards(tmp_path / "here"), read_shards(f"{address}/shards")
    assert [there.source(k) for k in range(3)] == [here.source(k) for k in range(3)]
    assert [there.captions(k) for k in range(3)] == [here.captions(k) for k in range(3)]
    assert all((there.row_codes(k) == here.row_codes(k)).all() for k in range(3))

    # Another machine knows from the bucket what is done, and what has changed there.
    use_new_machine(tmp_path / "other", monkeypatch)
    fs.put_file(str(films / "2.mkv"), f"{address}/films/1.mkv")
    assert main(["tokenize", f"{address}/films", "-o", f"{address}/shards", "--json"]) == 0
    shown = capsys.readouterr()
    assert f"changed, made again: {address}/films/1.mkv" in shown.err
    assert '"num_kept": 2' in shown.out
    assert len(read_shards(f"{address}/shards")) == 3
    one = ["tokenize", f"{address}/films/0.mkv", "-o", f"{address}/shards", "--fresh"]
    assert main(one) == 0
    table = read_shards(f"{address}/shards")
    assert len(table) == 1
    assert table.captions(0) == [(films / "0.txt").read_text()]


def test_a_batch_goes_on_from_its_bucket(bucket, tmp_path, monkeypatch, capsys):
    fs, address = bucket
    prompts = "a red circle on a navy background\na cyan square on a brown background\n"
    fs.pipe_file(f"{address}/prompts.txt", prompts.encode())
    (tmp_path / "prompts.txt").write_text(prompts)
    here = ["--from-file", str(tmp_path / "prompts.txt"), "-o", str(tmp_path / "here")]
    there = ["--from-file", f"{address}/prompts.txt", "-o", f"{address}/clips"]
    assert main(["sample", *here, "--seed", "3", *FAST]) == 0
    assert main(["sample", *there, "--seed", "3", *FAST]) == 0
    found = {Path(name).name: fs.cat_file(name) for name in fs.find(f"{address}/clips")}
    made = [path for path in (tmp_path / "here").iterdir() if path.suffix == ".mp4"]
    assert len(made) == 2
    assert {path.name: path.read_bytes() for path in made}.items() <= found.items()
    assert places.ursa_home().as_posix().encode() not in found["manifest.jsonl"]

    use_new_machine(tmp_path / "other", monkeypatch)
    fs.rm_file(f"{address}/clips/{made[0].name}")
    capsys.readouterr()
    assert main(["sample", *there, "--seed", "3", *FAST]) == 0
    assert "1 made, 1 kept" in capsys.readouterr().err
    assert fs.cat_file(f"{address}/clips/{made[0].name}") == made[0].read_bytes()
    assert main(["sample", *there, "--seed", "4", *FAST]) == 2
    assert f"{address}/clips is a batch of the seed 3" in capsys.readouterr().err


def test_outputs_go_up_after_their_records_and_wait_for_a_server(bucket, monkeypatch):
    fs, address = bucket
    monkeypatch.setattr(places, "_UPLOAD_SECONDS", 0.05)
    order: list[str] = []
    put = fs.put_file

    def recorded(file: str, where: str) -> None:
        order.append(Path(where).name)
        if "refused" in where:
            raise PermissionError
        put(file, where)

    monkeypatch.setattr(fs, "put_file", recorded)
    with ursa.published(f"{address}/out") as folder:
        folder.mkdir()
        (folder / "manifest.jsonl").write_text("{}\n")
        (folder / "a.mp4").write_bytes(b"clip")
        (folder / ".b.part").write_bytes(b"half")
        wait_until(lambda: "a.mp4" in order)
    assert order.index("manifest.jsonl") < order.index("a.mp4")
    assert not [name for name in fs.find(f"{address}/out") if "part" in name or "begun" in name]
    with (
        pytest.raises(DataError, match=f"{address}/out/refused.mp4 may not be written"),
        ursa.published(f"{address}/out") as folder,
    ):
        (folder / "refused.mp4").write_bytes(b"whole")
    assert (folder / "refused.mp4").read_bytes() == b"whole"
    monkeypatch.setattr(fs, "put_file", put)
    with ursa.published(f"{address}/out"):
        pass
    assert fs.cat_file(f"{address}/out/refused.mp4") == b"whole"


def test_a_model_and_shards_in_a_bucket_train_as_those_here(bucket, tmp_path, capsys):
    fs, address = bucket
    model = ursa.load("nano").bundle.folder
    fs.put(str(model), f"{address}/mine", recursive=True)
    shards = tmp_path / "shards"
    assert main(["tokenize", "shapes:train", "--num", "6", "-o", str(shards)]) == 0
    fs.put(str(shards), f"{address}/shards", recursive=True)
    made = []
    for k, (init, data) in enumerate([("nano", shards), (f"{address}/mine", f"{address}/shards")]):
        recipe = ["recipes/nano_lora.yaml", f"init={init}", f"tokenizer={init}", "train.steps=2"]
        sets = f"data.sets=[{{shards: ['{data}'], share: 1.0}}]"
        own = ["data.shards=null", sets, "train.batch_size=2", "optimizer.warmup_steps=0"]
        out = ["samples.prompts=[]", "-o", str(tmp_path / f"run{k}")]
        assert main(["train", *recipe, *own, *out]) == 0, capsys.readouterr()
        made.append((tmp_path / f"run{k}" / "adapter_model.safetensors").read_bytes())
    assert made[0] == made[1]
    record = (tmp_path / "run1" / "adapter_config.json").read_text()
    assert str(places.ursa_home()) not in record


def test_names_that_lead_out_or_clash_touch_nothing_else(bucket, tmp_path, monkeypatch, capsys):
    import s3fs

    fs, address = bucket
    outside = tmp_path / "outside.jsonl"
    outside.write_text("mine")
    up = "/".join([".."] * 4)
    fs.call_s3("put_object", Bucket=address[5:], Key=f"in/{up}/outside.jsonl", Body=b"x" * 500)
    for name in ("in/a", "in/a/b.txt", "in/my #1?.txt"):
        fs.call_s3("put_object", Bucket=address[5:], Key=name, Body=name.encode())
    s3fs.S3FileSystem.clear_instance_cache()
    folder = ursa.located(f"{address}/in")
    assert outside.read_text() == "mine"
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert found == {"a/b.txt", "my #1?.txt"}
    assert (
        places.regular_file(ursa.located(f"{address}/in/my #1?.txt")).read_bytes()[:5] == b"in/my"
    )
    assert (
        main(["sample", "a red circle", *FAST, "-o", f"{address}/my clips/a.mp4", "--seed", "1"])
        == 0
    )
    assert fs.exists(f"{address}/my clips/a.mp4")
    dry = ["sample", "a red circle", *FAST, "-o", f"{address}/dry/a.mp4", "--dry-run"]
    monkeypatch.setattr(places, "published", None)
    assert main(dry) == 0
    assert not fs.exists(f"{address}/dry")


def test_a_machine_that_comes_back_writes_nothing_old(bucket, tmp_path, monkeypatch):
    fs, address = bucket
    with ursa.published(f"{address}/out") as folder:
        folder.mkdir()
        (folder / "a.mp4").write_bytes(b"first")
        (folder / "manifest.jsonl").write_text("first\n" * 9)
    # A kill leaves what was not uploaded; then another machine went on.
    (folder / "late.mp4").write_bytes(b"late")
    (folder / "manifest.jsonl").chmod(0o644)
    os.utime(folder / "manifest.jsonl", (1, 1))
    fs.pipe_file(f"{address}/out/a.mp4", b"second")
    fs.pipe_file(f"{address}/out/manifest.jsonl", b"second\n")
    assert places.regular_file(ursa.located(f"{address}/out") / "a.mp4").read_bytes() == b"second"
    with ursa.published(f"{address}/out"):
        pass
    found = {Path(name).name: fs.cat_file(name) for name in fs.find(f"{address}/out")}
    assert found == {"a.mp4": b"second", "manifest.jsonl": b"second\n", "late.mp4": b"late"}
    fs.rm(address, recursive=True)
    with pytest.raises(UsageError, match="is no address"), ursa.published(str(tmp_path)):
        pass


def test_codes_go_up_with_their_clip(bucket, tmp_path):
    fs, address = bucket
    codes = ["--save-tokens", f"{address}/codes/a.safetensors", "-o", str(tmp_path / "a.mp4")]
    assert main(["sample", "a red circle", *FAST, *codes]) == 0
    assert fs.info(f"{address}/codes/a.safetensors")["size"] > 0


def test_copies_stay_within_their_room(bucket, monkeypatch):
    fs, address = bucket
    for k in range(6):
        fs.pipe_file(f"{address}/data/{k}", bytes([k]) * 1000)
    monkeypatch.setenv(places.CACHE_BYTES, "3500")
    monkeypatch.setattr(places, "_NEWLY_SECONDS", 0.0)
    places._held.clear()
    folder = ursa.located(f"{address}/data")
    for k in (0, 1, 2, 0, 3, 4, 5):
        assert places.regular_file(folder / str(k)).read_bytes() == bytes([k]) * 1000
    held = [path for path in folder.iterdir() if path.stat().st_blocks]
    assert sum(path.stat().st_size for path in held) <= 3500
    assert folder / "5" in held
    assert all(path.stat().st_size == 1000 for path in folder.iterdir())


class _Web(http.server.SimpleHTTPRequestHandler):
    """A plain web server, the next answers of which are cut after half of a file."""

    cuts = 0

    def copyfile(self, source: Any, outputfile: Any) -> None:
        content = source.read()
        if type(self).cuts and self.command == "GET" and content:
            type(self).cuts -= 1
            outputfile.write(content[: len(content) // 2])
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        outputfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def web(films: Path, home: Any) -> Iterator[str]:
    handler = functools.partial(_Web, directory=str(films))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        _Web.cuts = 0
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_web_server_and_its_cut_connections(web, films, tmp_path, capsys):
    _Web.cuts = 2
    own = read_media(films / "0.mkv").frames
    assert (read_media(f"{web}/0.mkv").frames == own).all()
    _Web.cuts = 3
    with pytest.raises(DataError, match=f"{web}/1.mkv can't be read") as cut:
        read_media(f"{web}/1.mkv")
    assert "again" in cut.value.hint
    _Web.cuts = 0
    left = [p for p in places.ursa_home().rglob("*") if p.is_file() and p.stat().st_blocks]
    assert [path.name for path in left] == ["0.mkv"]
    listed = tmp_path / "list.csv"
    listed.write_text(f"file,caption\n{web}/1.mkv,a\n{web}/gone.mkv,b\n")
    assert main(["tokenize", str(listed), "-o", str(tmp_path / "shards")]) == 1
    shown = capsys.readouterr().err
    assert f"skipped: {web}/gone.mkv" in shown
    assert "Traceback" not in shown
    assert main(["tokenize", f"{web}/", "-o", str(tmp_path / "all")]) == 0
    assert len(read_shards(tmp_path / "all")) == 3


def test_credentials_are_never_told(web, tmp_path, capsys):
    address = f"{web}/0.mkv?signature={SECRET}"
    out = tmp_path / "clip.mp4"
    edit = ["sample", "a red circle", "--video", address, "--fit", "-o", str(out), "--json"]
    assert main([*edit, *FAST]) == 0
    listed, clips = tmp_path / "list.jsonl", tmp_path / "clips"
    listed.write_text(f'{{"prompt": "a red circle", "video": "{address}", "fit": true}}\n')
    assert main(["sample", "--from-file", str(listed), "-o", str(clips), *FAST]) == 0
    assert all(SECRET.encode() not in path.read_bytes() for path in clips.iterdir())
    gone = f"{web.replace('//', f'//ursa:{SECRET}@')}/gone.mkv?signature={SECRET}"
    assert main(["tokenize", gone, "-o", str(tmp_path / "shards")]) == 1
    shown = "".join(capsys.readouterr())
    assert SECRET not in shown + str(read_media(out).metadata)
    assert "gone.mkv doesn't exist" in shown
    everything = [str(p) for p in (tmp_path, *places.ursa_home().rglob("*"))]
    assert not [path for path in everything if SECRET in path]


class _Refusing(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Refuse."""
        self.send_error(403)

    do_HEAD = do_PUT = do_POST = do_GET  # noqa: N815  (of the library)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_refusal_takes_two_lines(bucket, tmp_path, monkeypatch, capsys):
    _, address = bucket
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
        for given in (
            ["tokenize", f"{address}/films", "-o", str(tmp_path / "shards")],
            ["sample", "a red circle", "-o", f"{address}/a.mp4", *FAST],
        ):
            assert main(given) == 1
            shown = capsys.readouterr().err.splitlines()
            assert len(shown) == 2
            assert address in shown[0]
            assert SECRET not in "".join(shown)
        server.shutdown()
    assert main(["train", "recipe.yaml", "-o", f"{address}/run"]) == 2
    assert main(["tokenize", "nowhere://films", "-o", str(tmp_path / "shards")]) == 2
    assert "nowhere://" in capsys.readouterr().err


def test_the_room_of_copies_is_given_to_any_command(monkeypatch, capsys):
    monkeypatch.setenv(places.CACHE_BYTES, "1")
    assert main(["info", "--cache-gb", "0.5"]) == 0
    assert os.environ[places.CACHE_BYTES] == "500000000.0"
    for wrong in ("much", "nan", "-1", "0"):
        assert main([f"--cache-gb={wrong}", "info"]) == 2
        assert f"--cache-gb can't be '{wrong}'" in capsys.readouterr().err
    assert main(["info", "--cache-gb"]) == 2


def test_paths_and_prompts_are_no_addresses(tmp_path, monkeypatch):
    assert ursa.located("a/b.mp4") == Path("a/b.mp4")
    assert not places.is_address("a fox: https://a.b and more")
    with pytest.raises(UsageError, match="leads upwards"):
        places.mirror_of("s3://bucket/../other")
    monkeypatch.setenv("URSA_HOME", str(tmp_path))
    mirrored = places.mirror_of("s3://bucket/a@2x.png")
    assert places.addressed(f"{mirrored} is damaged") == "s3://bucket/a@2x.png is damaged"
    assert os.path.commonpath([mirrored, tmp_path]) == str(tmp_path)
    assert Records(tmp_path) == {}
