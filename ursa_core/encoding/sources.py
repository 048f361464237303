"""Media files to tokenize, each with its captions, in an order that never changes."""

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path

import numpy as np

from ursa_core.batches.tables import is_utf8
from ursa_core.encoding import captions as texts
from ursa_core.encoding.captions import MANIFEST_SUFFIXES, Metadata
from ursa_core.encoding.cuts import ClipCut, Dropped, LoadedClip, windows
from ursa_core.errors import DataError
from ursa_core.media import Frames, measure_length, open_media, resize_and_crop

_VIDEOS = "mp4 m4v mov mkv webm avi mpg mpeg ogv ts mts m2ts flv wmv 3gp y4m"
_IMAGES = "png jpg jpeg jfif webp gif bmp tif tiff apng avif"
MEDIA_SUFFIXES = frozenset(f".{name}" for kinds in (_VIDEOS, _IMAGES) for name in kinds.split())


Tables = dict[Path, Metadata]
"""What tables say of captions, by their folders."""
OnPath = Callable[[Path], None]


@dataclass(frozen=True)
class MediaFile:
    """A media file, which gives clips."""

    name: str  # its folder and its place in it; files in folders of one name may share it
    path: Path  # place, as the input was given
    captions: tuple[str, ...] = ()  # captions, none where nothing was found
    fault: DataError | None = None  # what is wrong with its captions, which it can't do without

    @cached_property
    def key(self) -> str:
        """Absolute path of the file, links among its folders resolved."""
        return str(_resolved(self.path))

    def clips(self, cut: ClipCut, temporal_stride: int) -> Iterator[LoadedClip | Dropped]:
        """The clips of the file at the rate of the cut, read as they are asked for."""
        if self.fault:
            raise self.fault
        rates = (cut.fps, cut.source_fps)
        media, measured = open_media(self.path, *rates), partial(measure_length, self.path, *rates)
        filters, reason, found = cut.filters, "", ""
        if not (media.is_still or filters.min_seconds is filters.max_seconds is None):
            seconds = measured()[1] if media.seconds is None else media.seconds
            reason, found = filters.reason("seconds", seconds), f"{seconds:.4g} s"
        if not reason:
            first = next(media.frames)
            height, width = first.shape[:2]
            reason, found = filters.reason("size", min(height, width)), f"{height}x{width}"
        if reason:
            yield Dropped(self.name, reason, found)
            return
        size = cut.size_for(height, width)
        num_read = 0

        def resized() -> Iterator[Frames]:
            nonlocal num_read
            before, made = None, first
            for num_read, frame in enumerate(itertools.chain([first], media.frames), 1):  # noqa: B007
                if frame is not before:  # a frame that is held comes several times
                    before, made = frame, resize_and_crop(frame[None], *size)[0]
                yield made

        if cut.mode == "full":
            frames = np.stack(list(resized()))
            fitting = (len(frames) - 1) // temporal_stride * temporal_stride + 1
            clip = LoadedClip(frames[:fitting], self.captions, self.name, media.notes)
            yield from cut.versions(clip)
            return
        counted = measured()[0] if cut.mode == "uniform" else None
        is_empty = True
        length = 1 if media.is_still else cut.shape.frames  # stills have a grid of their own
        for start, frames in windows(resized(), cut.starts(counted), length):
            is_empty = False
            name = cut.name(self.name, start)
            yield from cut.versions(LoadedClip(frames, self.captions, name, media.notes))
        if is_empty:
            fits = (num_read - 1) // temporal_stride * temporal_stride + 1
            have, take = (f"{n} frame{'s' * (n != 1)}" for n in (num_read, fits))
            raise DataError(
                f"{self.path} has {have} at {cut.fps:g} per second, {cut.shape.frames} are needed",
                f"take {take}, the most that fit, or sample more per second",
            )


def find_sources(
    inputs: Sequence[Path], on_repeat: OnPath = lambda _: None, on_left_out: OnPath = lambda _: None
) -> list[MediaFile]:
    """The media files among the inputs, folders searched recursively; sorted within each input.

    Folders, linked ones too, give the files with a known media suffix, and those that a metadata
    table in them lists, hidden ones left out. A metadata table comes before a ``.txt`` next to the
    file; a row of it that names no file is an entry of its own, with a fault. A ``.jsonl`` or
    ``.csv`` file is a manifest, whose files come in the order of its rows. Callbacks get each file
    that is found again, and what is left out. A missing input or an empty folder is a DataError.
    """
    metadata: Tables = {}
    sources: dict[Path, MediaFile] = {}
    _resolved_folder.cache_clear()
    for given in inputs:
        for file in _files_of(given, metadata, on_left_out):
            at = _resolved(file.path)
            if at in sources:
                on_repeat(file.path)
            else:
                sources[at] = _with_name(file, at)
    return list(sources.values())


