"""Where files are: on this machine, or behind an address that fsspec can read.

What an address names is mirrored in a folder of this machine, its files by placeholders of their
size and time, which nobody may read. ``regular_file``, which readers of files call, fetches the
content of one, whole, the first time; the copies used last stay, of ``--cache-gb`` together. What a
command writes into the folder of an address is uploaded while it runs (`published`). Credentials
are those of the libraries; an address is told without its own.
"""

import errno
import os
import re
import stat
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from threading import Event, Thread
from typing import Any

from ursa_core.errors import DataError, UrsaError, UsageError

CACHE_BYTES = "URSA_CACHE_BYTES"
"""Variable of the environment with the bytes of copies that are kept, as of ``--cache-gb``."""
_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+)://(?P<rest>.+)")
_ABSENT, _COPY = 0o200, 0o444  # modes of a file that isn't fetched yet, and of one that was
_TRIES, _NEWLY_SECONDS, _UPLOAD_SECONDS = 3, 60.0, 10.0
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "modified", "created")
_DIGITS = ("ETag", "etag", "blob_id", "md5Hash", "md5", "size")
_known: dict[Path, tuple[Any, str]] = {}  # file system and its path of folders and files mirrored
_given: dict[Path, str] = {}  # addresses in full, which paths of mirrors stand for
_deleted: set[Path] = set()  # files of mirrors that are to be deleted there, too
_held: list[float] = []  # bytes of all copies, once they were counted


def ursa_home() -> Path:
    """Folder of what is kept for all runs: ``URSA_HOME``, or ``~/.cache/ursa``."""
    return _absolute(os.environ.get("URSA_HOME") or "~/.cache/ursa", os.environ.get("HOME"))


@cache
def _absolute(path: str, _home: str | None) -> Path:
    return Path(path).expanduser().absolute()


def _root() -> Path:
    return ursa_home() / "remote"


def is_address(text: object) -> bool:
    """Whether a text is an address, as ``s3://bucket/films``."""
    return isinstance(text, str) and _ADDRESS.fullmatch(text) is not None


def addressed(text: str) -> str:
    """A text with addresses in place of the paths of their mirrors."""
    root = f"{ursa_home()}{os.sep}remote{os.sep}"
    return re.sub(re.escape(root) + r"([a-z0-9+.-]+)/", r"\1://", text) if root in text else text


def mirror_of(given: str | Path) -> Path:
    """Path of what a text names: its own, or where an address is mirrored, whether it is or not."""
    found = _ADDRESS.fullmatch(given) if isinstance(given, str) else None
    if found is None:
        return Path(given)
    host, slash, key = found["rest"].partition("/")
    scheme, rest = found["scheme"].lower(), host.rpartition("@")[2] + slash + key
    if scheme in ("http", "https"):  # what follows may be a signature, so its digits take its place
        rest, mark, query = rest.partition("?")
        rest = f"query-{zlib.crc32(query.encode()):08x}/{rest}" if mark else rest
    if ".." in rest.split("/"):
        raise UsageError(f"{scheme}://{rest} leads upwards", "give the address itself")
    _given[path := _root() / scheme / rest] = str(given)
    return path


def located(given: str | Path, *, is_input: bool = True) -> Path:
    """Path of what a text names: its own, or that of the mirror of an address, brought up to date.

    For https a ``/`` at the end says that it is a page of links, as web servers list a folder.
    DataError for what can't be reached, or as an input doesn't exist; UsageError where the library
    for such addresses isn't installed.
    """
    path = mirror_of(given)
    if not is_address(given):
        return path
    found: dict[str, dict[str, Any]] = {}
    with _explaining(path):
        import fsspec

        fs, base = fsspec.core.url_to_fs(given)
        fs.invalidate_cache()
        is_page = base.startswith("http") and not base.endswith("/")
        with suppress(*[] if is_input else [FileNotFoundError]):
            found = {base: fs.info(base)} if is_page else fs.find(base, detail=True)
    base, files = base.rstrip("/"), dict[str, dict[str, Any]]()
    for name, about in found.items():
        is_inside = f"{name}/".startswith(f"{base}/") and ".." not in name.split("/")
        if is_inside and about.get("type") != "directory" and not name.endswith("/"):
            files[name.removeprefix(base).strip("/")] = about
    if is_input and not files:
        raise DataError(f"{addressed(str(path))} doesn't exist, or is empty", "check the address")
    _known[path] = fs, base
    _make_way(path)
    if list(files) == [""]:
        _place(path, files[""])
        if not is_page:  # what its captions may be in
            _place_some(path.parent, lambda name: name.startswith((f"{path.stem}.", "metadata.")))
        return path
    wanted = {path / name: about for name, about in files.items() if name}
    for each in {each for each in (path, *path.rglob("*")) if _is_mirrored(each)} - set(wanted):
        each.unlink()
    folders = {above for each in wanted for above in each.parents}
    for each, about in wanted.items():
        if each not in folders:  # where a key is both, the folder counts
            _place(each, about)
    return path


