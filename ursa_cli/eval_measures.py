"""What `ursa eval` commands share that measure files of the user's, and sample none."""

from pathlib import Path
from typing import Annotated

import typer

from ursa_cli import options
from ursa_cli.eval_options import Course, check_folder
from ursa_core.batches.shards import Shard
from ursa_core.errors import UsageError

CLIPS_PANEL = "Clips"

Num = Annotated[
    int,
    typer.Option(
        "--limit",
        metavar="N",
        help="Clips at most, 1 to 1000000.",
        rich_help_panel=CLIPS_PANEL,
    ),
]


def course(out: Path, limit: int, force: bool) -> Course:
    """The folders of a report, which isn't replaced unless it may be."""
    from ursa_core.evaluation.report import REPORT

    options.require(1 <= limit <= 1_000_000, "--limit", limit, "1 to 1000000")
    check_folder(out)
    if (out / REPORT).exists() and not force:
        raise UsageError(f"{out} holds a report already", "use --force, or another -o")
    return Course(("score", "report"), out, limit, Shard(), 1)
