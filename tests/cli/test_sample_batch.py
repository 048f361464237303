"""`ursa sample --from-file`: the same clips as one by one, with nano."""

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ursa_cli.main import main
from ursa_core.bundle.bundle import resolve_model
from ursa_core.bundle.settings import load_settings
from ursa_core.media import read_media, writing
from ursa_core.tokens.token_files import load_tokens

FAST = ["--steps", "2", "--frames", "1", "--device", "cpu", "--dtype", "float32"]
PROMPTS = ("a red circle on a navy background", "a cyan square on a brown background")
LINES = [
    {"prompt": PROMPTS[0], "seed": 3},
    {"prompt": PROMPTS[1]},
    {"prompt": PROMPTS[1], "seed": 3, "steps": 1, "guidance": 1, "size": "32x64"},
    {"prompt": "", "seed": 4},
    {"prompt": PROMPTS[0], "seed": 5, "negative": "a star", "name": "mine.gif", "fps": 4},
]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


def write_list(folder: Path, lines: list[dict[str, Any]]) -> str:
    path = folder / "list.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return str(path)


def sample(source: str, out: Path, *more: object) -> int:
    return main(["sample", "--from-file", source, "-o", str(out), *map(str, more), *FAST])


def test_clips_are_those_of_single_calls_in_any_pack(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_list(tmp_path, LINES)
    names = [
        "00000-a-red-circle-on-a-navy-background.mp4",
        "00001-a-cyan-square-on-a-brown-background.mp4",
        "00002-a-cyan-square-on-a-brown-background.mp4",
        "00003-untitled.mp4",
        "mine.gif",
    ]
    assert sample(source, tmp_path / "one", "--seed", 8) == 0
    paths = capsys.readouterr().out.splitlines()
    assert sorted(paths) == [str(tmp_path / "one" / name) for name in names]
    packed = ("--seed", 8, "--batch-size", 3, "--save-tokens", tmp_path / "codes", "--preview", 1)
    assert sample(source, tmp_path / "packed", *packed) == 0
    content = {name: (tmp_path / "one" / name).read_bytes() for name in names}
    assert content == {name: (tmp_path / "packed" / name).read_bytes() for name in names}
    assert len(set(content.values())) == 5
    left = {path.name for path in (tmp_path / "packed").iterdir()}
    assert left == {*names, "manifest.jsonl"}  # and no preview
    codes = load_tokens(tmp_path / "codes" / f"{names[2]}.safetensors")
    assert codes.codes.shape == (1, 4, 8)

    alone = ["--seed", "3", "-o", str(tmp_path / "alone.mp4"), *FAST]
    assert main(["sample", PROMPTS[0], *alone]) == 0
    assert (tmp_path / "alone.mp4").read_bytes() == content[names[0]]
    row = [json.loads(line) for line in (tmp_path / "one/manifest.jsonl").open()][4]
    assert (row["item"], row["status"]) == ("item 1", "done")
    clip = read_media(tmp_path / "one" / names[1])
    assert clip.metadata == row["options"]
    assert clip.metadata["seed"] == row["seed"]
    gif = read_media(tmp_path / "one" / "mine.gif").metadata
    assert (gif["fps"], gif["negative"], gif["num"]) == (4.0, "a star", 1)


def test_other_options_or_models_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_list(tmp_path, LINES[:1])
    assert sample(source, tmp_path / "out") == 0
    seed = json.loads((tmp_path / "out" / "manifest.jsonl").read_text().splitlines()[0])["seed"]
    assert f"seed {seed}\n" in capsys.readouterr().err
    own = load_settings(resolve_model("nano")).guidance
    assert sample(source, tmp_path / "out", "--guidance", own + 1) == 2
    assert f"guidance {own}, not {own + 1}" in capsys.readouterr().err
    manifest = tmp_path / "out" / "manifest.jsonl"
    header, *rest = manifest.read_text().splitlines()
    other = json.dumps({**json.loads(header), "model_identity": "0" * 16})
    manifest.write_text("\n".join([other, *rest, ""]))
    assert sample(source, tmp_path / "out") == 2
    assert "is a batch of the model nano (0000000000000000), not nano" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "named", "hint"),
    [
        ({"seed": 3}, "there is no prompt", "give one"),
        ({"prompt": "a", "frames": 7}, "7 frames", "5 or 9"),
        ({"prompt": "a", "size": "60x64"}, "height of 60", "56 or 64"),
        ({"prompt": "a", "steps": 0}, "--steps can't be 0", "1 to 10000"),
        ({"prompt": "a", "solver": "heun"}, "--solver can't be heun", "integrated"),
        ({"prompt": "a", "motion": 3}, "nano takes no --motion", "prompt"),
        ({"prompt": "a", "name": "a.png", "frames": 5}, "can hold one frame", ".gif"),
        ({"prompt": "a", "name": "../a"}, "is no name of a file inside", "plain file name"),
        ({"prompt": "a", "frames": 40001, "size": "8000x8000"}, "GB of memory", "smaller"),
        ({"prompt": "a", "sede": 3}, "unknown option 'sede'", "did you mean seed?"),
    ],
)
def test_a_line_that_can_not_be_made_stops_all(
    line: dict[str, Any], named: str, hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_list(tmp_path, [{"prompt": "a"}, line])
    folder = tmp_path / "out"
    assert sample(source, folder) == 1
    shown = capsys.readouterr()
    error, told = shown.err.splitlines()
    assert error.startswith(f"error: {source}, line 2: ")
    assert named in error
    assert hint in told
    assert shown.out == ""
    assert not folder.exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["a prompt", "--from-file", "l.txt"], "PROMPT and --from-file"),
        (["--from-file", "l.txt", "--replay", "a.mp4"], "--replay and --from-file"),
        (["--from-file", "l.txt", "--num", "2"], "--num is for a PROMPT"),
        (["--replay", "a.mp4", "--num", "2"], "--num is for a PROMPT"),
        (["a", "--shard", "1/2"], "--shard is for batches"),
        (["a", "--batch-size", "2"], "--batch-size is for batches"),
        (["a", "--skip-bad"], "--skip-bad is for batches"),
        (["a", "--name-template", "{index}.mp4"], "--name-template is for batches"),
        (["a", "--preview", "0"], "--preview can't be 0"),
        ([], "missing argument 'PROMPT'"),
        (["--from-file", "l.txt", "--batch-size", "0"], "--batch-size can't be 0"),
        (["--from-file", "l.txt", "--shard", "3/2"], "'3/2' is no shard"),
        (["--from-file", "l.txt", "--name-template", "{nr}.mp4"], "unknown field {nr}"),
        (["--from-file", "l.txt", "--name-template", "{index}.avi"], "extension .avi"),
        (["--from-file", "l.yaml"], "l.yaml is no list of items"),
        (["--from-file", "l.txt", "--save-tokens", "a.safetensors"], "is no folder"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(
    arguments: list[str],
    named: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "l.txt").write_text("a\n")
    assert main(["sample", *arguments, "-o", "out"]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert named in error
    assert hint.startswith("hint: ")
    assert [path.name for path in tmp_path.iterdir()] == ["l.txt"]


def test_a_batch_needs_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_list(tmp_path, LINES[:1])
    assert sample(source, tmp_path / "out.mp4") == 2
    assert "out.mp4 is no folder" in capsys.readouterr().err


def test_dry_run_tells_the_items_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    piped = io.BytesIO("\n".join(PROMPTS).encode())
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=piped))
    assert sample("-", tmp_path / "out", "--dry-run", "--json", "--shard", "2/2") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["task"], told["model"], told["kept"]) == ("sample", "nano", 0)
    (item,) = told["items"]
    assert (item["index"], item["options"]["prompt"]) == (1, PROMPTS[1])
    assert not list(tmp_path.iterdir())


def test_a_full_disk_half_way_keeps_what_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_list(tmp_path, LINES[:2])
    written: list[Path] = []
    whole = writing._write_h264

    def fills(path: Path, *rest: Any) -> None:
        if written:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        written.append(path)
        whole(path, *rest)

    monkeypatch.setattr(writing, "_write_h264", fills)
    assert sample(source, tmp_path / "out", "--seed", 1) == 1
    shown = capsys.readouterr().err
    assert "1 made, 0 kept, 0 failed, 1 left" in shown
    assert "the disk is full" in shown.splitlines()[-2]
    assert len(list((tmp_path / "out").iterdir())) == 2  # a clip and the manifest
    monkeypatch.setattr(writing, "_write_h264", whole)
    assert sample(source, tmp_path / "out") == 0
    assert "1 made, 1 kept, 0 failed, 0 left" in capsys.readouterr().err