def _files_of(given: Path, metadata: Tables, on_left_out: OnPath) -> Iterator[MediaFile]:
    """The files of one input, a manifest's in its order, with their captions."""
    suffix = given.suffix.lower()
    is_manifest = suffix in MANIFEST_SUFFIXES and given.is_file()
    if is_manifest or (suffix not in MEDIA_SUFFIXES and texts.is_stream(given)):
        yield from _listed(given)
    elif given.is_dir():
        root, files = given.resolve().name, _files_in(given, metadata, on_left_out)
        if not files:
            hint = "give a folder with media, or the files"
            raise DataError(f"no video or image in {given}", hint)
        for path in files:
            name = f"{root}/{path.relative_to(given).as_posix()}"
            yield MediaFile(name, path, *_captions(path, metadata))
    elif given.exists():
        at = _resolved(given)
        yield MediaFile(f"{at.parent.name}/{at.name}", given, *_captions(given, metadata))
    else:
        raise DataError(f"{given} doesn't exist", "check the path")


def _listed(manifest: Path) -> Iterator[MediaFile]:
    """The files of a manifest, and its faults; a file in its folder is named as in that folder."""
    table = texts.read_manifest(manifest)
    if not (table.captions or table.faults):
        raise DataError(f"{manifest} lists no file", "give it a row for each file")
    root = (Path() if texts.is_stream(manifest) else manifest.parent).resolve()
    for path in dict.fromkeys([*table.captions, *table.faults]):
        at = _resolved(path)
        is_inside = at.is_relative_to(root)
        name = f"{root.name}/{at.relative_to(root).as_posix()}" if is_inside else at.as_posix()
        yield MediaFile(name, path, table.captions.get(path, ()), table.faults.get(path))


def _resolved(path: Path) -> Path:
    """The absolute path, with links resolved among its folders, but not the file itself."""
    return _resolved_folder(path.parent) / path.name


_resolved_folder = lru_cache(1000)(Path.resolve)


def _with_name(source: MediaFile, at: Path) -> MediaFile:
    """The file, with a fault where no shard or report can hold its name."""
    if is_utf8(f"{source.path} {at}"):
        return source
    both = (os.fsencode(text) for text in (source.path, source.name))
    shown, name = (text.decode(errors="backslashreplace") for text in both)
    fault = DataError(f"{shown}: its path is not UTF-8 text", "rename it, or its folder")
    return replace(source, name=name, captions=(), fault=fault)


def _files_in(root: Path, metadata: Tables, on_left_out: OnPath) -> list[Path]:
    """Media files below a folder, sorted; files that metadata lists count even where missing."""
    paths: set[Path] = set()
    seen: set[str] = set()
    waiting = [root]
    while waiting:  # links come last, so that files are named by the folder that holds them
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
            table = metadata[folder] = metadata.get(folder) or texts.read_metadata(folder)
            listed = {*table.captions, *table.faults}
            paths |= listed
            for path in (folder / name for name in names if not name.startswith(".")):
                suffix = path.suffix.lower()
                if suffix in MEDIA_SUFFIXES:
                    paths.add(path)
                elif path not in listed and suffix not in {".txt", *MANIFEST_SUFFIXES}:
                    on_left_out(path)
    return sorted(paths, key=lambda path: path.relative_to(root).as_posix())


def _captions(path: Path, metadata: Tables) -> tuple[tuple[str, ...], DataError | None]:
    """Captions from the folder's table, one read above it, or the text file; and their fault."""
    if path.parent not in metadata:
        metadata[path.parent] = texts.read_metadata(path.parent)
    tables = [metadata[at] for at in path.parents if at in metadata]
    for table in tables:
        if path in table.faults:
            return (), table.faults[path]
        if table.captions.get(path):
            return table.captions[path], None
    try:
        captions = texts.read_caption_file(path)
    except DataError as error:
        return (), error
    stray = next((table.stray for table in tables if table.stray), None)
    if captions or not stray:
        return captions, None
    return (), DataError(f"{path} has no caption, and {stray} is faulty", "correct that line first")
