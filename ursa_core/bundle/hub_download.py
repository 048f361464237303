"""Downloads from the Hugging Face hub, by ``huggingface_hub``, with errors that say what to do.

The library takes its settings from its own environment: ``HF_HOME``, ``HF_HUB_OFFLINE``,
``HF_TOKEN``, ``HF_ENDPOINT``. A connection that breaks is taken up where it broke; after a stop,
files that are whole are kept.
"""

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ursa_core.bundle.folder import URSA_MODEL, Layout, layout_of, listed
from ursa_core.bundle.hub import HubId
from ursa_core.errors import (
    CheckpointError,
    DataError,
    HubError,
    HubUnreachableError,
    UrsaError,
    unwritable,
)

if TYPE_CHECKING:
    from tqdm.auto import tqdm

Progress = Callable[[int, str], AbstractContextManager[Callable[[int], None]]]
"""Total bytes and a label, to a context whose value is called with each number of bytes done."""

_SECONDS_TO_ANSWER = 10
_NETWORK_LIBRARIES = {"httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3"}
_NO_WAY_THERE = {
    *("ConnectError", "ConnectTimeout", "ProxyError"),
    *("ConnectionError", "ConnectionRefusedError"),
    *("UnsupportedProtocol", "InvalidURL", "MissingSchema"),
}
_AGAIN = "give the same command again: files that are whole are kept"


def download(
    wanted: HubId,
    to: Path | None = None,
    progress: Progress | None = None,
    layouts: Sequence[Layout] = (URSA_MODEL,),
) -> Path:
    """Folder of a model, downloaded or brought up to date; files that are here are kept.

    The descriptions come first, so that what is no model of ours is refused before its weights.

    Args:
        wanted: the model.
        to: folder to download to; None is the cache of the hub library.
        progress: told of the download.
        layouts: kinds of models that will do.

    Raises:
        CheckpointError: the model is incomplete or of another kind.
        DataError: the disk is full, or the folder can't be written to.
        HubUnreachableError: there is no network, or it is switched off.
        HubError: the hub doesn't have the model, or refuses it.
    """
    from huggingface_hub import HfApi, constants, snapshot_download

    if not os.environ.get("HF_HUB_VERBOSITY"):  # what matters comes back as an error of ours
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    target = to or Path(constants.HF_HUB_CACHE)
    with _errors_told(wanted, target):
        info = HfApi().model_info(
            wanted.name,
            revision=wanted.revision,
            files_metadata=True,
            timeout=_SECONDS_TO_ANSWER,
        )
        files = {file.rfilename: file.size or 0 for file in info.siblings or []}
        layout = layout_of(files, layouts)
        fetch = _Fetch(wanted, layout, str(info.sha), to, _matching(files, layout.patterns))
        fetch.check(target)
        with (progress or _no_progress)(fetch.num_bytes, f"pull {wanted}") as advance:
            layout.check_kind(fetch(layout.descriptions, advance))
            folder = fetch(layout.weights, advance)
        if to is None:  # all is here now: this lets the cache know which commit the revision is
            folder = Path(
                snapshot_download(
                    wanted.name,
                    revision=wanted.revision,
                    allow_patterns=list(layout.patterns),
                    tqdm_class=_Counter(lambda _: None).bar_class(),
                )
            )
    layout.check(folder)
    return folder


def _matching(sizes: dict[str, int], patterns: tuple[str, ...]) -> dict[str, int]:
    return {n: size for n, size in sizes.items() if any(fnmatch(n, p) for p in patterns)}


@dataclass(frozen=True)
class _Fetch:
    """One commit of a model on its way to this machine.

    Files come one after the other in this thread, so that Ctrl-C stops them at once.
    """

    wanted: HubId
    layout: Layout
    commit: str
    to: Path | None
    sizes: dict[str, int]

    @property
    def num_bytes(self) -> int:
        """Bytes that aren't here yet."""
        return sum(size for name, size in self.sizes.items() if not self._is_here(name))

    def check(self, target: Path) -> None:
        """Refuse what can't become a model, and what the disk has no room for."""
        missing = self.layout.missing(self.sizes)
        if missing:
            raise CheckpointError(
                f"{self.wanted} is no {self.layout.kind}, the hub's copy lacks {listed(missing)}",
                f"give a model in the published layout, as {self.layout.example}",
            )
        existing = next(p for p in (target, *target.absolute().parents) if p.exists())
        free = shutil.disk_usage(existing).free
        if self.num_bytes > free:
            raise DataError(
                f"{self.wanted} takes {self.num_bytes / 1e9:.3g} GB,"
                f" the disk of {target} has {free / 1e9:.3g} GB free",
                "free some space, or choose another disk with --to or HF_HOME",
            )

    def __call__(self, patterns: tuple[str, ...], advance: Callable[[int], None]) -> Path:
        """Folder of the model, once the files of the patterns are there."""
        import inspect

        from huggingface_hub import hf_hub_download

        takes_bar = "tqdm_class" in inspect.signature(hf_hub_download).parameters
        folder = Path()
        for name, size in _matching(self.sizes, patterns).items():
            was_here = self._is_here(name)
            counter = _Counter(advance)
            options: dict[str, Any] = {"tqdm_class": counter.bar_class()} if takes_bar else {}
            file = hf_hub_download(
                self.wanted.name, name, revision=self.commit, local_dir=self.to, **options
            )
            if not was_here:
                counter.count(size)
            folder = Path(file).parents[name.count("/")]
        return folder

    def _is_here(self, name: str) -> bool:
        from huggingface_hub import try_to_load_from_cache

        if self.to is None:
            cached = try_to_load_from_cache(self.wanted.name, name, revision=self.commit)
            return isinstance(cached, str)
        file = self.to / name
        return file.is_file() and file.stat().st_size == self.sizes[name]


