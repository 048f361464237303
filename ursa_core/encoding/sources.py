"""Media files to tokenize, each with its captions, in an order that never changes."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ursa_core.encoding.captions import (
    MANIFEST_SUFFIXES,
    Metadata,
    is_stream,
    read_caption_file,
    read_manifest,
    read_metadata,
)
from ursa_core.errors import DataError

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ogv"}
    | {".ts", ".mts", ".m2ts", ".flv", ".wmv", ".3gp", ".y4m"}
)
IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".apng", ".avif"}
)
MEDIA_SUFFIXES = VIDEO_SUFFIXES | IMAGE_SUFFIXES


@dataclass(frozen=True)
class Source:
    """One media file.

    Attributes:
        name: what the file is called in shards and reports: its folder and its place in it;
            files in folders of one name may share it.
        path: where it is, as the input was given.
        captions: its captions, none where nothing was found.
        fault: what is wrong with its captions; it isn't to be tokenized without them.
    """

    name: str
    path: Path
    captions: tuple[str, ...]
    fault: DataError | None = None


def find_sources(
    inputs: Sequence[Path],
    on_repeat: Callable[[Path], None] = lambda _: None,
    on_left_out: Callable[[Path], None] = lambda _: None,
) -> list[Source]:
    """The media files among the inputs, folders searched recursively; sorted within each input.

    Folders, linked ones too, give the files with a known media suffix, and those that a metadata
    table in them lists, hidden ones left out. A name that isn't UTF-8 is a fault of its file.
    Files that are named themselves are taken whatever their suffix.
    A metadata table comes before a ``.txt`` beside the file; a row of it that names no file is a
    source of its own, with a fault. A ``.jsonl`` or ``.csv`` file is a manifest: the files of its
    rows, in their order, with their captions, and its faults likewise.

    Args:
        inputs: files, folders and manifests.
        on_repeat: told of each file that is found again; it counts once.
        on_left_out: told of each other file, but for captions, and of folders that can't be read.

    Raises:
        DataError: an input doesn't exist, or a folder holds no media or two tables.
    """
    metadata: dict[Path, Metadata] = {}
    sources: dict[Path, Source] = {}
    for given in inputs:
        is_manifest = given.suffix.lower() in MANIFEST_SUFFIXES and given.is_file()
        if is_manifest or (given.suffix.lower() not in MEDIA_SUFFIXES and is_stream(given)):
            for source in _sources_of(given):
                at = _resolved(source.path)
                if at in sources:
                    on_repeat(source.path)
                else:
                    sources[at] = _with_name(source, at)
            continue
        if given.is_dir():
            root = given.resolve()
            files = _files_in(given, metadata, on_left_out)
            found = [
                (f"{root.name}/{path.relative_to(given).as_posix()}", _resolved(path), path)
                for path in files
            ]
            if not found:
                raise DataError(
                    f"no video or image in {given}", "give a folder with media, or the files"
                )
        elif given.exists():
            at = _resolved(given)
            found = [(f"{at.parent.name}/{at.name}", at, given)]
        else:
            raise DataError(f"{given} doesn't exist", "check the path")
        for name, at, path in found:
            if at in sources:
                on_repeat(path)
            else:
                sources[at] = _with_name(Source(name, path, *_captions(path, metadata)), at)
    return list(sources.values())


def _sources_of(manifest: Path) -> list[Source]:
    """The files of a manifest, and its faults; a file inside its folder is called as in that."""
    table = read_manifest(manifest)
    if not (table.captions or table.faults):
        raise DataError(f"{manifest} lists no file", "give it a row for each file")
    root = (Path() if is_stream(manifest) else manifest.parent).resolve()
    found = []
    for path in dict.fromkeys([*table.captions, *table.faults]):
        at = path.parent.resolve() / path.name
        is_inside = at.is_relative_to(root)
        name = f"{root.name}/{at.relative_to(root).as_posix()}" if is_inside else at.as_posix()
        found.append(Source(name, path, table.captions.get(path, ()), table.faults.get(path)))
    return found


def _resolved(path: Path) -> Path:
    """The absolute path, with links resolved among its folders, but not the file itself."""
    return path.parent.resolve() / path.name


def _with_name(source: Source, at: Path) -> Source:
    """The source, or one with a fault where no shard or report can hold its name."""
    try:
        f"{source.path} {at}".encode()
    except UnicodeEncodeError:
        shown = os.fsencode(source.path).decode(errors="backslashreplace")
        name = os.fsencode(source.name).decode(errors="backslashreplace")
        fault = DataError(f"{shown}: its path is not UTF-8 text", "rename it, or its folder")
        return replace(source, name=name, captions=(), fault=fault)
    return source


def _files_in(
    root: Path, metadata: dict[Path, Metadata], on_left_out: Callable[[Path], None]
) -> list[Path]:
    """Media files below a folder, sorted; files that metadata lists count even where missing."""
    paths: set[Path] = set()
    seen: set[str] = set()
    waiting = [root]
    while waiting:  # links come last, so that files are called by the folder that they lie in
        walk = os.walk(waiting.pop(0), onerror=lambda error: on_left_out(Path(error.filename)))
        for at, folders, names in walk:
            folder, real = Path(at), os.path.realpath(at)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            for link in (folder / name for name in folders if (folder / name).is_symlink()):
                is_above = link.resolve() in root.resolve().parents
                on_left_out(link) if is_above else waiting.append(link)
            table = _metadata_of(folder, metadata)
            listed = {*table.captions, *table.faults}
            paths |= listed
            for path in (folder / name for name in names if not name.startswith(".")):
                suffix = path.suffix.lower()
                if suffix in MEDIA_SUFFIXES:
                    paths.add(path)
                elif path not in listed and suffix not in {".txt", *MANIFEST_SUFFIXES}:
                    on_left_out(path)
    return sorted(paths, key=lambda path: path.relative_to(root).as_posix())


def _metadata_of(folder: Path, metadata: dict[Path, Metadata]) -> Metadata:
    """The folder's metadata, read once."""
    if folder not in metadata:
        metadata[folder] = read_metadata(folder)
    return metadata[folder]


def _captions(
    path: Path, metadata: dict[Path, Metadata]
) -> tuple[tuple[str, ...], DataError | None]:
    """Captions from the folder's own table, from one that was read above it, or from the text.

    With them what is wrong with them, if anything.
    """
    _metadata_of(path.parent, metadata)
    tables = [metadata[at] for at in (path.parent, *path.parent.parents) if at in metadata]
    for table in tables:
        if path in table.faults:
            return (), table.faults[path]
        if table.captions.get(path):
            return table.captions[path], None
    try:
        captions = read_caption_file(path)
    except DataError as error:
        return (), error
    stray = next((table.stray for table in tables if table.stray), None)
    if stray and not captions:
        return (), DataError(
            f"{path} has no caption, and {stray} is faulty", "correct that line first"
        )
    return captions, None
