"""`ursa eval`: one command per suite or measure, and the comparison of two reports."""

import typer

from ursa_cli.commands.evaluate import measures
from ursa_cli.commands.evaluate.compare import compare
from ursa_cli.commands.evaluate.suites import SUITES, command_of

evaluate = typer.Typer(
    no_args_is_help=True,
    help="Score a model: sample a suite, score the samples, report. "
    "A stopped run goes on when the same command is given again.",
)
for suite in SUITES:
    evaluate.command(suite.name, help=suite.help)(command_of(suite))
for command in (measures.reconstruction, measures.path, measures.videos, compare):
    evaluate.command(command.__name__)(command)