class _Counter:
    """Bytes of one file that are done; what several bars of the library tell counts once."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self.advance, self.done = advance, 0

    def count(self, done: int) -> None:
        """Go on to ``done`` bytes."""
        if done > self.done:
            self.advance(done - self.done)
            self.done = done

    def bar_class(self) -> "type[tqdm[Any]]":
        """A bar for the library to call, which shows nothing by itself."""
        from tqdm.auto import tqdm

        counter = self

        class Bar(tqdm):  # type: ignore[type-arg]  # generic for type checkers alone
            def __init__(self, *_: object, **options: Any) -> None:
                super().__init__(disable=True)
                self.done = options.get("initial") or 0

            def update(self, n: float | None = 1) -> None:
                self.done += int(n or 0)
                counter.count(self.done)

        return Bar


def _no_progress(_total: int, _label: str) -> AbstractContextManager[Callable[[int], None]]:
    return nullcontext(lambda _: None)


@contextmanager
def _errors_told(wanted: HubId, target: Path) -> Iterator[None]:
    """Turn what the hub library raises into errors of ours."""
    try:
        yield
    except UrsaError:
        raise
    except Exception as error:
        told = _explained(error, wanted, target)
        if told is None:
            raise
        raise told from error


def _explained(error: BaseException, wanted: HubId, target: Path) -> UrsaError | None:
    """Our error for one of the hub library's; None if it is none that a user can cause."""
    from huggingface_hub import constants, errors

    hub = constants.ENDPOINT
    chain = _chain(error)
    statuses = [getattr(getattr(e, "response", None), "status_code", None) for e in chain]
    status = next((s for s in statuses if isinstance(s, int)), None)
    if any(isinstance(e, errors.RevisionNotFoundError) for e in chain):
        return HubError(
            f"{wanted.name} has no revision {wanted.revision or 'main'!r} at {hub}",
            "give a branch, a tag or a commit that the model has",
        )
    if status == 403 or any(isinstance(e, errors.GatedRepoError) for e in chain):
        return HubError(
            f"{hub} doesn't let you have {wanted.name}: it asks for permission",
            f"ask for it at {hub}/{wanted.name}, then `hf auth login` or set HF_TOKEN",
        )
    if status == 401 and _is_token_refused(chain):
        return HubError(
            f"{hub} doesn't accept your token", "`hf auth login` anew, or correct HF_TOKEN"
        )
    if status in (401, 404):
        return HubError(
            f"there is no model {str(wanted)!r}: neither a folder here, nor one that {hub} shows",
            "check the spelling; if it is private, `hf auth login` or set HF_TOKEN",
        )
    if status is not None:
        return HubError(f"{hub} answers with error {status}", "try again later")
    if any(isinstance(e, errors.OfflineModeIsEnabled) for e in chain):
        return _unreachable(wanted, "HF_HUB_OFFLINE forbids to download it", "unset it")
    if any(type(e).__name__ in _NO_WAY_THERE for e in chain):
        return _unreachable(wanted, f"{hub} can't be reached", "connect and try again")
    if any(type(e).__module__.split(".")[0] in _NETWORK_LIBRARIES for e in chain):
        return HubError(f"the download of {wanted} was cut", _AGAIN)
    full = next((e for e in chain if isinstance(e, OSError) and e.errno), None)
    if full is not None:
        return unwritable(Path(full.filename or target), full)
    if isinstance(error, OSError):  # the library's own: a size or a header isn't as told
        return HubError(f"the download of {wanted} failed: {_first_line(error)}", _AGAIN)
    if type(error).__name__ == "JSONDecodeError":
        return HubError(
            f"{hub} doesn't answer as a hub does: {_first_line(error)}",
            "check HF_ENDPOINT, and whether a proxy or a login page stands between",
        )
    return None


def _is_token_refused(chain: list[BaseException]) -> bool:
    messages = [getattr(getattr(e, "response", None), "headers", {}) for e in chain]
    return any("credentials" in str(m.get("X-Error-Message", "")).lower() for m in messages)


def _unreachable(wanted: HubId, cause: str, remedy: str) -> HubUnreachableError:
    by_hand = f"{remedy}, or put its files into {wanted.by_hand} by hand"
    return HubUnreachableError(str(wanted), cause, by_hand)


def _chain(error: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    step: BaseException | None = error
    while step is not None and step not in chain:
        chain.append(step)
        step = step.__cause__ or step.__context__
    return chain


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line), type(error).__name__)