def _place_some(folder: Path, wants: Callable[[str], bool]) -> None:
    """Mirror the files of a folder, but not those of folders in it, whose names are wanted."""
    fs, base = _remote(folder)
    with _explaining(folder):
        for about in fs.ls(base, detail=True):
            path = folder / about["name"].rpartition("/")[2]
            if wants(path.name) and about.get("type") != "directory":
                _known[path] = fs, about["name"]
                _place(path, about)


def fetch(folder: Path, patterns: Iterable[str]) -> None:
    """Fetch the files of a mirrored folder that fit patterns, for libraries that open them."""
    for each in {each for pattern in patterns for each in folder.glob(pattern) if each.is_file()}:
        regular_file(each)


def place_named(paths: Iterable[Path]) -> None:
    """Mirror the files of these paths that aren't yet, such as a list in a bucket names them."""
    names: dict[Path, set[str]] = {}
    for path in paths:
        if path.is_relative_to(_root()) and not path.exists():
            names.setdefault(path.parent, set()).add(path.name)
    for folder, own in names.items():
        is_web = folder.relative_to(_root()).parts[0].startswith("http")
        with suppress(DataError):  # of a file that isn't there its reader tells
            for path in [folder / name for name in own] if is_web else []:
                located(_given.get(path) or addressed(str(path)))
            if not is_web:
                _place_some(folder, own.__contains__)


def regular_file(path: Path, *, or_pipe: bool = False) -> Path:
    """The path of a regular file, or with ``or_pipe`` a pipe; OSError for what may never end.

    A file of a mirror is fetched if need be; DataError if that fails.
    """
    try:
        mode = path.stat().st_mode
    except ValueError as error:
        raise OSError(errno.EINVAL, "no name of a file holds a NUL", str(path)) from error
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not (stat.S_ISREG(mode) or (or_pipe and stat.S_ISFIFO(mode))):
        what = "pipe" if stat.S_ISFIFO(mode) else "socket" if stat.S_ISSOCK(mode) else "device"
        raise OSError(errno.ESPIPE, f"it is a {what}, not a regular file", str(path))
    if stat.S_IMODE(mode) in (_ABSENT, _COPY) and path.is_relative_to(_root()):
        _fetch(path)
    return path


def delete(path: Path) -> None:
    """Delete a file that a command made, in a mirror there, too; it may be missing."""
    path.unlink(missing_ok=True)
    if path.is_relative_to(_root()):
        _deleted.add(path)


def is_pipe(path: Path) -> bool:
    """Whether a path is that of a pipe, such as ``<(…)`` in a shell."""
    try:
        return path.is_fifo()
    except OSError:
        return False


