"""Whether a folder holds exactly the files that a scorer is to read."""

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from PIL import Image

from ursa_core.errors import DataError
from ursa_core.evaluation.suites.suite import Suite
from ursa_core.grids import PixelShape
from ursa_core.media.reading import file_faults
from ursa_core.places import regular_file

_NUM_SHOWN = 3
Kind = Literal["missing", "foreign", "case", "unreadable", "short", "size"]
_AGAIN = "delete them and run --only sample"
_WORDS: dict[Kind, tuple[str, str]] = {
    "missing": ("missing", "run the same command with --only sample"),
    "foreign": ("not part of the suite", "move them out of the folder: scorers read all names"),
    "case": ("named like others but for upper case", "give them their exact names"),
    "unreadable": ("damaged", _AGAIN),
    "short": ("of another length", _AGAIN),
    "size": ("of another size", _AGAIN),
}


class FileFault(NamedTuple):
    """What is wrong with a file of the folder."""

    kind: Kind
    name: str
    detail: str = ""


def check(
    suite: Suite,
    folder: Path,
    expected: Mapping[str, PixelShape],
    on_file: Callable[[], object] = lambda: None,
) -> list[FileFault]:
    """All differences between a folder and its suite, in the suite's order, foreign files last.

    ``expected`` holds the shape of each file by name; files without one are only read. ``on_file``
    is called after each file.
    """
    names = [*suite.fixed, *(file.name for file in suite.files)]
    wanted = set(names)
    there = set(_names(folder, suite.scratch, wanted))
    folded = {name.casefold(): name for name in wanted}
    faults = []
    for name in names:
        if name not in there:
            faults.append(FileFault("missing", name))
        elif name not in suite.fixed:
            faults += _faults_of(folder / name, name, expected.get(name))
        elif (folder / name).read_bytes() != suite.fixed[name].encode():
            faults.append(FileFault("unreadable", name, "not as the suite has it"))
        on_file()
    for name in sorted(there - wanted):
        like = folded.get(name.casefold())
        # A twin of a planned name is foreign where the planned file is there itself.
        is_case = like is not None and like not in there
        fault = FileFault("case", name, f"should be {like}")
        faults.append(fault if is_case else FileFault("foreign", name))
    return faults


def refuse(faults: list[FileFault], folder: Path) -> DataError:
    """The error for a folder that can't be scored, which counts and names its faults."""
    parts, hints = [], []
    for kind, (words, hint) in _WORDS.items():
        shown = [f"{f.name} ({f.detail})" if f.detail else f.name for f in faults if f.kind == kind]
        if shown:
            more = ["…"] if len(shown) > _NUM_SHOWN else []
            verb = "is" if len(shown) == 1 else "are"
            named = ", ".join(shown[:_NUM_SHOWN] + more)
            parts.append(f"{len(shown)} {verb} {words} ({named})")
            hints.append(hint)
    return DataError(f"{folder} can't be scored: {'; '.join(parts)}", hints[0])


def distinguishes_case(folder: Path) -> bool:
    """Whether the folder's file system keeps ``a`` and ``A`` apart."""
    probe = folder / f".case-{os.getpid()}"
    probe.touch()
    try:
        return not probe.with_name(probe.name.upper()).exists()
    finally:
        probe.unlink(missing_ok=True)


def case_twins(suite: Suite) -> tuple[str, str] | None:
    """Two names of a suite that differ in case alone, if there are any."""
    names = [file.name for file in suite.files]
    first = {name.casefold(): name for name in reversed(names)}
    return next(((first[n.casefold()], n) for n in names if n != first[n.casefold()]), None)


def digest(suite: Suite, folder: Path) -> str:
    """Sixteen hex digits of names and sizes of files; `DataError` where one is missing."""
    made = hashlib.sha256()
    try:
        for file in suite.files:
            made.update(f"{file.name}\0{(folder / file.name).stat().st_size}\0".encode())
    except OSError as error:
        raise DataError(f"samples are missing: {error}", "run --only sample") from error
    return made.hexdigest()[:16]


def _names(folder: Path, scratch: tuple[str, ...], wanted: set[str]) -> list[str]:
    """Files below a folder, and folders of other names than those of wanted files."""
    parents = {parent.as_posix() for name in wanted for parent in PurePosixPath(name).parents}
    found = []
    for at, folders, names in os.walk(folder):
        place = Path(at).relative_to(folder)
        if place == Path():
            folders[:] = [name for name in folders if name not in scratch]
        found += [(place / name).as_posix() for name in names]
        inside = {name: (place / name).as_posix() for name in folders}
        found += [f"{path}/" for path in inside.values() if path not in parents]
        folders[:] = [name for name, path in inside.items() if path in parents]
    return found


def _faults_of(path: Path, name: str, expected: PixelShape | None) -> list[FileFault]:
    try:
        shape = _shape_of(path)
    except file_faults() as error:
        detail = (str(error).splitlines() or [""])[0]
        return [FileFault("unreadable", name, detail.replace(str(path), "").strip(" :'"))]
    if expected is None or shape == expected:
        return []
    if (shape.height, shape.width) != (expected.height, expected.width):
        found, wanted = (f"{each.height}x{each.width}" for each in (shape, expected))
        return [FileFault("size", name, f"{found}, not {wanted}")]
    return [FileFault("short", name, f"{shape.frames} frames, not {expected.frames}")]


def _shape_of(path: Path) -> PixelShape:
    """Frames, height and width; packets are counted, not decoded, so that it is quick."""
    if path.suffix == ".png":
        with Image.open(regular_file(path)) as image:
            image.load()
            return PixelShape(1, image.height, image.width)
    import av

    with av.open(str(regular_file(path))) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        if not packets or any(packet.is_corrupt for packet in packets):
            raise ValueError("cut off" if packets else "no frames")
        return PixelShape(len(packets), stream.height, stream.width)
