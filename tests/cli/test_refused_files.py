"""What the system refuses, files that are none, and names that nothing can have: two lines."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_runs import TOKENIZER

from ursa_cli import main as application
from ursa_cli.main import main
from ursa_core.batches.lists import read_list
from ursa_core.encoding.sources import find_sources
from ursa_core.errors import CheckpointError, DataError, UrsaError, unreadable, unusable, unwritable
from ursa_core.media import write_media
from ursa_core.places import regular_file
from ursa_core.tokens.shards import read_shards
from ursa_core.worlds.shapes import training_clip

LONG = "a" * 300


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that is refused; its two lines, after the warnings."""

    def run(*words: object, code: int | None = None) -> str:
        found = main([str(word) for word in words])
        assert found in ((1, 2) if code is None else (code,)), words
        shown = capsys.readouterr()
        lines = [line for line in shown.err.splitlines() if not line.startswith("warning")]
        assert len(lines) == 2, shown.err
        assert lines[0].startswith("error: "), shown.err
        assert lines[1].startswith("hint: "), shown.err
        assert "a bug" not in shown.err
        return shown.err

    return run


@pytest.mark.parametrize(
    ("number", "read", "write"),
    [
        (errno.EACCES, "make it readable", "make the folder writable"),
        (errno.EPERM, "make it readable", "make the folder writable"),
        (errno.ENOENT, "check the path", "create the folder first"),
        (errno.EISDIR, "give a file", "another name"),
        (errno.ENOTDIR, "a part of the path is a file", "a part of the path is a file"),
        (errno.ENAMETOOLONG, "shorter name", "shorter name"),
        (errno.EROFS, "isn't read-only", "isn't read-only"),
        (errno.ENOSPC, "free some space", "free some space"),
        (errno.EMFILE, "ulimit -n", "ulimit -n"),
        (errno.ELOOP, "circle", "circle"),
        (errno.ESTALE, "of the reader", "check the disk"),
    ],
)
def test_each_reason_of_the_system_has_a_way_out(number: int, read: str, write: str) -> None:
    error = OSError(number, os.strerror(number), "some/file")
    cause = "the disk is full" if number == errno.ENOSPC else os.strerror(number).lower()
    found: list[UrsaError] = [
        unreadable(Path("some/file"), error, "of the reader", CheckpointError),
        unwritable(Path("some/file"), error),
    ]
    assert [type(each) for each in found] == [CheckpointError, DataError]
    assert found[0].message == f"some/file can't be read: {cause}"
    assert found[1].message == f"some/file can't be written: {cause}"
    assert read in found[0].hint
    assert write in found[1].hint
    told = unusable(error)
    assert told is not None
    assert told[0] == f"some/file can't be used: {cause}"
    assert told[1]


def test_only_the_system_refuses() -> None:
    assert unusable(OSError("of a library")) is None
    told = unusable(OSError(errno.EMFILE, "too many"))
    assert told is not None
    assert told[0] == "the system refuses: too many"
    renamed = OSError(errno.EXDEV, "no", "a", None, "b")
    assert unusable(renamed) == ("b can't be used: no", "check the path and the disk")
    error = OSError(errno.ENAMETOOLONG, "File name too long", LONG * 10)
    assert len(str(unusable(error))) < 400


def test_regular_files_and_others(tmp_path: Path) -> None:
    file, pipe = tmp_path / "file", tmp_path / "pipe"
    file.touch()
    os.mkfifo(pipe)
    (tmp_path / "link").symlink_to(file)
    (tmp_path / "loop").symlink_to("loop")
    assert regular_file(file) == file
    assert regular_file(tmp_path / "link")
    assert regular_file(pipe, or_pipe=True) == pipe
    for path, reason in (
        (pipe, "it is a pipe"),
        (Path("/dev/zero"), "it is a device"),
        (tmp_path, "Is a directory"),
        (tmp_path / "none", "No such file"),
        (tmp_path / "loop", "Too many levels"),
        (tmp_path / LONG, "too long"),
        (file / "below", "Not a directory"),
        (Path("a\0b"), "NUL"),
    ):
        with pytest.raises(OSError, match=reason):
            regular_file(path)


def others(tmp_path: Path, suffix: str) -> list[Path]:
    """A pipe that nobody writes to, a device that never ends, and a folder."""
    pipe, link, folder = (tmp_path / f"{name}{suffix}" for name in ("pipe", "zero", "folder"))
    if not pipe.exists():
        os.mkfifo(pipe)
        link.symlink_to("/dev/zero")
        folder.mkdir()
    return [pipe, link, folder]