@contextmanager
def published(address: str) -> Iterator[Path]:
    """A path to write a file or folder to, whose files are uploaded to an address.

    What is there already is seen, and read when it is needed. Files go up whole some seconds after
    they are written, the records of a batch before what they are of, and the rest at the end. What
    fails is tried again; at the end it is a DataError, and the files stay for the same command to
    go on. An address that can't be written is one at once.
    """
    if not is_address(address):
        raise UsageError(f"{address} is no address", "give one such as s3://bucket/clips")
    path = located(address, is_input=False)
    folder = path.parent if path.suffix else path
    with _explaining(path, "written"):
        fs, probe = _remote(folder / ".ursa-begun")
        fs.pipe_file(probe, b"")
        fs.rm_file(probe)
    for record in [] if path.suffix else folder.rglob("*.jsonl"):
        regular_file(record).chmod(0o644)  # which the command goes on with
    upload, ended = _Upload(folder, path.stem if path.suffix else ""), Event()

    def work() -> None:
        pause = _UPLOAD_SECONDS
        while not ended.wait(pause):
            begun = time.monotonic()
            with suppress(UrsaError):
                upload.run()
            pause = max(_UPLOAD_SECONDS, 20 * (time.monotonic() - begun))  # of long records

    thread = Thread(target=work, daemon=True)
    thread.start()
    try:
        yield path
    finally:
        ended.set()
        thread.join()
        upload.run()
        upload.end()


class _Upload:
    """The files that a command wrote into a folder, of names that begin so.

    What is uploaded is a copy from then on, but for records, which a process may be writing.
    """

    def __init__(self, folder: Path, begin: str) -> None:
        self._folder, self._begin = folder, begin
        self._records: dict[Path, tuple[int, int]] = {}  # as they were uploaded

    def run(self) -> None:
        """Upload what is new, records first, and delete what is gone; DataError at a fault."""
        for path in self._new():
            with suppress(FileNotFoundError), path.open("rb") as file:
                state, (fs, where) = _state(path), _remote(path)
                with _explaining(path, "written"):
                    fs.put_file(str(path), where)
                if path.suffix == ".jsonl":
                    self._records[path] = state
                else:
                    os.fchmod(file.fileno(), _COPY)
        for path in [each for each in _deleted if not each.exists()]:
            with _explaining(path, "deleted"), suppress(FileNotFoundError):
                fs, where = _remote(path)
                fs.rm_file(where)
            _deleted.discard(path)

    def _new(self) -> list[Path]:
        found = []
        for at, folders, names in os.walk(self._folder):  # hidden ones are no results
            folders[:] = [name for name in folders if not name.startswith(".")]
            own = [name for name in names if name.startswith(self._begin) and name[0] != "."]
            for path in (Path(at) / name for name in own):
                with suppress(FileNotFoundError):
                    if not _is_mirrored(path) and self._records.get(path) != _state(path):
                        found.append(path)
        return sorted(found, key=lambda path: (path.suffix != ".jsonl", path))

    def end(self) -> None:
        """Take records for copies, too, but for those that another process writes."""
        for path in self._records:
            if path.exists() and not path.with_name(f".{path.name}.lock").exists():
                path.chmod(_COPY)


def _state(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_size, about.st_mtime_ns


def _remote(path: Path) -> tuple[Any, str]:
    """File system and path there of a mirrored file."""
    for each in (path, *path.parents):
        if each in _known:
            fs, base = _known[each]
            return fs, "/".join([base, *path.relative_to(each).parts])
    import fsspec

    fs, base = fsspec.core.url_to_fs(_given.get(path) or addressed(str(path)))
    return fs, base


def _is_mirrored(path: Path) -> bool:
    """Whether a file is a placeholder or a copy, and nothing that a command wrote."""
    with suppress(OSError):
        return stat.S_IMODE(path.lstat().st_mode) in (_ABSENT, _COPY)
    return False


def _place(path: Path, about: dict[str, Any]) -> None:
    """Put a placeholder, unless the file is here as it is there, or later, by a killed command."""
    state = int(about.get("size") or 0), _time_ns(about)
    _make_way(path)
    with suppress(FileNotFoundError):
        here = _state(path)
        if here == state if _is_mirrored(path) else here[1] > state[1]:
            return
    _put_placeholder(path, *state)


def _make_way(path: Path) -> None:
    for each in path.parents:
        if each.is_file() and _is_mirrored(each):  # it was a file there once
            each.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)


def _put_placeholder(path: Path, size: int, time_ns: int) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}")
    os.close(os.open(part, os.O_CREAT | os.O_WRONLY, _ABSENT))
    os.truncate(part, size)
    os.utime(part, ns=(time_ns, time_ns))
    part.replace(path)


