"""Errors that a user can cause: what is wrong, and what to do about it."""


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


class DeviceError(UrsaError):
    """The compute device asked for isn't there or is too small."""
