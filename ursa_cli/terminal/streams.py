"""Streams that take any text, and that outlive their readers."""

import errno
import io
import logging
import os
import sys
import warnings
from typing import TextIO

from ursa_cli.terminal import output
from ursa_core.errors import UrsaWarning

_READER_LEFT = (errno.EPIPE, errno.EIO)  # EIO is that of a terminal that was closed


class _Stream(io.TextIOWrapper):
    """A stream that discards its text once its reader has left."""

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._lead_nowhere(error)
        return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._lead_nowhere(error)
            super().flush()

    def _lead_nowhere(self, error: OSError) -> None:
        # Results that can't be written, as to a full disk, are a failure; messages never are.
        if self.fileno() == 1 and error.errno not in _READER_LEFT:
            raise error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


class _Messages(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say = output.warn if record.levelno >= logging.WARNING else output.note
        say(record.getMessage())


def prepare() -> None:
    """Prepare the process for any text and any terminal.

    Closed streams are opened to nowhere: otherwise the next file would take their number, and get
    what is printed. With an ASCII-only locale the command starts again in Python's UTF-8 mode, so
    that arguments and names of files are what the user typed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if sys.getfilesystemencoding() == "ascii" and not sys.flags.utf8_mode:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606
    sys.stdin = sys.stdin or io.TextIOWrapper(io.FileIO(0, closefd=False))
    sys.stdout = _stream(1, sys.stdout)
    sys.stderr = _stream(2, sys.stderr)
    logging.basicConfig(level=logging.WARNING, handlers=[_Messages()])
    logging.getLogger("ursa_core").setLevel(logging.INFO)
    warnings.showwarning = _show_warning


def finish() -> None:
    """Write what waits in the streams, so that nothing fails once the exit code is known."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # reported already
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _stream(number: int, before: TextIO | None) -> _Stream:
    return _Stream(
        io.BufferedWriter(io.FileIO(number, "w", closefd=False)),
        encoding=before.encoding if before else "utf-8",
        errors="backslashreplace",
        line_buffering=number == 2 or os.isatty(number),
        write_through=getattr(before, "write_through", False),
    )


def _show_warning(
    message: Warning | str, category: type[Warning], *_: object, **__: object
) -> None:
    kind = "" if issubclass(category, UrsaWarning) else f"{category.__name__}: "
    output.warn(f"{kind}{message}")
