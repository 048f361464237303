"""What `ursa eval` commands share that measure files of the user's, and sample none."""

from pathlib import Path
from typing import Annotated

import typer

from ursa_cli.options import shared as options
from ursa_cli.options.evaluation import Course, check_folder
from ursa_core.files import check_products
from ursa_core.parts import Shard

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


def course(out: Path, limit: int, force: bool, *products: str) -> Course:
    """The folders of a report, which isn't replaced unless it may be.

    Args:
        out: folder to write to.
        limit: clips at most.
        force: replace what is there.
        products: names of files and folders that are written before the report and its page.
    """
    from ursa_core.evaluation.reports.report import PAGE, REPORT

    options.require(1 <= limit <= 1_000_000, "--limit", limit, "1 to 1000000")
    check_folder(out)
    check_products(out, (*products, PAGE, REPORT), force)
    return Course(("score", "report"), out, limit, Shard(), 1)