def test_readers_take_regular_files_alone(
    tmp_path: Path, tiny_model: Path, refused: Callable[..., str]
) -> None:
    """A pipe would hang them, and a device fill the memory."""
    out, model = tmp_path / "out", ("--model", tiny_model, "--device", "cpu")
    for media in others(tmp_path, ".png"):
        is_folder = media.name.startswith("folder")
        reason = "holds no PNG" if is_folder else "not a regular file"
        for words in (
            ["sample", "x", "--image", media, *model, "-o", f"{out}.mp4"],
            ["sample", "--replay", media, "-o", f"{out}.png"],
            ["extend", media, "x", "--seconds", 2, *model, "-o", f"{out}.mp4"],
            ["interpolate", "x", "--first", media, "--last", media, *model, "-o", f"{out}.mp4"],
            ["tokenize", media, *model, "-o", f"{out}.safetensors"],
        ):
            assert reason in refused(*words, code=1)
        if not is_folder:
            assert reason in refused("tokenize", media, *model, "-o", out, code=1)
            assert reason in refused("eval", "videos", media, "-o", tmp_path / "eval", code=1)
    for recipe in others(tmp_path, ".yaml"):
        assert "can't be read" in refused("train", recipe, code=2)
        refused("calibrate-path", "--tokenizer", tiny_model, "--write-to", recipe, "-o", out)
    for file in others(tmp_path, ".safetensors"):
        assert "can't be read" in refused("tokenize", "--decode", file, "-o", f"{out}.mp4", code=1)
        assert "can't be read" in refused("calibrate-path", "--tokenizer", file, "-o", out, code=1)
        convert = ("models", "convert", file, "--base", "nano", "-o", tmp_path / "new")
        assert refused(*convert, code=1)
    for report in others(tmp_path, ".json"):
        refused("eval", "compare", report, report, code=1)


@pytest.mark.parametrize(
    "name",
    [
        "model_index.json",
        "ursa.json",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "transformer/config.json",
        "transformer/diffusion_pytorch_model.safetensors",
        "scheduler/scheduler_config.json",
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
    ],
)
def test_models_are_of_regular_files(
    name: str, tmp_path: Path, tiny_model: Path, refused: Callable[..., str]
) -> None:
    import shutil

    model = tmp_path / "model"
    for k, target in enumerate(("pipe", "/dev/zero", "folder")):
        shutil.copytree(tiny_model, model, dirs_exist_ok=bool(k))
        file = model / name
        file.unlink()
        if target == "pipe":
            os.mkfifo(file)
        elif target == "folder":
            file.mkdir()
        else:
            file.symlink_to(target)
        place = ["--device", "cpu", "-o", tmp_path / "out.png", "--frames", 1]
        told = refused("sample", "x", "--model", model, *place, code=1)
        assert Path(name).name in told
        shutil.rmtree(model)


