"""Records of the core as options: the record has types and defaults, a table the help."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, get_type_hints

import typer


@dataclass(frozen=True)
class Choice:
    """Help of one field.

    Attributes:
        panel: Panel of the help.
        metavar: Name of the value; None for flags and choices.
        help: What it does.
        default: Words for the default None.
        name: Name of the option, where it isn't that of the field.
        parser: Value of a text, where the type of the field isn't one that Typer knows.
    """

    panel: str
    metavar: str | None
    help: str
    default: str | None = None
    name: str | None = None
    parser: Callable[[str], Any] | None = None

    def annotate(self, field: str, kind: Any, default: Any) -> Any:
        """The annotation that Typer reads."""
        name = self.name or f"--{field.replace('_', '-')}"
        shown: Any = self.default or default is not None
        kind = Any if self.parser else kind
        return Annotated[
            kind,
            typer.Option(
                name,
                metavar=self.metavar,
                help=self.help,
                show_default=shown,
                parser=self.parser,
                rich_help_panel=self.panel,
            ),
        ]


def spread(
    parameter: str, record: type, choices: Mapping[str, Choice]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator that replaces a command's parameter, a record, with an option per field."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        keyword = inspect.Parameter.KEYWORD_ONLY
        hints = get_type_hints(record)
        options = [
            inspect.Parameter(
                field.name,
                keyword,
                default=field.default,
                annotation=choices[field.name].annotate(
                    field.name, hints[field.name], field.default
                ),
            )
            for field in fields(record)
        ]

        @functools.wraps(command)
        def run(**given: Any) -> None:
            values = {option.name: given.pop(option.name) for option in options}
            command(**given, **{parameter: record(**values)})

        own = inspect.signature(command)
        every = [
            each.replace(kind=keyword)
            for outer in own.parameters.values()
            for each in (options if outer.name == parameter else [outer])
        ]
        vars(run)["__signature__"] = own.replace(parameters=every)
        run.__annotations__ = {each.name: each.annotation for each in every}
        return run

    return decorate
