"""Files and folders that appear whole or not at all, whatever stops the process.

Unfinished output lies next to its target as ``.NAME.PLACE-PID.part``, and a folder that is replaced
as ``.NAME.PLACE-PID.old``; PLACE stands for the machine, so that a later writer can delete what a
dead process left, or put it back. JSON from outside is read here too.
"""

import errno
import hashlib
import json
import math
import os
import platform
import re
import shutil
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from ursa_core.errors import DataError, UsageError, unwritable
from ursa_core.places import regular_file

_LEFT = re.compile(r"\.(?P<name>.+)\.(?P<place>[0-9a-f]{8})-(?P<pid>\d+)\.(?P<kind>part|old)")
_BEGUN = ".ursa-begun"
_LONG_SECONDS = 0.1
_swept_until: dict[Path, float] = {}
_FORGOTTEN_SECONDS = 86_400.0
"""Files of another machine count as dead once nothing has touched them for a day."""


@contextmanager
def whole(path: str | Path, *, first_wins: bool = False) -> Iterator[Path]:
    """A path to write a file or folder to, which is moved to ``path`` at the end.

    A failure leaves nothing of it; that of the system is a DataError. Links are written through.
    Once the block is left, the content survives a power cut. What is there is replaced; with
    ``first_wins`` a file that another process has put there meanwhile is kept.
    """
    target = Path(os.path.realpath(path))
    part = part_of(target)
    try:
        sweep(target.parent)
        _remove(part)
        yield part
        if first_wins:
            with suppress(OSError):  # another's is there, or the file system has no links
                os.link(part, target)
        if not (first_wins and target.exists()):
            put(part, target)
    except OSError as error:  # PyAV's errors with a number of the system are of this kind too
        raise unwritable(Path(path), error) from error
    except DataError as error:
        cause = error.__cause__
        if not (isinstance(cause, OSError) and error.message.startswith(str(part))):
            raise
        raise unwritable(Path(path), cause) from cause
    finally:
        _remove(part)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Context of a write to a path, whose failure is a DataError."""
    try:
        yield
    except OSError as error:
        raise unwritable(path, error) from error


def write(path: str | Path, content: str | bytes, *, first_wins: bool = False) -> None:
    """Write a file, text as UTF-8; otherwise as ``whole``."""
    with whole(path, first_wins=first_wins) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


def part_of(target: Path, owner: str | None = None, kind: str = "part") -> Path:
    """Path where a target is written first, by this process or several that ``owner`` names."""
    return target.with_name(f".{target.name}.{owner or f'{_place()}-{os.getpid()}'}.{kind}")


def put(new: Path, target: Path) -> None:
    """Move a file or folder into its place; the old one is kept until the new one is there."""
    for each in [*new.rglob("*"), new] if new.is_dir() else [new]:
        _sync(each)
    aside = part_of(target, kind="old")
    _settle(aside, target)
    if target.is_dir() and new.is_dir() and any(target.iterdir()):
        try:
            target.rename(aside)
            new.rename(target)
        finally:
            _settle(aside, target)
    else:
        new.replace(target)
    with suppress(OSError):
        _sync(target.parent)


def digest_of(*paths: Path) -> str:
    """SHA-256 of files, and of those of folders in name order, hexadecimal; OSError for others."""
    digest = hashlib.sha256()
    for path in paths:
        for each in sorted(path.iterdir()) if path.is_dir() else [path]:
            with regular_file(each).open("rb") as file:
                hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def discard(folder: Path) -> None:
    """Delete a folder, moved away first, so that half of it never looks whole."""
    gone = part_of(folder)
    folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Delete what dead processes left half-written, and put back folders that they set aside."""
    begun = time.monotonic()
    if begun < _swept_until.get(folder, 0.0):
        return
    left = []
    with suppress(OSError), os.scandir(folder) as entries:  # who writes there finds out why
        left = [found for each in entries if (found := _LEFT.fullmatch(each.name))]
    for match in left:
        path = folder / match.string
        with suppress(OSError):
            if not _is_dead(path, match["place"], int(match["pid"])):
                continue
            if match["kind"] == "old":
                _settle(path, folder / match["name"])
            else:
                _remove(path)
    took = time.monotonic() - begun
    if took > _LONG_SECONDS:  # so many files are looked through again much later
        _swept_until[folder] = begun + 1000 * took


