"""Completeness of folders: names, lengths, sizes, and disks that don't tell cases apart."""

from pathlib import Path

import numpy as np
import pytest

from ursa_core.evaluation.suites import completeness, vbench
from ursa_core.evaluation.suites.completeness import FileFault, check, refuse
from ursa_core.evaluation.suites.suite import PlannedFile, Suite
from ursa_core.grids import PixelShape
from ursa_core.media import write_media

NAMES = ("a fish-0.mp4", "A fish-0.mp4", "b.png")
SHAPE = PixelShape(3, 16, 24)


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    clip = np.random.default_rng(0).integers(0, 255, (3, 16, 24, 3), np.uint8)
    for name in NAMES:
        write_media(tmp_path / name, clip[:1] if name.endswith("png") else clip, 8.0)
    files = [PlannedFile(name, name, name) for name in NAMES]
    return Suite("mine", files, 3, scratch=("split_clip",))


def expected() -> dict[str, PixelShape]:
    return {name: SHAPE if name.endswith("mp4") else PixelShape(1, 16, 24) for name in NAMES}


def test_a_whole_folder_has_no_faults(suite: Suite, tmp_path: Path) -> None:
    seen = []
    assert check(suite, tmp_path, expected(), lambda: seen.append(1)) == []
    assert len(seen) == 3
    (tmp_path / "split_clip").mkdir()
    (tmp_path / "split_clip" / "a.mp4").touch()
    assert check(suite, tmp_path, {}) == []


def test_each_fault_is_told_with_its_file(suite: Suite, tmp_path: Path) -> None:
    (tmp_path / NAMES[0]).write_bytes((tmp_path / NAMES[0]).read_bytes()[:600])
    (tmp_path / NAMES[2]).rename(tmp_path / "B.PNG")
    (tmp_path / "x").mkdir()
    (tmp_path / ".a fish-0.1234.mp4").touch()  # what a killed run leaves
    faults = check(suite, tmp_path, {**expected(), NAMES[1]: PixelShape(5, 16, 24)})
    assert [(fault.kind, fault.name) for fault in faults] == [
        ("unreadable", NAMES[0]),
        ("short", NAMES[1]),
        ("missing", NAMES[2]),
        ("foreign", ".a fish-0.1234.mp4"),
        ("case", "B.PNG"),
        ("foreign", "x/"),
    ]
    error = refuse(faults, tmp_path)
    for words in ("1 is missing (b.png)", "2 are not part of the suite", "should be b.png"):
        assert words in error.message
    assert "--only sample" in error.hint


@pytest.mark.parametrize("share", [0.05, 0.25, 0.5, 0.9, 0.999])
def test_a_film_that_was_cut_off_is_noticed(share: float, suite: Suite, tmp_path: Path) -> None:
    film = tmp_path / NAMES[0]
    content = film.read_bytes()
    film.write_bytes(content[: int(share * len(content))])
    (fault,) = check(suite, tmp_path, expected())
    assert (fault.kind in ("unreadable", "short"), fault.name) == (True, NAMES[0])
    assert fault.detail


def test_many_faults_are_counted(tmp_path: Path) -> None:
    error = refuse([FileFault("missing", f"{k}.mp4") for k in range(9)], tmp_path)
    assert "9 are missing (0.mp4, 1.mp4, 2.mp4, …)" in error.message


def test_disks_that_do_not_tell_cases_apart_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert completeness.distinguishes_case(tmp_path)
    exists = Path.exists
    lower = lambda path: exists(path.with_name(path.name.lower()))  # noqa: E731
    monkeypatch.setattr(Path, "exists", lower)
    assert not completeness.distinguishes_case(tmp_path)
    assert not list(tmp_path.iterdir())
    twins = completeness.case_twins(vbench.plan())
    assert twins is not None
    assert twins[0].lower() == twins[1].lower()
    assert completeness.case_twins(vbench.plan(limit=3)) is None


def test_the_digest_changes_with_the_files(suite: Suite, tmp_path: Path) -> None:
    before = completeness.digest(suite, tmp_path)
    assert before == completeness.digest(suite, tmp_path)
    (tmp_path / NAMES[2]).write_bytes(b"other")
    assert before != completeness.digest(suite, tmp_path)
