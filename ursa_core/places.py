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
_ADDRESS = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<rest>[^\s?#]+)(?P<query>\?\S*)?")
_ABSENT, _COPY = 0o200, 0o444  # modes of a file that isn't fetched yet, and of one that was
_TRIES, _NEWLY_SECONDS, _UPLOAD_SECONDS = 3, 60.0, 10.0
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "modified", "created")
_DIGITS = ("ETag", "etag", "blob_id", "md5Hash", "md5", "size")
_known: dict[Path, tuple[Any, str]] = {}  # file system and its path of folders and files mirrored
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
    rest = host.rpartition("@")[2] + slash + key
    if ".." in rest.split("/"):
        raise UsageError(f"{found['scheme']}://{rest} leads upwards", "give the address itself")
    if found["query"]:  # may hold a signature, so its digits take its place
        rest = f"query-{zlib.crc32(found['query'].encode()):08x}/{rest}"
    return _root() / found["scheme"] / rest


def located(given: str | Path, *, is_input: bool = True) -> Path:
    """Path of what a text names: its own, or that of the mirror of an address, brought up to date.

    For https a ``/`` at the end says that it is a page of links, as web servers list a folder.
    DataError for what can't be reached, or as an input doesn't exist; UsageError where the library
    for such addresses isn't installed.
    """
    path = mirror_of(given)
    if not is_address(given):
        return path
    with _explaining(path):
        import fsspec

        fs, base = fsspec.core.url_to_fs(given)
        fs.invalidate_cache()
        is_page = base.startswith("http") and not base.endswith("/")
        files: dict[str, dict[str, Any]] = {}
        with suppress(*[] if is_input else [FileNotFoundError]):
            files = {base: fs.info(base)} if is_page else fs.find(base, detail=True)
    base = base.rstrip("/")
    if is_input and not files:
        raise DataError(f"{addressed(str(path))} doesn't exist, or is empty", "check the address")
    _known[path] = fs, base
    path.parent.mkdir(parents=True, exist_ok=True)
    if list(files) == [base]:
        _place(path, files[base])
        if not is_page:
            _place_beside(path, fs, base)
        return path
    wanted = {path / name[len(base) :].strip("/"): info
              for name, info in files.items() if not name.endswith("/")}  # fmt: skip
    for each in {each for each in path.rglob("*") if _is_mirrored(each)} - set(wanted):
        each.unlink()
    for each, info in wanted.items():
        each.parent.mkdir(parents=True, exist_ok=True)
        _place(each, info)
    return path


def _place_beside(path: Path, fs: Any, base: str) -> None:
    """Mirror what a file's captions may be in."""
    with _explaining(path):
        for info in fs.ls(base.rpartition("/")[0], detail=True):
            name = info["name"].rpartition("/")[2]
            beside = path.with_name(name)
            if beside != path and name.startswith((f"{path.stem}.", "metadata.")):
                _known[beside] = fs, info["name"]
                _place(beside, info)


def fetch(folder: Path, patterns: Iterable[str]) -> None:
    """Fetch the files of a mirrored folder that fit patterns, for libraries that open them."""
    for pattern in patterns:
        for each in folder.glob(pattern):
            if each.is_file():
                regular_file(each)


def place_named(paths: Iterable[Path]) -> None:
    """Mirror the files of these paths that aren't yet, such as a list in a bucket names them."""
    folders: dict[Path, Path] = {}
    for path in paths:
        if path.is_relative_to(_root()) and not path.exists():
            is_page = path.relative_to(_root()).parts[0].startswith("http")
            folders[path if is_page else path.parent] = path
    for folder in folders:
        with suppress(DataError):  # of a file that isn't there its reader tells
            located(addressed(str(folder)))


