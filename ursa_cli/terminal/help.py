"""Commands and groups of them: their help as plain text, and imports when one is asked for.

Typer's own layout imports rich, which takes longer than all else that ``--help`` does.
"""

import inspect
import sys
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup

from ursa_cli.terminal import output


class _Help:
    """Layout of the help: options by panel, examples as they stand."""

    def get_params(self, ctx: Any) -> Any:
        """Parameters; the flags are off, not None, for which Typer would load pydantic."""
        params = super().get_params(ctx)  # type: ignore[misc]
        for each in params:
            if getattr(each, "is_flag", False):
                each.default = each.default or False
        return params

    def format_help_text(self: Any, _: Any, formatter: Any) -> None:
        text = inspect.cleandoc(self.help).replace("Examples:\n", "\b\nExamples:\n")
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(text)  # but for paragraphs with \b, in new lines

    def format_options(self: Any, context: Any, formatter: Any) -> None:
        panels: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for each in self.get_params(context):
            name, text = each.get_help_record(context)
            kind = "Options"
            if isinstance(each, TyperArgument):
                kind, name = "Arguments", name.partition(" <")[0]  # without its type
            words = each.show_default  # which Typer puts in brackets
            text = text.replace(f"default: ({words})", f"default: {words}")
            panels.setdefault(each.rich_help_panel or kind, []).append((name, text))
        if isinstance(self, Group):
            every = self.commands.items()
            panels["Commands"] = [(name, each.get_short_help_str(1000)) for name, each in every]
        for title, rows in panels.items():
            if rows:
                with formatter.section(typer.style(title, bold=output.is_terminal(sys.stdout))):
                    formatter.write_dl(rows)


class Command(_Help, TyperCommand):
    """A command."""


class Group(_Help, TyperGroup):
    """A group of commands, of which those in ``table`` are imported when they are asked for.

    It has their places, as ``module:name`` in ``ursa_cli.commands``, and their summaries.
    """

    table: ClassVar[dict[str, tuple[str, str]]] = {}

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, (_, text) in self.table.items():
            self.add_command(Command(name, help=text))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As of any group; without arguments it shows the help."""
        if not args and not ctx.resilient_parsing:
            typer.echo(ctx.get_help())
            raise typer.Exit(2)
        return super().parse_args(ctx, args)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command of the group, imported."""
        if cmd_name not in self.table:
            return super().get_command(ctx, cmd_name)
        module, _, name = self.table[cmd_name][0].partition(":")
        found = getattr(import_module(f"ursa_cli.commands.{module}"), name)
        if not isinstance(found, typer.Typer):
            app = new_app()
            app.command(cmd_name, cls=Command)(found)
            found = app
        return typer.main.get_command(found)


def new_app(**settings: Any) -> typer.Typer:
    """An application, or a part of one, with this help."""
    return typer.Typer(add_completion=False, rich_markup_mode=None, **settings)
