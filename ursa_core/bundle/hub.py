"""Models of the Hugging Face hub: their ids, where they are on this machine, and downloads.

A model is looked for where files are put by hand, then in the cache of ``huggingface_hub``, which
is imported late, and is downloaded last: file by file in the caller's thread, so that Ctrl-C stops
it at once; ``snapshot_download`` uses threads, and waits for the files that it has begun.
"""

import inspect
import logging
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ursa_core.bundle.folder import URSA_MODEL, Layout, check_classes, file_names, layout_of, listed
from ursa_core.errors import (
    CheckpointError,
    DataError,
    HubError,
    HubUnreachableError,
    UrsaError,
    UsageError,
    unwritable,
)
from ursa_core.places import ursa_home

Advance = Callable[[int], None]
Progress = Callable[[int, str], AbstractContextManager[Advance]]
"""Total bytes and a label, to a context whose value is called with each number of bytes done."""

_NAME = r"\w(?:[\w.-]*\w)?"
_ID = re.compile(rf"(?P<name>{_NAME}/{_NAME})(?:@(?P<revision>{_NAME}(?:/{_NAME})*))?", re.ASCII)
_CREDENTIALS = "credentials"
_NETWORK_LIBRARIES = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")
_NO_WAY_THERE = (
    *("ConnectError", "ConnectTimeout", "ProxyError"),
    *("ConnectionError", "ConnectionRefusedError"),
    *("UnsupportedProtocol", "InvalidURL", "MissingSchema"),
)
_AGAIN = "give the same command again: files that are whole are kept"
_FAILED = "the download of {model} failed: {reason}"
_BY_HAND = "or put its files into {model.by_hand} by hand"
_Errors = tuple[tuple[tuple[object, ...], str, str], ...]
_ERRORS: _Errors = (
    (("RevisionNotFoundError",), "{model.name} has no revision {revision!r} at {hub}",
     "give a branch, a tag or a commit that the model has"),
    ((403, "GatedRepoError"), "{hub} doesn't let you have {model.name}: it asks for permission",
     "ask for it at {hub}/{model.name}, then `hf auth login` or set HF_TOKEN"),
    ((_CREDENTIALS,), "{hub} doesn't accept your token",
     "log in again with `hf auth login`, or correct HF_TOKEN"),
    ((401, 404), "there is no model '{model}': neither a folder here, nor one that {hub} shows",
     "check the spelling; if it is private, `hf auth login` or set HF_TOKEN"),
    (("status",), "{hub} answers with error {status}", "try again later"),
    (("OfflineModeIsEnabled",), "HF_HUB_OFFLINE forbids to download it", f"unset it, {_BY_HAND}"),
    (_NO_WAY_THERE, "{hub} can't be reached", f"connect and try again, {_BY_HAND}"),
    (_NETWORK_LIBRARIES, "the download of {model} was cut", _AGAIN),
    (("OSError",), _FAILED, _AGAIN),
    (("JSONDecodeError",), "{hub} doesn't answer as a hub does: {reason}",
     "check HF_ENDPOINT, and whether a proxy or a login page stands between"),
)  # fmt: skip
"""Signs of a failure, most telling first, with its message and hint."""
_LOG_IN = "`hf auth login`, or set HF_TOKEN, with a token that may write"
_PUSH_ERRORS: _Errors = (
    ((409,), "{hub} has a {model} already",
     "give another name, or --force for a new commit there: the old ones stay"),
    ((401, 403, 404), "{hub} doesn't let you write {model}", _LOG_IN),
    (("status",), "{hub} answers with error {status}: {reason}", "try again, with --force"),
    (("OfflineModeIsEnabled",), "HF_HUB_OFFLINE forbids to upload {model}", "unset it"),
    (_NO_WAY_THERE, "{hub} can't be reached", "connect and try again"),
    (_NETWORK_LIBRARIES, "the upload of {model} was cut", "give the same command with --force"),
)  # fmt: skip


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
        return f"{self.name}@{self.revision}" if self.revision else self.name


def parse_id(text: str) -> HubId | None:
    """The hub id that a text is, else None."""
    match = _ID.fullmatch(text)
    if not match or len(match["name"]) > 96 or re.search(r"--|\.\.", text):  # as the hub allows
        return None
    return None if match["name"].endswith(".git") else HubId(match["name"], match["revision"])


def meant_id(text: str) -> HubId | None:
    """The id that a text is but for an address before it, or for a dot or slash too many."""
    plain = re.sub(r"^https?://[^/]+/", "", text.strip()).removesuffix(".git")
    if plain.startswith((".", "/", "~")):  # a path
        return None
    plain = re.sub(r"[./]{2,}", lambda run: "/" if "/" in run[0] else ".", plain)
    return parse_id("/".join(part.strip(".") for part in plain.split("/")[:2]))


