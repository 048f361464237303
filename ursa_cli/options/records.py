"""Records as options: the record has types and defaults, a table the help."""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Annotated, Any, get_type_hints

from typer.models import ParameterInfo

from ursa_cli.options.shared import option

Panels = Mapping[str | None, Mapping[str, tuple[Any, ...]]]
"""Metavar and help of fields, by the panel of the help; where needed words for the default, and a
parser or another type in place of the field's."""
KEYWORD = inspect.Parameter.KEYWORD_ONLY


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
    of_records = {name: parameters(record, panels) for name, record in records.items()}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(command, include_extras=True)
        types = {**hints, **described_types(hints, panels)}
        command.__annotations__ = {name: types[name] for name in command.__annotations__}

        @functools.wraps(command)
        def run(**given: Any) -> None:
            for name, own in of_records.items():
                given[name] = records[name](**{each.name: given.pop(each.name) for each in own})
            command(**given)

        return with_parameters(run, inspect.signature(command).parameters.values(), **of_records)

    return decorate


def with_parameters(
    command: Callable[..., None],
    own: Iterable[inspect.Parameter],
    **instead: Sequence[inspect.Parameter],
) -> Callable[..., None]:
    """The command with a signature that Typer reads its options from, some ``instead`` of one."""
    every = [each.replace(kind=KEYWORD) for one in own for each in instead.get(one.name, [one])]
    vars(command)["__signature__"] = inspect.Signature(every)
    command.__annotations__ = {each.name: each.annotation for each in every}
    return command
