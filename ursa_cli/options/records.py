"""Records of the core as options: the record has types and defaults, a table the help."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, get_type_hints

import typer

Panels = Mapping[str, Mapping[str, tuple[Any, ...]]]
"""Metavar and help of each field, by the panel of the help; where needed words for its default, and
a parser for a type that Typer doesn't know."""


def spread(
    parameter: str, record: type, panels: Panels
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator that replaces a command's parameter, a record, with an option per field."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    hints = get_type_hints(record)

    def option(name: str, panel: str, metavar: str, text: str, words: Any = True,
               parser: Callable[[str], Any] | None = None) -> inspect.Parameter:  # fmt: skip
        about = typer.Option(
            f"--{name.replace('_', '-')}",
            metavar=metavar,
            help=text,
            show_default=words,
            parser=parser,
            rich_help_panel=panel,
        )
        kind: Any = Any if parser else hints[name]
        annotation = Annotated[kind, about]
        return inspect.Parameter(
            name, keyword, default=getattr(record, name), annotation=annotation
        )

    of_record = [
        option(name, panel, *about)
        for panel, table in panels.items()
        for name, about in table.items()
    ]

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
    command: Callable[..., None], parameters: Sequence[inspect.Parameter]
) -> Callable[..., None]:
    """The command with a signature that Typer reads its options from."""
    every = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
    vars(command)["__signature__"] = inspect.Signature(every)
    command.__annotations__ = {each.name: each.annotation for each in every}
    return command
