"""Models of the Hugging Face hub: their ids, and where they are on this machine.

A model is looked for where files are put by hand, then in the cache of ``huggingface_hub``, and
is downloaded at last. That library is imported late: shipped models and folders never need it.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ursa_core.bundle.folder import URSA_MODEL, Layout, check_classes, file_names, layout_of
from ursa_core.errors import CheckpointError, HubError, UsageError

if TYPE_CHECKING:
    from ursa_core.bundle.hub_download import Progress

_NAME = r"\w(?:[\w.-]*\w)?"
_ID = re.compile(rf"(?P<name>{_NAME}/{_NAME})(?:@(?P<revision>{_NAME}(?:/{_NAME})*))?", re.ASCII)
_MAX_ID_LENGTH = 96  # that the hub allows


@dataclass(frozen=True)
class HubId:
    """A model of the hub: ``owner/name``, at a branch, tag or commit."""

    name: str
    revision: str | None = None

    @property
    def by_hand(self) -> Path:
        """Folder where the model's files may be put by hand."""
        return models_folder() / str(self).replace("/", "--")

    def __str__(self) -> str:
        """As ``owner/name`` or ``owner/name@revision``."""
        return f"{self.name}@{self.revision}" if self.revision else self.name


def parse_id(text: str) -> HubId | None:
    """The hub id that a text is, else None."""
    match = _ID.fullmatch(text)
    if not match or len(match["name"]) > _MAX_ID_LENGTH or re.search(r"--|\.\.", text):
        return None
    return None if match["name"].endswith(".git") else HubId(match["name"], match["revision"])


def require_id(text: str, revision: str | None = None) -> HubId:
    """The hub id of a text, at ``revision`` where one is given.

    Raises:
        UsageError: the text is no id, or names another revision.
    """
    wanted = parse_id(text)
    if wanted is None:
        raise UsageError(
            f"{text!r} is no Hugging Face id",
            "give owner/name, or owner/name@revision, as BAAI/URSA-1.7B-FSQ320",
        )
    if revision is None:
        return wanted
    if wanted.revision not in (None, revision):
        raise UsageError(
            f"{text!r} names another revision than {revision!r}", "give the revision once"
        )
    checked = parse_id(f"{wanted.name}@{revision}")
    if checked is None:
        raise UsageError(f"{revision!r} is no revision", "give a branch, a tag or a commit")
    return checked


def models_folder() -> Path:
    """Folder of models put on this machine by hand: ``models`` in ``URSA_HOME``."""
    home = os.environ.get("URSA_HOME") or "~/.cache/ursa"
    return Path(home).expanduser().absolute() / "models"


def find(
    wanted: HubId,
    progress: "Progress | None" = None,
    *,
    may_download: bool = True,
    layouts: Sequence[Layout] = (URSA_MODEL,),
) -> Path:
    """Folder of a model: put there by hand, else pulled before, else downloaded now.

    Args:
        wanted: the model.
        progress: told of a download.
        may_download: False looks on this machine alone.
        layouts: kinds of models that will do.

    Raises:
        CheckpointError: the model is incomplete or of another kind.
        HubError: it isn't here and can't be downloaded.
    """
    folder = found_here(wanted, layouts)
    if folder is not None:
        return folder
    if not may_download:
        raise HubError(
            f"the model {wanted} isn't on this machine: neither a folder nor pulled before",
            f"check the path, or get it from the hub: ursa models pull {wanted}",
        )
    from ursa_core.bundle.hub_download import download

    return download(wanted, progress=progress, layouts=layouts)


def found_here(wanted: HubId, layouts: Sequence[Layout] = (URSA_MODEL,)) -> Path | None:
    """Folder of a model that is on this machine; None if there is none, or only a part of one.

    Raises:
        CheckpointError: its files were put there by hand, and aren't a model.
    """
    if wanted.by_hand.is_dir():
        layout_of(file_names(wanted.by_hand), layouts).check(wanted.by_hand)
        return wanted.by_hand
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(
            snapshot_download(
                wanted.name,
                revision=wanted.revision,
                allow_patterns=[pattern for layout in layouts for pattern in layout.patterns],
                local_files_only=True,
            )
        )
        layout_of(file_names(folder), layouts).check(folder)
    except (LocalEntryNotFoundError, CheckpointError):
        return None
    return folder


def pulled_models() -> dict[str, Path]:
    """Folders of the hub's models on this machine, by the name that ``--model`` takes.

    Models of other kinds in the hub library's cache are left out; a download that was cut may be
    among them.
    """
    from huggingface_hub import constants

    files = [
        *models_folder().glob("*/model_index.json"),
        *Path(constants.HF_HUB_CACHE).glob("models--*/snapshots/*/model_index.json"),
    ]
    found: dict[str, Path] = {}
    for file in sorted(files):
        try:
            check_classes(file.parent)
        except CheckpointError:
            continue
        name = name_of(file.parent)
        if parse_id(name) is not None:
            found.setdefault(name, file.parent)
    return found


def name_of(folder: Path, *, exact: bool = False) -> str:
    """Name of a model as ``--model`` takes it: the hub id where it came from there.

    Args:
        folder: of the model.
        exact: name the commit of a pulled model, not its branch or tag.
    """
    folder = folder.absolute()
    if folder.parent == models_folder():
        return folder.name.replace("--", "/")
    cache = folder.parent.parent
    if folder.parent.name != "snapshots" or not cache.name.startswith("models--"):
        return folder.resolve().name
    name = cache.name.removeprefix("models--").replace("--", "/")
    refs = {
        file.relative_to(cache / "refs").as_posix()
        for file in (cache / "refs").rglob("*")
        if file.is_file() and file.read_text(encoding="utf-8").strip() == folder.name
    }
    if exact or not refs:
        return f"{name}@{folder.name}"
    return name if "main" in refs else f"{name}@{min(refs)}"
