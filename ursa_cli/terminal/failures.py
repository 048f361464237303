"""Any failure in two lines for the user."""

import re
import sys
from dataclasses import fields
from functools import cache

from ursa_core.errors import UrsaError, unusable

_OPTION = re.compile(r"`(?P<name>[a-z_]+)(=(?P<value>[^`]+))?`")


@cache
def _options() -> set[str]:
    from ursa_core.bundle.options import option_types
    from ursa_core.clips.requests import ExtensionOptions, InterpolationOptions, SampleInputs
    from ursa_core.encoding.options import TokenizeOptions

    records = (SampleInputs, InterpolationOptions, ExtensionOptions, TokenizeOptions)
    of_records = {field.name for record in records for field in fields(record)}
    of_call = {"model", "lora", "device", "dtype", "offload", "offload_blocks", "force"}
    return {*option_types(), *of_records, *of_call}


def in_options(text: str) -> str:
    """A text of the core, which names options as Python does (`fit=True`), with ``--fit``."""

    def option(found: re.Match[str]) -> str:
        name, value = found["name"], found["value"]
        if name not in _options():
            return found[0]
        flag = f"--{name.replace('_', '-')}"
        return flag if value in (None, "True") else f"{flag} {value}"

    return _OPTION.sub(option, text)


def explained(error: Exception) -> tuple[str, str]:
    """Message and hint for an error of any kind."""
    if isinstance(error, UrsaError):
        return in_options(error.message), in_options(error.hint)
    refused = unusable(error) if isinstance(error, OSError) else None
    if refused is not None:
        return refused
    if _is_out_of_memory(error):
        hint = "ask for fewer --frames or a smaller --size, or add --offload"
        return "out of memory", f"{hint}; in training, set a smaller train.batch_size"
    first_line = (str(error).splitlines() or [""])[0]
    return (
        f"a bug in ursa: {type(error).__name__}: {first_line}",
        "set URSA_DEBUG=1 for the traceback, and report it with the output of `ursa info`",
    )


def reason(error: Exception) -> str:
    """Message for an error of any kind."""
    return explained(error)[0]


def _is_out_of_memory(error: Exception) -> bool:
    torch = sys.modules.get("torch")  # not imported, it can't have raised
    if isinstance(error, MemoryError) or (torch and isinstance(error, torch.OutOfMemoryError)):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "can't allocate memory" in text or "out of memory" in text
    )
