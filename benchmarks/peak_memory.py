"""Memory that a process took."""

import re
from pathlib import Path


def peak_memory(*, since_now: bool = False) -> int:
    """Largest resident memory of this process on Linux, in bytes.

    ``getrusage`` won't do: its peak includes that of the process that this one was forked from.

    Args:
        since_now: Whether to forget earlier peaks first, so that the answer is the present size
            and a later call gives the growth since then.
    """
    process = Path("/proc/self")
    if since_now:
        (process / "clear_refs").write_text("5", encoding="ascii")
    found = re.search(r"VmHWM:\s+(\d+) kB", (process / "status").read_text(encoding="ascii"))
    if found is None:
        raise RuntimeError("/proc/self/status names no VmHWM")
    return int(found[1]) * 1024
