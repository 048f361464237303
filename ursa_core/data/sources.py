"""Media files to tokenize, each with its captions, in an order that never changes."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ursa_core.data.captions import read_caption_file, read_metadata
from ursa_core.errors import DataError

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ogv"}
    | {".ts", ".flv", ".wmv", ".3gp", ".y4m"}
)
IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".apng", ".avif"}
)
MEDIA_SUFFIXES = VIDEO_SUFFIXES | IMAGE_SUFFIXES


@dataclass(frozen=True)
class Source:
    """One media file.

    Attributes:
        name: what the file is called in shards and reports: its folder and its place in it,
            so that a run is recognised when the data has moved as a whole.
        path: where it is.
        captions: its captions, none where nothing was found.
    """

    name: str
    path: Path
    captions: tuple[str, ...]


def find_sources(inputs: Sequence[Path]) -> list[Source]:
    """The media files among the inputs, folders searched recursively; sorted within each input.

    Folders give the files with a known media suffix, and those that a metadata table in them
    lists, hidden ones left out. Files that are named themselves are taken whatever their suffix.
    A file that is found twice counts once. A metadata table comes before a ``.txt`` beside the
    file.

    Raises:
        DataError: an input doesn't exist, a folder holds no media, captions are faulty, or two
            files would get the same name.
    """
    metadata: dict[Path, dict[Path, tuple[str, ...]]] = {}
    sources: dict[Path, Source] = {}
    for given in inputs:
        if given.is_dir():
            root = given.resolve()
            found = [
                (f"{root.name}/{path.relative_to(root).as_posix()}", path)
                for path in _files_in(root, metadata)
            ]
            if not found:
                raise DataError(
                    f"no video or image in {given}", "give a folder with media, or the files"
                )
        elif given.exists():
            path = given.parent.resolve() / given.name
            found = [(f"{path.parent.name}/{path.name}", path)]
        else:
            raise DataError(f"{given} doesn't exist", "check the path")
        for name, path in found:
            sources.setdefault(path, Source(name, path, _captions(path, metadata)))
    _refuse_same_names(list(sources.values()))
    return list(sources.values())


def _files_in(root: Path, metadata: dict[Path, dict[Path, tuple[str, ...]]]) -> list[Path]:
    """Media files below a folder, sorted; files that metadata lists count even where missing."""
    paths: set[Path] = set()
    for at, folders, names in os.walk(root):
        folder = Path(at)
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths |= {
            folder / name
            for name in names
            if not name.startswith(".") and Path(name).suffix.lower() in MEDIA_SUFFIXES
        }
        paths.update(_metadata_of(folder, metadata))
    return sorted(paths, key=lambda path: path.relative_to(root).as_posix())


def _metadata_of(
    folder: Path, metadata: dict[Path, dict[Path, tuple[str, ...]]]
) -> dict[Path, tuple[str, ...]]:
    """The folder's metadata, read once."""
    if folder not in metadata:
        metadata[folder] = read_metadata(folder)
    return metadata[folder]


def _captions(path: Path, metadata: dict[Path, dict[Path, tuple[str, ...]]]) -> tuple[str, ...]:
    """Captions from the folder's own table, from one that was read above it, or from the text."""
    _metadata_of(path.parent, metadata)
    for folder in (path.parent, *path.parent.parents):
        captions = metadata.get(folder, {}).get(path)
        if captions:
            return captions
    return read_caption_file(path)


def _refuse_same_names(sources: Sequence[Source]) -> None:
    seen: dict[str, Path] = {}
    for source in sources:
        other = seen.setdefault(source.name, source.path)
        if other != source.path:
            raise DataError(
                f"{other} and {source.path} would both be called {source.name}",
                "give the folder that holds both, or tokenize them into folders of their own",
            )
