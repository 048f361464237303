"""Any failure in two lines for the user."""

import sys

from ursa_core.errors import UrsaError, unusable


def explained(error: Exception) -> tuple[str, str]:
    """Message and hint for an error of any kind."""
    if isinstance(error, UrsaError):
        return error.message, error.hint
    refused = unusable(error) if isinstance(error, OSError) else None
    if refused is not None:
        return refused
    if _is_out_of_memory(error):
        return (
            "out of memory",
            "ask for fewer --frames or a smaller --size, add --offload or --dtype bfloat16",
        )
    first_line = (str(error).splitlines() or [""])[0]
    return (
        f"a bug in ursa: {type(error).__name__}: {first_line}",
        "set URSA_DEBUG=1 for the traceback, and report it with the output of `ursa info`",
    )


def _is_out_of_memory(error: Exception) -> bool:
    torch = sys.modules.get("torch")  # not imported, it can't have raised
    if isinstance(error, MemoryError) or (torch and isinstance(error, torch.OutOfMemoryError)):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "can't allocate memory" in text or "out of memory" in text
    )
