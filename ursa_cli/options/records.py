"""Records as options: the record has types and defaults, a table the help."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Annotated, Any, get_type_hints

from typer.models import ParameterInfo

from ursa_cli.options.shared import option

Panels = Mapping[str | None, Mapping[str, tuple[Any, ...]]]
"""Metavar and help of fields, by the panel of the help; where needed words for the default, and a
parser or another type in place of the field's."""
_KEYWORD = inspect.Parameter.KEYWORD_ONLY


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
        inspect.Parameter(name, _KEYWORD, default=defaults[name], annotation=hint)
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


def described(panels: Panels) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator that makes options of a command's own parameters, by a table."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(command, include_extras=True)
        types = {**hints, **described_types(hints, panels)}
        own = inspect.signature(command).parameters.values()
        return with_parameters(command, [p.replace(annotation=types[p.name]) for p in own])

    return decorate


def spread(
    parameter: str, record: type, panels: Panels
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator that replaces a command's parameter, a record, with an option per field."""
    of_record = parameters(record, panels)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**given: Any) -> None:
            values = {each.name: given.pop(each.name) for each in of_record}
            command(**given, **{parameter: record(**values)})

        return with_parameters(run, replaced(command, parameter, of_record))

    return decorate


def replaced(
    command: Callable[..., None], parameter: str, by: Sequence[inspect.Parameter]
) -> list[inspect.Parameter]:
    """The parameters of a command, others in the place of one."""
    own = inspect.signature(command).parameters.values()
    return [each for outer in own for each in (by if outer.name == parameter else [outer])]


def with_parameters(
    command: Callable[..., None], own: Sequence[inspect.Parameter]
) -> Callable[..., None]:
    """The command with a signature that Typer reads its options from."""
    every = [each.replace(kind=_KEYWORD) for each in own]
    vars(command)["__signature__"] = inspect.Signature(every)
    command.__annotations__ = {each.name: each.annotation for each in every}
    return command
