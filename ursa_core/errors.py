"""Errors that a user can cause: what is wrong, and what to do about it."""

import errno
import os
from pathlib import Path


class UrsaError(Exception):
    """An expected failure, shown as two lines and never as a traceback.

    Args:
        message: what is wrong, naming the value given.
        hint: what the user can do about it.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """Both lines, as the command line prints them."""
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


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
    """A model can't be had from the Hugging Face hub."""


class HubUnreachableError(HubError):
    """There is no way to the hub: no network, or downloads are switched off.

    Args:
        model: that was asked for.
        cause: why the hub is out of reach.
        hint: what the user can do about it.
    """

    def __init__(self, model: str, cause: str, hint: str) -> None:
        super().__init__(
            f"the model {model} isn't on this machine, neither a folder nor pulled, and {cause}",
            hint,
        )
        self.cause = cause


class DeviceError(UrsaError):
    """The compute device asked for isn't there or is too small."""


_WRITE_HINTS = {
    errno.EACCES: "make the folder writable or choose another",
    errno.EPERM: "make the folder writable or choose another",
    errno.EROFS: "choose a folder that isn't read-only",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EFBIG: "choose a folder that allows larger files",
    errno.ENOENT: "create the folder first",
    errno.ENOTDIR: "choose another name: a part of the path is a file",
    errno.EEXIST: "choose another name: a part of the path is a file",
}


def unwritable(path: Path, error: Exception) -> DataError:
    """The DataError for a failed write to ``path``, with a hint that fits the system's reason."""
    number = getattr(error, "errno", None) or 0
    if number in {errno.ENOSPC, errno.EDQUOT}:
        cause, hint = "the disk is full", "free some space or choose another folder"
    elif number in _WRITE_HINTS:
        cause, hint = os.strerror(number).lower(), _WRITE_HINTS[number]
    else:
        cause = str(getattr(error, "strerror", None) or error).lower()
        hint = "choose another folder, or check the disk"
    return DataError(f"{path} can't be written: {cause}", hint)