def require_id(text: str, revision: str | None = None) -> HubId:
    """The hub id of a text, at ``revision`` where one is given; UsageError for other texts."""
    wanted = parse_id(text)
    if wanted is None:
        example = meant_id(text) or URSA_MODEL.example
        hint = f"give owner/name, or owner/name@revision: {example}"
        raise UsageError(f"{text!r} is no Hugging Face id", hint)
    if revision is None:
        return wanted
    if wanted.revision not in (None, revision):
        hint = "give the revision once"
        raise UsageError(f"{text!r} names another revision than {revision!r}", hint)
    if (checked := parse_id(f"{wanted.name}@{revision}")) is None:
        raise UsageError(f"{revision!r} is no revision", "give a branch, a tag or a commit")
    return checked


def models_folder() -> Path:
    """Folder of models put on this machine by hand: ``models`` in ``URSA_HOME``."""
    return ursa_home() / "models"


def found_here(wanted: HubId, layouts: Sequence[Layout] = (URSA_MODEL,)) -> Path | None:
    """Folder of a whole model on this machine, else None; CheckpointError for parts put by hand."""
    if wanted.by_hand.is_dir():
        layout_of(file_names(wanted.by_hand), layouts).check(wanted.by_hand)
        return wanted.by_hand
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        patterns = [pattern for layout in layouts for pattern in layout.patterns]
        folder = _snapshot(wanted, patterns, local_files_only=True)
        layout_of(file_names(folder), layouts).check(folder)
    except (LocalEntryNotFoundError, CheckpointError):
        return None
    return folder


def pulled_models() -> dict[str, Path]:
    """Folders of our models from the hub, cut downloads included, by the name for ``--model``."""
    from huggingface_hub import constants

    files = [
        *models_folder().glob("*/model_index.json"),
        *Path(constants.HF_HUB_CACHE).glob("models--*/snapshots/*/model_index.json"),
    ]
    found: dict[str, Path] = {}
    for file in sorted(files):
        with suppress(CheckpointError):
            check_classes(file.parent)
            if parse_id(name := name_of(file.parent)) is not None:
                found.setdefault(name, file.parent)
    return found


def name_of(folder: Path, *, exact: bool = False) -> str:
    """Name of a model as ``--model`` takes it; ``exact`` names the commit of a pulled one."""
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


def download(
    wanted: HubId,
    to: Path | None = None,
    progress: Progress | None = None,
    layouts: Sequence[Layout] = (URSA_MODEL,),
) -> Path:
    """Folder of a model, downloaded or brought up to date; files that are here are kept.

    The descriptions come first, so that a model of another kind is refused before its weights.
    Without a folder ``to`` it is downloaded to the cache of the hub library. An incomplete model is
    a CheckpointError, one that the hub doesn't give a HubError, and a full disk a DataError.
    """
    from huggingface_hub import HfApi, constants

    if not os.environ.get("HF_HUB_VERBOSITY"):  # what matters comes back as an error of ours
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    target = to or Path(constants.HF_HUB_CACHE)
    with _explaining(wanted, target):
        info = HfApi().model_info(
            wanted.name, revision=wanted.revision, files_metadata=True, timeout=10
        )
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
        layout = layout_of(sizes, layouts)
        _check_complete(wanted, layout, sizes)
        parts = [
            [name for name in sizes if any(fnmatch(name, p) for p in patterns)]
            for patterns in (layout.descriptions, layout.weights)
        ]
        commit, wanted_files = str(info.sha), [name for names in parts for name in names]
        new = {n: sizes[n] for n in wanted_files if not _is_here(wanted, commit, to, n, sizes[n])}
        num_bytes = sum(new.values())
        _check_room(wanted, target, num_bytes)
        shown = progress or (lambda *_: nullcontext(lambda _: None))
        with shown(num_bytes, f"pull {wanted}") as advance:
            for names in parts:
                for name in names:
                    file = _get(wanted, commit, to, name, new.get(name, 0), advance)
                    folder = file.parents[name.count("/")]
                layout.check_kind(folder)
        if to is None:  # all is here now: this lets the cache know which commit the revision is
            folder = _snapshot(wanted, layout.patterns, tqdm_class=_bar_class(lambda _: None))
    layout.check(folder)
    return folder


def upload(
    folder: Path, wanted: HubId, patterns: Sequence[str], *, public: bool, force: bool
) -> str:
    """Upload the files of a folder that fit patterns, in one commit; the address of that commit.

    A new repository is private unless it is to be ``public``; one that exists takes ``force``.
    Without token, network, permission or a free name it is a HubError.
    """
    from huggingface_hub import HfApi, constants, get_token
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if get_token() is None:
        raise HubError(f"{constants.ENDPOINT} takes models only from those it knows", _LOG_IN)
    disable_progress_bars()
    api = HfApi()
    with _explaining(wanted, folder, _PUSH_ERRORS):
        api.create_repo(wanted.name, private=not public, exist_ok=force)
        done = api.upload_folder(
            repo_id=wanted.name, folder_path=folder, allow_patterns=list(patterns),
            commit_message="ursa models push",
        )  # fmt: skip
    return str(done.commit_url)


