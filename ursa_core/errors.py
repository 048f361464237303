"""Errors that a user can cause: what is wrong, and what to do about it."""

import errno
import os
from pathlib import Path


class UrsaError(Exception):
    """An expected failure: what is wrong with which value, and a hint at what the user can do."""

    exit_code = 1

    # `args` stays what a subclass was made of, since pickle makes it again of that.
    def __init__(self, message: str, hint: str = "") -> None:
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class UrsaWarning(UserWarning):
    """What a user might not expect of a clip; the command line prints it itself."""


class UsageError(UrsaError):
    """An option or argument has a value that can't be used."""

    exit_code = 2


class ShapeError(UsageError):
    """A pixel size, frame count or tensor shape doesn't fit the model."""


class RecipeError(UsageError):
    """A recipe has unknown keys, wrong types or impossible values."""


class CheckpointError(UrsaError):
    """A model folder or checkpoint is missing, damaged or of another kind."""


class DataError(UrsaError):
    """Media, captions or token shards can't be read or written."""


class HubError(CheckpointError):
    """A model can't be downloaded from the Hugging Face hub."""


class HubUnreachableError(HubError):
    """The hub can't be reached: no network, or downloads are switched off, as ``cause`` says."""

    def __init__(self, model: str, cause: str, hint: str) -> None:
        super().__init__(
            f"the model {model} isn't on this machine, neither a folder nor pulled, and {cause}",
            hint,
        )
        self.cause = cause


class DeviceError(UrsaError):
    """The compute device isn't there or is too small."""


def unimportable(error: Exception, package: str, key: str) -> UrsaError:
    """The error for a recipe's key that needs a package which is missing, or doesn't work."""
    is_missing = isinstance(error, ImportError) and error.name == package
    reason = "which isn't installed" if is_missing else f"whose import fails: {error}"
    hint = f"pip install --upgrade {package}, or leave that key out"
    return UrsaError(f"{key} asks for {package}, {reason}", hint)


_HINTS = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space or choose another folder"),
    errno.EFBIG: "choose a folder that allows larger files",
    errno.EROFS: "choose a folder that isn't read-only",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "give the path of the file itself: its links lead in a circle",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "choose another name: a part of the path is a file",
    errno.EEXIST: "choose another name: there is something of this one",
    errno.EISDIR: "give a file: this is a folder",
    **dict.fromkeys((errno.EACCES, errno.EPERM), "change its permissions, or choose another"),
    errno.EMFILE: "allow more open files: ulimit -n",
    errno.ENFILE: "close other programs",
    errno.EIO: "check the disk",
    errno.ESPIPE: "copy what it gives to a file, and name that",  # as regular_file says it
}
_WRITE_HINTS = {
    **_HINTS,
    **dict.fromkeys((errno.EACCES, errno.EPERM), "make the folder writable or choose another"),
    errno.EIO: "choose another folder, or check the disk",
    errno.ENOENT: "create the folder first",
    errno.EEXIST: "choose another name: a part of the path is a file",
    errno.EISDIR: "choose another name: this is a folder",
}
_READ_HINTS = {**_HINTS, **dict.fromkeys((errno.EACCES, errno.EPERM), "make it readable")}
_MAX_PATH_SHOWN = 200


def unwritable(path: Path, error: Exception) -> DataError:
    """The DataError for a failed write to ``path``, with a hint that fits the system's reason."""
    hint = _WRITE_HINTS.get(_number(error), "choose another folder, or check the disk")
    return DataError(f"{_shown(path)} can't be written: {_cause(error)}", hint)


def unreadable(
    path: Path, error: Exception, hint: str, kind: type[UrsaError] = DataError
) -> UrsaError:
    """The error, of a kind, for a failed read; ``hint`` holds where the system gives no reason."""
    hint = _READ_HINTS.get(_number(error), hint)
    return kind(f"{_shown(path)} can't be read: {_cause(error)}", hint)


def unusable(error: OSError) -> tuple[str, str] | None:
    """Message and hint for an error of the system that no other code explains; None without one."""
    if not _number(error):
        return None
    name = error.filename if error.filename2 is None else error.filename2
    path = "the system refuses" if name is None else f"{_shown(os.fsdecode(name))} can't be used"
    return f"{path}: {_cause(error)}", _HINTS.get(_number(error), "check the path and the disk")


def _number(error: BaseException) -> int:
    return getattr(error, "errno", None) or 0


def _cause(error: BaseException) -> str:
    if _number(error) in {errno.ENOSPC, errno.EDQUOT}:
        return "the disk is full"
    reason = getattr(error, "strerror", None)
    return str(reason or (os.strerror(_number(error)) if _number(error) else error)).lower()


def _shown(path: Path | str) -> str:
    """A path, without the middle of a very long one."""
    text, half = str(path), _MAX_PATH_SHOWN // 2
    return text if len(text) <= _MAX_PATH_SHOWN else f"{text[:half]}…{text[-half:]}"