def check_folder_of(path: str | Path) -> None:
    """Refuse, as UsageError or DataError, a name whose folder can't take a file; and sweep it."""
    target = Path(os.path.realpath(path))
    parent = target.parent
    try:
        nearest = next((folder for folder in target.parents if folder.exists()), parent)
        if not parent.exists() or parent.is_dir():
            os.lstat(part_of(target))
    except FileNotFoundError:
        pass
    except OSError as error:
        fault = unwritable(Path(path), error)
        raise UsageError(fault.message, fault.hint) from error
    if nearest.is_file():
        raise UsageError(f"{nearest} is a file, so {path} can't be in it", "choose another name")
    shown = Path(path).parent if parent == Path(path).absolute().parent else parent
    if not parent.is_dir():
        raise DataError(f"the folder {shown} doesn't exist", "create it first")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise DataError(f"the folder {shown} can't be written", "choose another one")
    sweep(parent)


def check_products(folder: Path, products: Sequence[str], force: bool) -> None:
    """Refuse, with a UsageError, a folder where files would be replaced that aren't the command's.

    ``products`` are names in the order of writing; the last one, a report, means that all are
    there. With ``force`` they may be replaced.
    """
    here = [name for name in products if os.path.lexists(folder / name)]
    if force or not here:
        return
    if products[-1] in here:
        (folder / _BEGUN).unlink(missing_ok=True)  # the run was killed once all was there
        raise UsageError(f"{folder} holds a report already", "use --force, or another -o")
    if not (folder / _BEGUN).exists():
        hint = "use --force to replace it, or another -o"
        raise UsageError(f"{folder / here[0]} exists already", hint)


def make_folder(folder: Path) -> Path:
    """The folder, created with those above it where it is missing; DataError if it can't be."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def producing(folder: Path) -> Iterator[None]:
    """Mark a folder while files are written to it, so that an interrupted run can go on."""
    mark = make_folder(folder) / _BEGUN
    with writing(folder):
        mark.touch()
    try:
        yield
    except BaseException:  # leaves the mark next to products: they are this command's own
        if len(list(folder.iterdir())) == 1:
            mark.unlink(missing_ok=True)
        raise
    mark.unlink(missing_ok=True)


@cache
def _place() -> str:
    """Eight digits that identify the machine, or the container, which has its own process ids."""
    try:
        ids = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        ids = 0
    return f"{zlib.crc32(f'{platform.node()} {ids}'.encode()):08x}"


def _is_dead(path: Path, place: str, pid: int) -> bool:
    """Whether the writer is dead; this process clears its own files itself."""
    if place != _place():
        return time.time() - path.lstat().st_mtime > _FORGOTTEN_SECONDS
    try:
        os.kill(pid, 0)
    except (OSError, OverflowError) as error:  # also of somebody else's process, or of no number
        return isinstance(error, ProcessLookupError)
    return False


def _settle(aside: Path, target: Path) -> None:
    """Put back a folder that was set aside, unless something is in its place: then delete it."""
    if not os.path.lexists(aside):
        return
    if os.path.lexists(target):
        discard(aside)
    else:
        aside.rename(target)


def _sync(path: Path) -> None:
    """Flush the content of a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # not every file system can
            raise
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


MAX_DEPTH = 64
"""Deepest nesting of objects and lists; our own files have at most 6 levels."""
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")
_MAX_DIGITS = 300  # so that every number fits a float; transformers writes 10**30 for no limit


def parse_json(text: str | bytes, *, finite: bool = True) -> Any:
    """The value of a JSON text, bytes in UTF-8.

    A ValueError says in one line why a text is refused: also for what ``json`` accepts and later
    code can't take, as deep nesting, numbers beyond floats, NaN and infinity if they have to be
    ``finite``, and lone surrogates, which no file accepts.
    """
    if isinstance(text, bytes):
        text = text.decode()
    checks: dict[str, Any] = {"parse_int": _whole}
    if finite:
        checks |= {"parse_float": _finite, "parse_constant": _finite}
    try:
        value = json.loads(text, **checks)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    _check_depth(value)
    if _SURROGATE.search(text):  # whole pairs are fine, and halves are found by encoding them
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            place = f"U+{ord(error.object[error.start]):04X}"
            raise ValueError(f"a text in it holds {place}, half a character") from None
    return value


def parse_object(text: str | bytes) -> dict[str, Any]:
    """The object of a JSON text; a ValueError says in one line why it is refused, or is none."""
    value = parse_json(text)
    if not isinstance(value, dict):
        raise ValueError("it holds no JSON object")  # noqa: TRY004  (all faults are of one kind)
    return value


_TOO_DEEP = f"lists and objects are nested more than {MAX_DEPTH} deep"


def _check_depth(value: Any) -> None:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        containers = (v.values() if isinstance(v, dict) else v for v in level)
        level = [v for inside in containers for v in inside if isinstance(v, dict | list)]
        if not level:
            return
    raise ValueError(_TOO_DEEP)


def _whole(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"the number {digits[:20]}… has more than {_MAX_DIGITS} digits")
    return int(digits)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        shown = text if len(text) <= 24 else f"{text[:20]}…"
        raise ValueError(f"the number {shown} isn't finite")
    return number