def exists(path: Path) -> bool:
    """Whether a file is there, also behind an address that this run hasn't looked at."""
    if path.exists() or not path.is_relative_to(_root()):
        return path.exists()
    with _explaining(path):
        fs, where = _remote(path)
        return bool(fs.exists(where))


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
    path = located(address, is_input=False)
    folder = path.parent if path.suffix else path
    if path.suffix:
        _known[folder] = _known[path][0], _known[path][1].rpartition("/")[0]
    with _explaining(path, "written"):
        fs, probe = _remote(folder / ".ursa-begun")
        fs.pipe_file(probe, b"")
        fs.rm_file(probe)
    for log in folder.rglob("*.jsonl"):
        regular_file(log).chmod(0o644)
    upload, ended = _Upload(folder), Event()

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
    """What of a folder is behind its address already, by the sizes and times of files here."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._done = folder, dict[Path, tuple[int, int]]()

    def run(self) -> None:
        """Upload what is new, records first, and delete what is gone; all before it raises."""
        fault: UrsaError | None = None
        for path in (*self._new(), *_deleted):
            try:
                with _explaining(path, "written"), suppress(FileNotFoundError):
                    fs, where = _remote(path)
                    if path.exists():
                        about = path.stat()
                        fs.put_file(str(path), where)
                        self._done[path] = about.st_size, about.st_mtime_ns
                    else:
                        fs.rm_file(where)
                _deleted.discard(path)
            except UrsaError as error:
                fault = fault or error
        if fault is not None:
            raise fault

    def _new(self) -> list[Path]:
        found = []
        for at, folders, names in os.walk(self._folder):  # hidden ones are no results
            folders[:] = [name for name in folders if not name.startswith(".")]
            for path in (Path(at) / name for name in names if not name.startswith(".")):
                with suppress(FileNotFoundError):
                    about = path.stat()
                    is_done = self._done.get(path) == (about.st_size, about.st_mtime_ns)
                    if not (is_done or _is_mirrored(path)):
                        found.append(path)
        return sorted(found, key=lambda path: (path.suffix != ".jsonl", path))

    def end(self) -> None:
        """What is uploaded is a copy now, but for records that another process writes."""
        for path in self._done:
            if path.exists() and not path.with_name(f".{path.name}.lock").exists():
                path.chmod(_COPY)


def _remote(path: Path) -> tuple[Any, str]:
    """File system and path there of a mirrored file."""
    for each in (path, *path.parents):
        if each in _known:
            fs, base = _known[each]
            return fs, "/".join([base, *path.relative_to(each).parts])
    import fsspec

    fs, base = fsspec.core.url_to_fs(addressed(str(path)))
    return fs, base


def _is_mirrored(path: Path) -> bool:
    """Whether a file is a placeholder or a copy, and nothing that a command wrote."""
    with suppress(OSError):
        return stat.S_IMODE(path.lstat().st_mode) in (_ABSENT, _COPY)
    return False


def _place(path: Path, info: dict[str, Any]) -> None:
    """Put a placeholder, unless the file is here as it is there, or as a killed command left it."""
    size, time_ns = int(info.get("size") or 0), _time_ns(info)
    with suppress(FileNotFoundError):
        here = path.stat()
        is_own = not _is_mirrored(path)
        if is_own and not (path.suffix == ".jsonl" and size > here.st_size):
            return
        if (here.st_size, here.st_mtime_ns) == (size, time_ns) and not is_own:
            return
    _put_placeholder(path, size, time_ns)


def _put_placeholder(path: Path, size: int, time_ns: int) -> None:
    part = _part(path)
    os.close(os.open(part, os.O_CREAT | os.O_WRONLY, _ABSENT))
    os.truncate(part, size)
    os.utime(part, ns=(time_ns, time_ns))
    part.replace(path)


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}")


def _time_ns(info: dict[str, Any]) -> int:
    """Latest change of a file there; digits in its place where only others are stated."""
    for each in filter(None, map(info.get, _TIMES)):
        if hasattr(each, "timestamp"):
            return int(each.timestamp()) * 10**9
        if isinstance(each, int | float):
            return int(each * 1e9)
    stated = "".join(str(info[name]) for name in _DIGITS if name in info)
    return zlib.crc32(stated.encode()) * 10**9


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
            part = _part(path)
            try:
                with _explaining(path):
                    fs, where = _remote(path)
                    _tried(lambda: _get(fs, where, part, wanted.st_size))
                os.utime(part, ns=now)
                part.chmod(_COPY)
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
        elif now[0] - wanted.st_atime_ns > 1e9:
            os.utime(path, ns=now)


def _get(fs: Any, where: str, part: Path, size: int) -> None:
    fs.get_file(where, str(part))
    if (got := part.stat().st_size) != size and size:
        raise EOFError(f"it ended after {got} of {size} bytes")


def _tried(attempt: Callable[[], None]) -> None:
    """Do it, again after a fault that may pass."""
    for left in reversed(range(_TRIES)):
        try:
            return attempt()
        except Exception as error:
            if not left or isinstance(error, FileNotFoundError | PermissionError | ImportError):
                raise
            time.sleep(0.5)
    return None


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
    address = addressed(str(path))
    scheme = address.partition(":")[0]
    try:
        yield
    except UrsaError:
        raise
    except (ImportError, ValueError) as error:
        raise UsageError(
            f"{scheme}:// can't be {done} here: {error}", "pip install 'ursa-video[remote]'"
        ) from None
    except Exception as error:
        inner = error.__cause__ if isinstance(error, FileNotFoundError) else None
        status = getattr(inner or error, "status", None)
        # fsspec takes whatever is wrong with a web server for a missing file.
        is_other = isinstance(inner, OSError) or status not in (None, 404)
        cause = inner if inner is not None and is_other else error
        raise _explained(cause, status, address, done) from None


def _explained(error: BaseException, status: int | None, address: str, done: str) -> DataError:
    is_safe = isinstance(error, OSError | EOFError) and not {"?", "@"} & {*str(error)}
    cause = (str(error).lower() if is_safe else "") or type(error).__name__
    if isinstance(error, FileNotFoundError):
        return DataError(f"{address} doesn't exist", "check the address")
    if isinstance(error, PermissionError) or status in (401, 403) or "Credential" in cause:
        return DataError(
            f"{address} may not be {done} with these credentials",
            "give such that may, in the way of the library for its kind of address",
        )
    cause = f"the server answers {status}" if status else cause
    return DataError(
        f"{address} can't be {done}: {cause}", "check network and address, and try again"
    )