def _snapshot(wanted: HubId, patterns: Sequence[str], **options: Any) -> Path:
    from huggingface_hub import snapshot_download

    own = {"revision": wanted.revision, "allow_patterns": list(patterns), **options}
    return Path(snapshot_download(wanted.name, **own))


def _is_here(wanted: HubId, commit: str, to: Path | None, name: str, size: int) -> bool:
    from huggingface_hub import try_to_load_from_cache

    if to is None:
        return isinstance(try_to_load_from_cache(wanted.name, name, revision=commit), str)
    return (to / name).is_file() and (to / name).stat().st_size == size


def _check_complete(wanted: HubId, layout: Layout, names: Collection[str]) -> None:
    if missing := layout.missing(names):
        hint = f"give a model in the published layout, as {layout.example}"
        if layout is URSA_MODEL and any(each.endswith((".bin", ".safetensors")) for each in names):
            hint += f"; or hf download {wanted.name} --local-dir DIR, and ursa models convert DIR"
        fault = f"{wanted} is no {layout.kind}, the hub's copy lacks {listed(missing)}"
        raise CheckpointError(fault, hint)


def _check_room(wanted: HubId, target: Path, num_bytes: int) -> None:
    existing = next(p for p in (target, *target.absolute().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if num_bytes > free:
        raise DataError(
            f"{wanted} takes {num_bytes / 1e9:.3g} GB,"
            f" the disk of {target} has {free / 1e9:.3g} GB free",
            "free some space, or choose another disk with --to or HF_HOME",
        )


def _get(
    wanted: HubId, commit: str, to: Path | None, name: str, size: int, advance: Advance
) -> Path:
    """A file of a model, downloaded unless it is here; bytes count once, even in several bars."""
    from huggingface_hub import hf_hub_download

    counted = 0

    def count(done: int) -> None:
        nonlocal counted
        if done > counted:
            advance(done - counted)
            counted = done

    takes_bar = "tqdm_class" in inspect.signature(hf_hub_download).parameters
    options: dict[str, Any] = {"tqdm_class": _bar_class(count)} if takes_bar else {}
    file = hf_hub_download(wanted.name, name, revision=commit, local_dir=to, **options)
    count(size)
    return Path(file)


def _bar_class(count: Advance) -> type[Any]:
    """A bar for the library, which shows nothing and calls ``count`` with the bytes done."""
    from tqdm.auto import tqdm

    class Bar(tqdm):  # type: ignore[type-arg]  # generic for type checkers alone
        def __init__(self, *_: object, **options: Any) -> None:
            super().__init__(disable=True)
            self.done = options.get("initial") or 0

        def update(self, n: float | None = 1) -> None:
            self.done += int(n or 0)
            count(self.done)

    return Bar


@contextmanager
def _explaining(wanted: HubId, target: Path, errors: _Errors = _ERRORS) -> Iterator[None]:
    """Raise errors of the hub library that a user can cause as ours."""
    try:
        yield
    except UrsaError:
        raise
    except Exception as error:
        if (explained := _explained(error, wanted, target, errors)) is None:
            raise
        raise explained from error


def _explained(error: Exception, wanted: HubId, target: Path, errors: _Errors) -> UrsaError | None:
    from huggingface_hub import constants

    chain: list[Any] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    answers = [e.response for e in chain if getattr(e, "response", None) is not None]
    reasons = " ".join(str(answer.headers.get("X-Error-Message", "")) for answer in answers)
    status = answers[0].status_code if answers else None
    full = next((e for e in chain if isinstance(e, OSError) and e.errno), None)
    signs: set[object] = {type(e).__name__ for e in chain}
    signs |= {type(e).__module__.split(".")[0] for e in chain}
    signs |= {status, "status"} if answers else set()
    signs |= {_CREDENTIALS} if status == 401 and _CREDENTIALS in reasons.lower() else set()
    signs |= {"OSError"} if full or isinstance(error, OSError) else set()
    _, message, hint = next((row for row in errors if signs.intersection(row[0])), ((), "", ""))
    if message == _FAILED and full:
        return unwritable(Path(full.filename or target), full)
    facts = {
        "model": wanted,
        "revision": wanted.revision or "main",
        "hub": constants.ENDPOINT,
        "status": status,
        "reason": next((line for line in str(error).splitlines() if line), type(error).__name__),
    }
    if _BY_HAND in hint:
        return HubUnreachableError(str(wanted), message.format(**facts), hint.format(**facts))
    return HubError(message.format(**facts), hint.format(**facts)) if message else None
