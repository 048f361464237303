"""Files that appear whole or not at all: kills at every rename, links, what dead processes left."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ursa_core import files
from ursa_core.errors import DataError, UsageError
from ursa_core.media import check_output, read_media, write_media

KILLED_AT = """
import os, sys
from pathlib import Path
import numpy as np
from ursa_core.media import write_media

real, left = os.rename, [int(sys.argv[2])]

def rename(*paths, **more):
    if not left[0]:
        os.kill(os.getpid(), 9)
    left[0] -= 1
    return real(*paths, **more)

os.rename = os.replace = rename
write_media(sys.argv[1], np.full((3, 16, 16, 3), 200, np.uint8), 8)
"""


def shades(path: Path) -> list[int]:
    return [int(frame.mean()) for frame in read_media(path).frames]


def write_shade(path: Path, shade: int, frames: int = 2) -> None:
    write_media(path, np.full((frames, 16, 16, 3), shade, np.uint8), 8)


@pytest.mark.parametrize("number", range(4))
def test_a_kill_at_any_rename_loses_no_frames(tmp_path: Path, number: int) -> None:
    out = tmp_path / "frames"
    write_shade(out, 100)
    program = [sys.executable, "-c", KILLED_AT, str(out), str(number)]
    ended = subprocess.run(program, check=False).returncode
    # The old folder aside, the new one in its place, the old one out of the way, then deleted.
    assert ended == (-signal.SIGKILL if number < 3 else 0)
    assert sum(len(list(folder.glob("*.png"))) for folder in tmp_path.iterdir()) >= 2
    with pytest.raises(UsageError, match="exists already"):
        check_output(out)  # which puts back what was set aside
    assert shades(out) == ([100, 100] if number < 2 else [200, 200, 200])
    assert list(tmp_path.iterdir()) == [out]
    write_shade(out, 50)
    assert shades(out) == [50, 50]
    assert list(tmp_path.iterdir()) == [out]


def test_what_the_dead_left_goes_and_what_the_living_write_stays(tmp_path: Path, part_of_dead):
    target = tmp_path / "a.mp4"
    dead, folder = part_of_dead(target), part_of_dead(tmp_path / "frames")
    dead.write_bytes(b"half")
    (folder / "inner").mkdir(parents=True)
    living = files.part_of(target).with_name(
        files.part_of(target).name.replace(f"-{os.getpid()}.", f"-{os.getppid()}.")
    )
    elsewhere, old = (tmp_path / f".{name}.00000000-7.part" for name in ("b.mp4", "c.mp4"))
    own = [tmp_path / name for name in (".a.mp4.part", ".notes.old", ".cache-1.part")]
    for path in (living, elsewhere, old, *own):
        path.write_bytes(b"x")
    two_days_ago = time.time() - 2 * 86_400
    os.utime(old, (two_days_ago, two_days_ago))
    files.write(target, "whole")
    assert set(tmp_path.iterdir()) == {target, living, elsewhere, *own}


def test_a_failure_leaves_the_old_file_and_names_the_target(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    files.write(target, "old")

    def fail() -> None:
        with files.whole(target) as part:
            part.write_text("new")
            files.write(part.parent / "none" / "b.txt", "x")

    with pytest.raises(DataError, match=r"none/b\.txt can't be written: no such file"):
        fail()
    assert (target.read_text(), list(tmp_path.iterdir())) == ("old", [target])

    def fail_within() -> None:
        with files.whole(tmp_path / "model") as part:
            part.mkdir()
            files.write(part / "none" / "b.txt", "x")

    with pytest.raises(DataError, match=r"model can't be written: no such file") as failed:
        fail_within()
    assert ".part" not in failed.value.message
    assert list(tmp_path.iterdir()) == [target]


def test_the_first_of_two_wins_where_asked(tmp_path: Path) -> None:
    files.write(tmp_path / "a", "first", first_wins=True)
    files.write(tmp_path / "a", "second", first_wins=True)
    assert (tmp_path / "a").read_text() == "first"
    assert len(list(tmp_path.iterdir())) == 1


def test_links_are_written_through(tmp_path: Path) -> None:
    there, links = tmp_path / "there", tmp_path / "links"
    there.mkdir()
    links.mkdir()
    write_shade(there / "frames", 100)
    for name, target in {"frames": "frames", "a.mkv": "a.mkv", "new": "new"}.items():
        (links / name).symlink_to(there / target)
        if name == "frames":
            with pytest.raises(UsageError, match="exists already"):
                check_output(links / name)
        check_output(links / name, force=name == "frames")
        write_shade(links / name, 200)
        assert (links / name).is_symlink()
        assert shades(there / target) == [200, 200]
    assert {path.name for path in there.iterdir()} == {"frames", "a.mkv", "new"}
    (links / "nowhere.mp4").symlink_to(tmp_path / "none" / "a.mp4")
    with pytest.raises(DataError, match="none doesn't exist"):
        check_output(links / "nowhere.mp4")
    (links / "film.mp4").symlink_to(there / "frames")
    with pytest.raises(UsageError, match="is a folder"):
        check_output(links / "film.mp4", force=True)


def test_only_plain_files_count_as_frames(tmp_path: Path) -> None:
    out = tmp_path / "frames"
    write_shade(out, 100)
    (out / "1.png").mkdir()
    (out / "1.png" / "mine.txt").write_text("keep")
    for attempt in (lambda: check_output(out, force=True), lambda: write_shade(out, 200)):
        with pytest.raises(UsageError, match="holds more than PNG frames"):
            attempt()
    assert (out / "1.png" / "mine.txt").read_text() == "keep"
    (out / "1.png" / "mine.txt").unlink()
    (out / "1.png").rmdir()
    (out / "1.png").symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(UsageError, match="holds more than PNG frames"):
        check_output(out, force=True)


def test_a_name_that_leaves_no_room_is_refused_beforehand(tmp_path: Path) -> None:
    name = "a" * 245 + ".mp4"
    with pytest.raises(UsageError, match="too long"):
        check_output(tmp_path / name)
    with pytest.raises(UsageError, match="too long"):
        check_output(tmp_path / ("a" * 400 + ".mp4"))


def test_a_folder_of_very_many_files_is_swept_now_and_then(tmp_path, monkeypatch):
    left = tmp_path / f".a.{files._place()}-{2**22 + 1}.part"
    left.touch()
    files.sweep(tmp_path)
    assert not left.exists()
    monkeypatch.setattr(files, "_LONG_SECONDS", 0.0)
    files.sweep(tmp_path)
    left.touch()
    files.sweep(tmp_path)
    assert left.exists()
    files._swept_until.clear()
    files.sweep(tmp_path)
    assert not left.exists()
