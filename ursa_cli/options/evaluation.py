"""Options that the suites of `ursa eval` share, and the folders of an evaluation."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from ursa_cli.options import shared as options
from ursa_cli.options.sampling import SamplingOptions
from ursa_cli.terminal import output
from ursa_core.errors import UsageError
from ursa_core.parts import Shard, launched_shard, parse_shard

SUITE_PANEL = "Suite"
SCORER_PANEL = "Official scorer"
PARTS = ("sample", "score", "report")


Out = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        parser=options.new_path,
        metavar="DIR",
        help="Folder of the evaluation: samples, records and scores in folders of their own, "
        "report.json and report.html.",
        show_default=False,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="That those of the samples are derived from, 0 to 2^63 - 1.",
        show_default="0",
        rich_help_panel=SUITE_PANEL,
    ),
]
Only = Annotated[
    str | None,
    typer.Option(
        "--only",
        metavar="PART",
        help="Run one part: sample, score or report.",
        show_default="all three",
        rich_help_panel=SUITE_PANEL,
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="For trials: N prompts, 1 or more, a fixed random part of the suite.",
        show_default="all",
        rich_help_panel=SUITE_PANEL,
    ),
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Sample part I, 1 to N, of the files; score and report once all parts are there.",
        show_default="by torchrun",
        rich_help_panel=SUITE_PANEL,
    ),
]
BatchSize = Annotated[
    int,
    typer.Option(
        metavar="N",
        help="Samples in one pass of the network, 1 to 1024; no result depends on it.",
        rich_help_panel=SUITE_PANEL,
    ),
]
PromptsOption = Annotated[
    str | None,
    typer.Option(
        "--prompts",
        metavar="KIND",
        help="raw, or rewritten: the longer ones that the paper's best rows are sampled from.",
        show_default="raw",
        rich_help_panel=SUITE_PANEL,
    ),
]
ScorerRepo = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Checkout of the official scorer.",
        show_default=False,
        rich_help_panel=SCORER_PANEL,
    ),
]
ScorerPython = Annotated[
    Path | None,
    typer.Option(
        metavar="PYTHON",
        help="Python of the environment that the official scorer runs in.",
        show_default=False,
        rich_help_panel=SCORER_PANEL,
    ),
]


def prepared(sampling: SamplingOptions, seed: int | None) -> SamplingOptions:
    """Options of sampling with the suite's seed, checked; what is printed is set by them."""
    output.configure(as_json=sampling.as_json, quiet=sampling.quiet)
    chosen = replace(sampling, seed=seed)
    chosen.check()
    return chosen


@dataclass(frozen=True)
class Course:
    """Which parts of an evaluation are run, on what.

    Attributes:
        parts: some of ``PARTS``, in their order.
        folder: of the evaluation.
        limit: prompts; None is what the folder was begun with, else all.
        shard: to sample.
        batch_size: samples in one pass.
    """

    parts: tuple[str, ...]
    folder: Path
    limit: int | None
    shard: Shard
    batch_size: int

    @property
    def samples(self) -> Path:
        """Folder of the files that are scored; nothing else is in it."""
        return self.folder / "samples"

    @property
    def records(self) -> Path:
        """Folder of the manifest and of what the suite was begun with."""
        return self.folder / "records"

    @property
    def scores(self) -> Path:
        """Folder of what the scorer wrote."""
        return self.folder / "scores"


def check_folder(out: Path) -> None:
    """Refuse what can't be the folder of an evaluation.

    Raises:
        UsageError: it is a file, or its name is no name.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is no folder, and an evaluation needs one", "give one with -o")


def course(
    out: Path, only: str | None, limit: int | None, shard: str | None, batch_size: int
) -> Course:
    """The course that options ask for; a shard is only sampled.

    Raises:
        UsageError: options that can't be, or that don't go together.
    """
    options.require(only is None or only in PARTS, "--only", only, "sample, score or report")
    options.require(limit is None or limit >= 1, "--limit", limit, "1 or more")
    options.require(1 <= batch_size <= 1024, "--batch-size", batch_size, "1 to 1024")
    check_folder(out)
    if out.suffix and not out.exists():
        raise UsageError(f"{out} is no folder, and an evaluation needs one", "give one with -o")
    launched = launched_shard(os.environ)
    part = parse_shard(shard) if shard is not None else launched or Shard()
    if part.count > 1 and only not in (None, "sample"):
        raise UsageError(
            f"--shard is for samples, and --only {only} needs them all", "leave --shard out"
        )
    parts = ("sample",) if part.count > 1 else PARTS if only is None else (only,)
    return Course(parts, out, limit, part, batch_size)
