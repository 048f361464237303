"""Options that two or more commands share, and the parsing of their values."""

import math
import re
import unicodedata
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ursa_cli.terminal import output
from ursa_core.errors import CheckpointError, UsageError
from ursa_core.grids import Strides

if TYPE_CHECKING:
    from ursa_core.bundle.adapters import Adapter

RUN_PANEL = "Run and output"

DEFAULT_MODEL = "emoji"
Model = Annotated[
    str,
    typer.Option(
        "--model",
        envvar="URSA_MODEL",
        metavar="M",
        help="Name of a shipped model, a model's folder, or a Hugging Face id (owner/name, "
        "owner/name@revision), downloaded once.",
    ),
]
Lora = Annotated[
    list[str] | None,
    typer.Option(
        "--lora",
        metavar="L",
        help="Folder of a LoRA adapter of the model, as FOLDER or FOLDER:SCALE; may be given "
        "several times.",
        show_default=False,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device", metavar="D", help="auto, cpu, cuda, cuda:N or mps.", rich_help_panel=RUN_PANEL
    ),
]
Dtype = Annotated[
    str,
    typer.Option(
        "--dtype",
        metavar="T",
        help="auto (bfloat16 where it is measured faster), float32, bfloat16 or float16.",
        rich_help_panel=RUN_PANEL,
    ),
]
Offload = Annotated[
    bool,
    typer.Option(
        "--offload",
        help="Save the device's memory: networks take turns on it.",
        rich_help_panel=RUN_PANEL,
    ),
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Compile the transformer first; pays where many videos are made.",
        rich_help_panel=RUN_PANEL,
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object to stdout.", rich_help_panel=RUN_PANEL),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", help="Print the paths written only.", rich_help_panel=RUN_PANEL),
]
Force = Annotated[
    bool,
    typer.Option("--force", help="Replace an output that exists.", rich_help_panel=RUN_PANEL),
]


def model_folder(model: str) -> Path:
    """Folder of the model that ``--model`` names, downloaded with progress where needed.

    Raises:
        CheckpointError: there is no such model, or it can't be had.
    """
    from ursa_core.bundle.adapters import is_adapter
    from ursa_core.bundle.bundle import resolve_model

    folder = resolve_model(model, partial(output.progress, in_bytes=True))
    if is_adapter(folder):
        raise CheckpointError(
            f"{model} is an adapter, not a model", f"give its model, and --lora {model}"
        )
    return folder


def read_adapters(texts: list[str] | None, model: Path) -> "tuple[Adapter, ...]":
    """The adapters that ``--lora`` names, held against the model.

    Raises:
        UsageError: a scale is no number.
        CheckpointError: one isn't an adapter of the model.
    """
    if not texts:
        return ()
    from ursa_core.bundle.adapters import check_adapter, read_adapter

    found = tuple(read_adapter(*parse_lora(text)) for text in texts)
    for adapter in found:
        check_adapter(adapter, model)
    return found


def parse_lora(text: str) -> tuple[Path, float]:
    """Folder and scale from ``FOLDER`` or ``FOLDER:SCALE``.

    Raises:
        UsageError: an empty or misspelt text, or a scale that isn't finite.
    """
    require_text("folder of --lora", text)
    folder, colon, number = text.rpartition(":")
    if not colon or Path(text).is_dir():
        return Path(text), 1.0
    try:
        scale = float(number)
    except ValueError:
        scale = math.nan
    if not folder or not -1000 <= scale <= 1000:
        raise UsageError(
            f"--lora can't be {text}", "give FOLDER or FOLDER:SCALE, -1000 to 1000, as mine:0.8"
        )
    return Path(folder), scale


def is_given(context: typer.Context, name: str) -> bool:
    """Whether the parameter ``name`` stands on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def parse_size(text: str) -> tuple[int, int]:
    """Height and width from ``HxW``.

    Raises:
        UsageError: another form, or a side below one pixel.
    """
    match = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text.strip().lower())
    if not match or not (int(match[1]) and int(match[2])):
        raise UsageError(f"{text!r} is no size", "give height x width in pixels, as 64x96")
    return int(match[1]), int(match[2])


def parse_strides(text: str) -> Strides:
    """Strides from ``TxHxW``, whose height and width are one.

    Raises:
        UsageError: another form, or a stride below 1.
    """
    match = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})x\2", text.strip().lower())
    if not match:
        raise UsageError(f"{text!r} is no stride", "give time x height x width, as 4x8x8")
    return Strides(int(match[1]), int(match[2]))


def parse_interval(text: str) -> tuple[float, float]:
    """Two times from ``LO:HI``, 0 <= LO <= HI <= 1.

    Raises:
        UsageError: another form, or out of order or range.
    """
    try:
        low, high = (float(part) for part in text.split(":"))
    except ValueError:
        low = high = math.nan
    if not 0 <= low <= high <= 1:
        raise UsageError(
            f"{text!r} is no interval of times", "give LO:HI with 0 <= LO <= HI <= 1, as 0:0.9"
        )
    return low, high


def require_text(name: str, text: str | None, may_be_empty: bool = False) -> None:
    """Raise UsageError for a text that is empty, or whose bytes were no UTF-8; None is fine."""
    if text == "" and not may_be_empty:
        raise UsageError(f"the {name} is empty", "give a name")
    try:
        (text or "").encode()
    except UnicodeEncodeError:  # Python passes such bytes on as lone surrogates
        raise UsageError(f"the {name} is not UTF-8: {text!a}", "give it as UTF-8") from None


def require_name(name: str, text: str | None) -> None:
    """Raise UsageError for what nothing new can be called: as a text, and unseen characters."""
    require_text(name, text)
    if text is not None and text == Path(text).anchor:
        raise UsageError(f"the {name} can't be {text}", "give a name below it")
    if any(unicodedata.category(character) == "Cc" for character in text or ""):
        raise UsageError(f"the {name} {text!a} has characters that can't be seen", "leave them out")


def new_path(text: str | Path) -> Path:
    """Path of a file or folder to write, as parser of an option; a default is a path already."""
    require_name("output", str(text))
    return Path(text)


def require(ok: bool, option: str, value: object, range_text: str) -> None:
    """Raise UsageError, naming option, value and range, unless ``ok``."""
    if not ok:
        shown = f"{value:g}" if isinstance(value, float) else str(value)
        raise UsageError(f"{option} can't be {shown}", f"give {range_text}")
