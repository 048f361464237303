"""Files that clips are written to: their names, and what stopped runs have left in them."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ursa_core.batches.run import changes
from ursa_core.errors import DataError, UsageError
from ursa_core.files import check_folder_of
from ursa_core.media import FORMATS, check_output, read_media


@dataclass(frozen=True)
class Target:
    """Where one clip, and its codes if wanted, are written."""

    media: str
    tokens: str | None

    @property
    def files(self) -> list[str]:
        """In the order in which they are written."""
        return [self.media] if self.tokens is None else [self.tokens, self.media]

    def check(self) -> None:
        """Refuse what couldn't be written, whatever is made; `begun` judges what is there."""
        check_output(self.media, force=True)
        if self.tokens is not None:
            check_folder_of(self.tokens)
            if Path(self.tokens).is_dir():
                raise UsageError(f"{self.tokens} is a folder", "choose another name")


def begun(written: Sequence[Target], force: bool) -> dict[str, dict[str, Any]]:
    """What the files that a stopped run has left record of their making, by their names.

    Without ``force``, UsageError if nothing is left to make, or a video is there without codes.
    """
    if force:
        return {}
    found = {file: made_by(file) for each in written for file in each.files if is_there(file)}
    is_done = all(each.media in found for each in written)
    for each in written:
        if each.media in found and (is_done or each.files[0] not in found):
            raise UsageError(f"{each.media} exists already", "add `force=True` to replace it")
    return found


def seed_of(there: Mapping[str, Mapping[str, Any]]) -> int | None:
    """The seed that was drawn for the files of a stopped run; None where there are none."""
    return next((s for each in there.values() if isinstance(s := each.get("seed"), int)), None)


def is_there(file: str) -> bool:
    """Whether an output is there; an empty folder is none."""
    path = Path(file)
    return any(path.iterdir()) if path.is_dir() else path.exists()


def made_by(file: str) -> dict[str, Any]:
    """What an output was made by; empty where it doesn't say."""
    from ursa_core.tokens.token_files import load_tokens

    try:
        if Path(file).suffix.lower() == ".safetensors":
            return load_tokens(file).metadata
        return read_media(file, max_frames=1).metadata
    except DataError:
        return {}


def check_begun(file: str, recorded: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Refuse, with a UsageError, to go on with an output that records other options."""
    differing = changes(options, {key: recorded[key] for key in recorded if key != "tokenizer"})
    if differing:
        hint = "add `force=True` to replace it"
        raise UsageError(f"{file} exists already, made with {differing[0]}", hint)


def preview_path(output: str | Path) -> Path:
    """Where the preview of an output is."""
    path = Path(output)
    return path.with_name(f"{path.name}.preview.png")


def check_preview(output: str | Path, force: bool) -> None:
    """Refuse an output whose preview can't be written or, without ``force``, replaces a picture."""
    path = preview_path(output)
    if os.path.lexists(path):
        check_output(path, force or is_preview(path))


def is_preview(path: Path) -> bool:
    """Whether a file is a picture that a run has written while it sampled."""
    try:
        return read_media(path).metadata.keys() == {"step"}
    except DataError:
        return False


def targets(out: str, save_tokens: str | None, num: int) -> list[Target]:
    """Where each video and its codes go; numbered before the extension if there are several."""
    if Path(out).name.lower() in ("", "..", *FORMATS):
        raise UsageError(f"{out} is no name for a video", "give one such as out.mp4")
    if save_tokens is not None and Path(save_tokens).suffix != ".safetensors":
        raise UsageError(f"codes can't be saved as {save_tokens}", "use the extension .safetensors")

    def numbered(name: str, k: int) -> str:
        path = Path(name)
        return str(path.with_name(f"{path.stem}-{k:04d}{path.suffix}"))

    if num == 1:
        return [Target(out, save_tokens)]
    slash = "/" if out.endswith("/") else ""
    return [
        Target(numbered(out, k) + slash, save_tokens and numbered(save_tokens, k))
        for k in range(num)
    ]
