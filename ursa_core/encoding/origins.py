"""Files that clips of shards were made of: whether they still exist, unchanged.

Equal size and time count as the same content, otherwise the digest decides.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ursa_core.encoding.items import Item
from ursa_core.encoding.sources import MediaFile
from ursa_core.files import digest_of
from ursa_core.places import addressed, is_address, mirror_of, place_named
from ursa_core.tokens.writer import Made, Origin


@dataclass
class Comparison:
    """What a folder of shards holds of the items of a run."""

    done: set[str] = field(default_factory=set)  # keys of the items that need no work
    changed: set[Made] = field(default_factory=set)  # since they were recorded, of the run's part
    gone: set[Made] = field(default_factory=set)
    stale: set[Made] = field(default_factory=set)  # changed ones, and gone ones if asked

    def to_json(self, folder: Path) -> dict[str, Any]:
        """Absolute paths of changed and gone files, as reports show them."""
        return {
            name: sorted({str(_located(folder.resolve(), each.origin.path)) for each in made})
            for name, made in (("changed", self.changed), ("gone", self.gone))
        }


def origin_of(item: Item, folder: Path) -> Origin | None:
    """The present state of an item's file, for shards in ``folder``; None without a readable file.

    Taken before the frames are read: if the file changes in between, the next run notices.
    """
    if not isinstance(item, MediaFile):
        return None
    try:
        size, mtime_ns = _size_and_time(item.path)
        digest = digest_of(item.path)
    except OSError:
        return None  # reading its frames reports the reason
    return Origin(recorded_path(item, folder.resolve()), size, mtime_ns, digest)


def compare(
    items: Sequence[Item],
    names: Iterable[str],
    made: Collection[Made],
    folder: Path,
    owns: Callable[[int], bool] = lambda _: True,
    drop_gone: bool = False,
) -> Comparison:
    """Compare the items of a run, all parts' together, with what shards and reports record.

    A file at an unknown path counts as moved if a file of the same name and content is gone.
    ``names`` are items that are recorded without a file; ``owns`` says whether the item of a number
    belongs to the part of this process; with ``drop_gone`` clips of gone files are stale.
    """
    found, folder, names = Comparison(), folder.resolve(), set(names)
    known: defaultdict[str, list[Made]] = defaultdict(list)
    for each in made:
        known[each.origin.path].append(each)
    files = {path: _located(folder, path) for path in known}
    place_named(files.values())
    gone = {path for path, file in files.items() if not file.exists()}
    moved: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted(gone):
        moved[Path(path).name].append(path)
    for index, item in enumerate(items):
        if not isinstance(item, MediaFile):
            if item.name in names:
                found.done.add(item.key)
            continue
        file, path = item.path, recorded_path(item, folder)
        if path not in known:
            others = moved[file.name] if file.name in moved and file.exists() else []
            path = next((other for other in others if _is_same(known[other], file)), path)
            if path in known:
                others.remove(path)
                gone.discard(path)
        versions = known.get(path, [])
        if item.fault is not None:
            continue  # it is skipped with that reason, and its clips stay
        if path in gone:
            if not drop_gone or any(each.captions is None for each in versions):
                found.done.add(item.key)
        elif versions:
            fitting = [each for each in versions if each.captions in (None, item.captions)]
            same = {each for each in fitting if _is_same([each], file)}
            if same:
                found.done.add(item.key)
            if owns(index):
                found.changed |= {e for e in set(versions) - same if e.captions is not None}
    found.gone = {e for path in gone for e in known[path] if e.captions is not None}
    found.stale = found.changed | found.gone if drop_gone else found.changed
    return found


def _located(folder: Path, path: str) -> Path:
    """Absolute path of a file that shards in ``folder`` (links resolved) record."""
    return mirror_of(path) if is_address(path) else Path(os.path.normpath(folder / path))


def _is_same(versions: Sequence[Made], file: Path) -> bool:
    """Whether a file has the content of one of the versions; True if it can't be read."""
    try:
        size, mtime_ns = _size_and_time(file)
        origins = [each.origin for each in versions if each.origin.size == size]
        if any(origin.mtime_ns == mtime_ns for origin in origins):
            return True
        return bool(origins) and digest_of(file) in {origin.digest for origin in origins}
    except OSError:
        return True  # the file exists: nothing says that it has changed


def _size_and_time(path: Path) -> tuple[int, int]:
    """Bytes and latest change of a file, or of a folder's files together."""
    files = list(path.iterdir()) if path.is_dir() else [path]
    about = [file.stat() for file in files]
    return sum(each.st_size for each in about), max((each.st_mtime_ns for each in about), default=0)


def recorded_path(item: Item, folder: Path) -> str:
    """Path of an item's file as shards in ``folder`` (links resolved) record it."""
    shown = addressed(item.key)
    return shown if shown != item.key else os.path.relpath(item.key, folder)
