"""Options that commands share, records as options, and the parsing of values."""

import functools
import inspect
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from typer.models import ParameterInfo

from ursa_cli.terminal import output
from ursa_core.bundle.options import parse_size as parse_size
from ursa_core.bundle.options import require as require
from ursa_core.bundle.options import require_text as require_text
from ursa_core.errors import UsageError
from ursa_core.grids import Strides

RUN_PANEL = "Run and output"
Panels = Mapping[str | None, Mapping[str, tuple[Any, ...]]]
"""Metavar and help of fields, by the panel of the help; where needed words for the default, and a
parser or another type in place of the field's."""
KEYWORD = inspect.Parameter.KEYWORD_ONLY


def option(
    metavar: str | None,
    text: str,
    panel: str | None = None,
    shown: str | bool = True,
    names: tuple[str, ...] = (),
    **more: Any,
) -> Any:
    """An option of Typer's; ``shown`` is its default in words."""
    return typer.Option(
        *names, metavar=metavar, help=text, rich_help_panel=panel, show_default=shown, **more
    )


def flag(name: str, text: str, panel: str | None = RUN_PANEL) -> Any:
    """An option without a value."""
    return option(None, text, panel, names=(name,))


def output_path(metavar: str, text: str, shown: str | bool = True) -> Any:
    """The option ``--output`` of a command that writes a file or folder of any name."""
    return option(metavar, text, None, shown, ("--output", "-o"), parser=new_path)


def argument(metavar: str | None, text: str) -> Any:
    """An argument of Typer's."""
    return typer.Argument(metavar=metavar, help=text)


DEFAULT_MODEL = "emoji"
Model = Annotated[
    str,
    option(
        "M",
        "Name of a shipped model, a model's folder, or a Hugging Face id (owner/name, "
        "owner/name@revision), downloaded once.",
        envvar="URSA_MODEL",
    ),
]
Lora = Annotated[
    list[str] | None,
    option(
        "L",
        "Folder of a LoRA adapter of the model, as FOLDER or FOLDER:SCALE; may be given "
        "several times.",
    ),
]
Device = Annotated[str, option("D", "auto, cpu, cuda, cuda:N or mps.", RUN_PANEL)]
Dtype = Annotated[
    str,
    option(
        "T", "auto (bfloat16 where it is measured faster), float32, bfloat16 or float16.", RUN_PANEL
    ),
]
Offload = Annotated[bool, flag("--offload", "Save the device's memory: networks take turns on it.")]
OffloadBlocks = Annotated[
    int | None,
    option(
        "N", "Offload, and keep N of the transformer's layers there, 1 or more.", RUN_PANEL, "all"
    ),
]
Compile = Annotated[
    bool, flag("--compile", "Compile the transformer first; pays where many videos are made.")
]
DryRun = Annotated[bool, flag("--dry-run", "Print what would be done, and stop.")]
Json = Annotated[bool, flag("--json", "Print one JSON object to stdout.")]
Quiet = Annotated[bool, flag("--quiet", "Print the paths written only.")]
Force = Annotated[bool, flag("--force", "Replace an output that exists.")]


download_progress = partial(output.progress, in_bytes=True)


def model_folder(model: str) -> Path:
    """Folder of the model that ``--model`` names, downloaded with progress where needed."""
    from ursa_core.clips import plan

    return plan.model_folder(model, download_progress)


def is_given(context: typer.Context, name: str) -> bool:
    """Whether the parameter ``name`` stands on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def parse_strides(text: str) -> Strides:
    """Strides from ``TxHxW``, whose height and width are one; else a UsageError."""
    match = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})x\2", text.strip().lower())
    if not match:
        raise UsageError(f"{text!r} is no stride", "give time x height x width, as 4x8x8")
    return Strides(int(match[1]), int(match[2]))


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


def parameters(record: type, panels: Panels) -> list[inspect.Parameter]:
    """Parameters of a command: the fields that a table names, or that are annotated for Typer."""
    hints = get_type_hints(record, localns={"Source": str}, include_extras=True)
    defaults = {}
    for each in fields(record):
        made = each.default if each.default_factory is MISSING else each.default_factory()
        defaults[each.name] = inspect.Parameter.empty if made is MISSING else made
    own = {
        name: hint
        for name, hint in hints.items()
        if any(isinstance(each, ParameterInfo) for each in getattr(hint, "__metadata__", ()))
    }
    return [
        inspect.Parameter(name, KEYWORD, default=defaults[name], annotation=hint)
        for name, hint in {**described_types(hints, panels), **own}.items()
    ]


def described_types(hints: Mapping[str, Any], panels: Panels) -> dict[str, Any]:
    """Types by name, those of a table alone, annotated for Typer."""

    def annotation(name: str, panel: str | None, metavar: str | None, text: str,
                   shown: str | bool = True, kind: Any = None) -> Any:  # fmt: skip
        parser = kind if inspect.isfunction(kind) else None
        flag = (f"--{name.replace('_', '-')}",)
        about = option(metavar, text, panel, shown, flag, parser=parser)
        return Annotated[Any if parser else kind or hints[name], about]

    return {
        name: annotation(name, panel, *about)
        for panel, table in panels.items()
        for name, about in table.items()
        if name in hints
    }


def described(
    panels: Panels, **records: type
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator that makes options of a command's parameters, by a table.

    In place of a parameter that is named with a record, each field of the record is an option.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(command, include_extras=True)
        types = {**hints, **described_types(hints, panels)}
        command.__annotations__ = {name: types[name] for name in command.__annotations__}
        of_records = {name: (parameters(kind, panels), kind) for name, kind in records.items()}
        return with_parameters(command, **of_records)

    return decorate


def with_parameters(
    command: Callable[..., None],
    **instead: tuple[Sequence[inspect.Parameter], Callable[..., Any]],
) -> Callable[..., None]:
    """The command with others in place of a parameter, and what makes its value of theirs."""

    @functools.wraps(command)
    def run(**given: Any) -> None:
        for name, (own, made) in instead.items():
            given[name] = made(**{each.name: given.pop(each.name) for each in own})
        command(**given)

    every: list[inspect.Parameter] = []
    for one in inspect.signature(command).parameters.values():
        every += instead[one.name][0] if one.name in instead else [one.replace(kind=KEYWORD)]
    vars(run)["__signature__"] = inspect.Signature(every)  # which Typer reads options from
    run.__annotations__ = {each.name: each.annotation for each in every}
    return run
