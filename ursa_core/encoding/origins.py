"""Files that clips of shards were made of: whether they are still there, and the same.

A shard records of each clip's file its path, size, time and digest, besides the captions. A later
run compares them: equal size and time are taken for the same content, else the digest decides.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ursa_core.encoding.items import FileItem, Item
from ursa_core.files import digest_of
from ursa_core.tokens.writer import Made, Origin


@dataclass
class Comparison:
    """What a folder of shards holds of the items of a run.

    Attributes:
        done: Keys of the items that need no work.
        changed: What the files of the run's part and their captions no longer are.
        gone: What files that are no longer there have left in the shards.
        stale: What is to be removed from the shards: what has changed, and what is gone if asked.
        num_unchecked: Number of files that were taken as done by their names, since shards of
            earlier versions say nothing else of them.
    """

    done: set[str] = field(default_factory=set)
    changed: set[Made] = field(default_factory=set)
    gone: set[Made] = field(default_factory=set)
    stale: set[Made] = field(default_factory=set)
    num_unchecked: int = 0


def origin_of(item: Item, folder: Path) -> Origin | None:
    """The file of an item as it is now, for shards in ``folder``; None without a readable file.

    To be called before the file is read for its frames: if it changes in between, the next run
    finds it changed.
    """
    if not isinstance(item, FileItem):
        return None
    try:
        size, mtime_ns = _size_and_time(item.source.path)
        digest = digest_of(item.source.path)
    except OSError:
        return None  # reading its frames reports the reason
    return Origin(recorded_path(item, folder.resolve()), size, mtime_ns, digest)


def compare(
    items: Sequence[Item],
    names: Collection[str],
    made: Collection[Made],
    folder: Path,
    owns: Callable[[int], bool] = lambda _: True,
    drop_gone: bool = False,
) -> Comparison:
    """Compare the items of a run with what shards and reports say.

    A file that isn't known by its path counts as one that has moved, if a file of the same name
    and content is gone from where it was.

    Args:
        items: All items of the run, those of other parts too.
        names: Items that are recorded without a file.
        made: All else that is recorded.
        folder: Folder of the shards.
        owns: Whether the item of a number belongs to the part of this process.
        drop_gone: Whether what is gone is to be removed.
    """
    found, folder = Comparison(), folder.resolve()
    known: defaultdict[str, list[Made]] = defaultdict(list)
    for each in made:
        known[each.origin.path].append(each)
    gone = {path for path in known if not located(folder, path).exists()}
    moved: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted(gone):
        moved[Path(path).name].append(path)
    unclaimed = set(names)
    for index, item in enumerate(items):
        if not isinstance(item, FileItem):
            if item.name in names:
                found.done.add(item.key)
            continue
        file, path = item.source.path, recorded_path(item, folder)
        if path not in known:
            others = moved[file.name]
            if others and file.exists():
                path = next((other for other in others if _is_same(known[other], file)), path)
            if path in known:
                others.remove(path)
                gone.discard(path)
        versions = known.get(path, [])
        if item.source.fault is not None:
            continue  # it is skipped with that reason, and what is there stays
        if path in gone:
            if not drop_gone or any(each.captions is None for each in versions):
                found.done.add(item.key)
        elif versions:
            same = {
                each
                for each in versions
                if each.captions in (None, item.source.captions) and _is_same([each], file)
            }
            if same:
                found.done.add(item.key)
            if owns(index):
                found.changed.update(each for each in versions if each not in same)
        elif item.name in unclaimed:
            unclaimed.remove(item.name)
            found.done.add(item.key)
            found.num_unchecked += owns(index)
    found.changed = {each for each in found.changed if each.captions is not None}
    found.gone = {e for path in gone for e in known[path] if e.captions is not None}
    found.stale = found.changed | found.gone if drop_gone else found.changed
    return found


def located(folder: Path, path: str) -> Path:
    """Absolute path of a file that shards in ``folder``, links resolved, record."""
    return Path(os.path.normpath(folder / path))


def _is_same(versions: Sequence[Made], file: Path) -> bool:
    """Whether a file has the content of one of the versions; also if it can't be read."""
    try:
        size, mtime_ns = _size_and_time(file)
        origins = [each.origin for each in versions if each.origin.size == size]
        if any(origin.mtime_ns == mtime_ns for origin in origins):
            return True
        return bool(origins) and digest_of(file) in {origin.digest for origin in origins}
    except OSError:
        return True  # the file is there: nothing says that it has changed


def _size_and_time(path: Path) -> tuple[int, int]:
    """Number of bytes and time of the last change, of a folder those of its files together."""
    files = list(path.iterdir()) if path.is_dir() else [path]
    about = [file.stat() for file in files]
    return sum(each.st_size for each in about), max((each.st_mtime_ns for each in about), default=0)


def recorded_path(item: Item, folder: Path) -> str:
    """Path by which shards in ``folder``, links resolved, record the file of an item."""
    return os.path.relpath(item.key, folder)