@pytest.mark.parametrize(
    "content", ['{"file": "a.png", "caption": "red"}\n', "file,caption\na.png,red\n"]
)
def test_lists_of_captions_may_be_pipes(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``<(…)`` gives them: their paths are those of the working folder."""
    monkeypatch.chdir(tmp_path)
    read, write = os.pipe()
    os.write(write, content.encode())
    os.close(write)
    try:
        (source,) = find_sources([Path(f"/dev/fd/{read}")])
    finally:
        os.close(read)
    assert source.path == Path("a.png")
    assert source.name == f"{tmp_path.name}/a.png"
    assert source.captions == ("red",)


def test_tokenize_reads_a_list_from_standard_input(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_media("a.png", training_clip(0, 0, "all", 1, 16, 16)[0], 8.0)
    Path("list.csv").write_text("file,caption\na.png,red\n")
    before = os.dup(0)
    with Path("list.csv").open() as given:
        os.dup2(given.fileno(), 0)
    try:
        options = ("--frames", "1", "--model", str(tiny_model), "--device", "cpu", "-o", "out")
        assert main(["tokenize", "-", *options]) == 0
    finally:
        os.dup2(before, 0)
        os.close(before)
    table = read_shards(Path("out"))
    assert [table.captions(row)[0] for row in range(len(table))] == ["red"]


def test_ranks_share_no_standard_input(
    monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "standard input" in refused("tokenize", "-", "-o", "out", code=2)


@pytest.mark.parametrize("content", ["a fox\na cat\n", '{"prompt": "a fox"}\n{"prompt": "a cat"}'])
def test_a_pipe_of_items_is_as_standard_input(content: str, tmp_path: Path) -> None:
    read, write = os.pipe()
    os.write(write, content.encode())
    os.close(write)
    try:
        found = read_list(f"/dev/fd/{read}", {"prompt": str}, lambda: b"")
    finally:
        os.close(read)
    assert [line.given for line in found] == [{"prompt": "a fox"}, {"prompt": "a cat"}]
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(DataError, match="is a directory"):
        read_list(str(tmp_path / "folder.txt"), {"prompt": str}, lambda: b"")
    (tmp_path / "zero.txt").symlink_to("/dev/zero")
    with pytest.raises(DataError, match="not a regular file"):
        read_list(str(tmp_path / "zero.txt"), {"prompt": str}, lambda: b"")


WRITERS = {
    "sample": ["sample", "x", "--dry-run", "-o"],
    "tokens": ["sample", "x", "--dry-run", "-o", "fine.mp4", "--save-tokens"],
    "batch": ["sample", "--from-file", "list.txt", "--dry-run", "-o"],
    "extend": ["extend", "clip.mp4", "x", "--seconds", "2", "-o"],
    "interpolate": ["interpolate", "x", "--first", "a.png", "--last", "a.png", "-o"],
    "tokenize": ["tokenize", "shapes:train", "--num", "1", "-o"],
    "train": ["train", "recipe.yaml", "--dry-run", "-o"],
    "eval": ["eval", "shapes", "--limit", "1", "-o"],
    "videos": ["eval", "videos", "clip.mp4", "-o"],
    "calibrate": ["calibrate-path", "--tokenizer", "nano", "-o"],
    "pull": ["models", "pull", "a/b", "--to"],
    "convert": ["models", "convert", "file", "-o"],
    "merge": ["models", "merge", "nano", "--lora", "lora", "-o"],
}


@pytest.mark.parametrize("name", WRITERS)
def test_names_that_nothing_new_can_have(
    name: str, tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text("a red circle\n")
    (tmp_path / "recipe.yaml").write_text(TOKENIZER)
    before = sorted(tmp_path.rglob("*"))
    for wrong in ("", "/", "two\nlines", "two\nlines.mp4", "\x1b]0;title\x07", "tab\t", "\udcff"):
        refused(*WRITERS[name], wrong, code=2)
    refused(*WRITERS[name], LONG)
    if name == "sample":
        for wrong in (".", "..", "./", "a/..", "folder/.mp4"):
            refused(*WRITERS[name], wrong)
    assert sorted(tmp_path.rglob("*")) == before


def test_too_long_names_are_told_with_the_path(
    tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    items = tmp_path / "items.jsonl"
    for name, words in {
        "image": ["sample", "x", "--image", f"{LONG}.png", "-o", "o.mp4"],
        "clip": ["extend", f"{LONG}.mp4", "x", "--seconds", "2", "-o", "o.mp4"],
        "recipe": ["train", f"{LONG}.yaml"],
        "input": ["tokenize", f"{LONG}.mp4", "-o", "tokens"],
        "list": ["sample", "--from-file", f"{LONG}.txt", "-o", "batch"],
        "report": ["eval", "compare", LONG, LONG],
        "item": ["sample", "--from-file", items, "-o", "batch"],
    }.items():
        items.write_text(json.dumps({"prompt": "x", "image": f"{LONG}.png"}))
        told = refused(*words)
        assert "too long" in told, name
        assert "aaaa" in told, name
        assert "shorter" in told, name


@pytest.mark.parametrize("model", [".", "/", "", "two\nlines", LONG, "..", "a/..", "\x1b"])
def test_models_by_names_that_are_none(
    model: str, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    refused("models", "show", model)
    refused("sample", "x", "--model", model, "-o", "o.mp4", "--dry-run")


def test_any_error_of_the_system_that_nobody_foresaw(
    monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    from tests.cli.test_main import app_that_raises

    error = PermissionError(errno.EACCES, "Permission denied", "/some/where")
    monkeypatch.setattr(application, "app", app_that_raises(error))
    told = refused(code=1)
    assert told == (
        "error: /some/where can't be used: permission denied\n"
        "hint: change its permissions, or choose another\n"
    )