def _time_ns(about: dict[str, Any]) -> int:
    """Latest change of a file there, in whole seconds, and digits of it below them."""
    stated = "".join(str(about[name]) for name in (*_TIMES, *_DIGITS) if name in about)
    times = (about[name] for name in _TIMES if hasattr(about.get(name), "timestamp"))
    seconds = next((int(each.timestamp()) for each in times), 0)
    return seconds * 10**9 + zlib.crc32(stated.encode()) % 10**9


def _fetch(path: Path) -> None:
    """Bring a file's content here, by one process at a time; and note that it is used now."""
    from filelock import FileLock

    locks = _root() / ".locks"
    locks.mkdir(exist_ok=True)
    with FileLock(locks / f"{zlib.crc32(str(path).encode()) % 256:02x}"):
        wanted = path.stat()
        now = time.time_ns(), wanted.st_mtime_ns
        if stat.S_IMODE(wanted.st_mode) == _ABSENT:
            _make_room(wanted.st_size)
            part = path.with_name(f".{path.name}.fetched")  # that of a killed process is replaced
            try:
                with _explaining(path):
                    fs, where = _remote(path)
                    _get(fs, where, part, wanted.st_size)
                os.utime(part, ns=now)
                part.chmod(_COPY)
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
        elif now[0] - wanted.st_atime_ns > 1e9:
            os.utime(path, ns=now)


def _get(fs: Any, where: str, part: Path, size: int) -> None:
    """Copy a file from there, again after a fault that may pass."""
    for left in reversed(range(_TRIES)):
        try:
            fs.get_file(where, str(part))
            if size and (got := part.stat().st_size) != size:
                raise EOFError(f"it ended after {got} of {size} bytes")  # noqa: TRY301  (to be tried again)
            break
        except Exception as error:
            if not left or isinstance(error, FileNotFoundError | PermissionError | ImportError):
                raise
            time.sleep(0.5)


def _make_room(num_bytes: int) -> None:
    """Forget the copies that were used longest ago, but not in the last minute, for new bytes."""
    most = float(os.environ.get(CACHE_BYTES, 20e9))
    if not _held or _held[0] + num_bytes > most:
        every = [(path.lstat(), path) for path in _root().rglob("*")]
        copies = [each for each in every if stat.S_IMODE(each[0].st_mode) == _COPY]
        _held[:] = [float(sum(found.st_size for found, _ in copies))]
        for found, path in sorted(copies, key=lambda each: each[0].st_atime_ns):
            is_new = time.time() - found.st_atime < _NEWLY_SECONDS
            if _held[0] + num_bytes <= 0.9 * most or is_new:
                break
            _put_placeholder(path, found.st_size, found.st_mtime_ns)
            _held[0] -= found.st_size
    _held[0] += num_bytes


@contextmanager
def _explaining(path: Path, done: str = "read") -> Iterator[None]:
    """Raise what libraries of addresses raise as ours, without what may hold credentials."""
    try:
        yield
    except UrsaError:
        raise
    except Exception as error:
        raise _explained(error, addressed(str(path)), done) from None


def _explained(error: BaseException, address: str, done: str) -> UrsaError:
    inner = error.__cause__ if isinstance(error, FileNotFoundError) else None
    status = getattr(inner or error, "status", None)
    # fsspec takes whatever is wrong with a web server for a missing file.
    if inner is not None and (isinstance(inner, OSError) or status not in (None, 404)):
        error = inner
    is_safe = isinstance(error, OSError | EOFError | ValueError | ImportError)
    is_safe = is_safe and not {"?", "@"} & {*str(error)}
    cause = str(error).lower() if is_safe else type(error).__name__
    cannot = f"{address} can't be {done}: {f'the server answers {status}' if status else cause}"
    if isinstance(error, ImportError) or cause.startswith("protocol not known"):
        return UsageError(cannot, "pip install 'ursa-video[remote]', and the library for gs://")
    if isinstance(error, FileNotFoundError):
        what = "doesn't exist" if done == "read" else "has no place there"
        return DataError(f"{address} {what}", "check the address")
    if isinstance(error, PermissionError) or status in (401, 403) or "Credential" in cause:
        hint = "give such that may, in the way of the library for its kind of address"
        return DataError(f"{address} may not be {done} with these credentials", hint)
    return DataError(cannot, "check network and address, and try again")
