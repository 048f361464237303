"""Waiting for what another process or thread does, but never for ever."""

import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any


def wait_until(
    holds: Callable[[], Any],
    process: "subprocess.Popen[Any] | None" = None,
    *,
    seconds: float = 150,
    report: Callable[[], str] = str,
) -> None:
    """Wait until something holds, while a process is alive; a failure prints ``report()``."""
    until = time.monotonic() + seconds
    while not holds():
        assert process is None or process.poll() is None, f"it ended before\n{report()}"
        assert time.monotonic() < until, f"not within {seconds} s\n{report()}"
        time.sleep(0.01)


def is_open(port: int) -> bool:
    """Whether something listens at a port of this machine."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
