"""`ursa eval`: a command a suite, each of which samples, scores and reports."""

import typer

from ursa_cli.commands.evaluate.clips import path, reconstruction
from ursa_cli.commands.evaluate.compare import compare
from ursa_cli.commands.evaluate.image_suites import dpg, geneval
from ursa_cli.commands.evaluate.shapes import shapes
from ursa_cli.commands.evaluate.suites import vbench, vbench_i2v, vbench_long
from ursa_cli.commands.evaluate.videos import videos

evaluate = typer.Typer(
    no_args_is_help=True,
    help="Score a model: sample a suite, score the samples, report. "
    "A stopped run goes on when the same command is given again.",
)
evaluate.command("shapes")(shapes)
evaluate.command("vbench")(vbench)
evaluate.command("vbench-i2v")(vbench_i2v)
evaluate.command("vbench-long")(vbench_long)
evaluate.command("geneval")(geneval)
evaluate.command("dpg")(dpg)
evaluate.command("reconstruction")(reconstruction)
evaluate.command("path")(path)
evaluate.command("videos")(videos)
evaluate.command("compare")(compare)
