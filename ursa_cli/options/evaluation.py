"""Options of `ursa eval`: records of them, from whose fields the commands are made."""

import inspect
import os
from collections.abc import Collection
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from ursa_cli.options import shared as options
from ursa_core.errors import UsageError
from ursa_core.files import check_products
from ursa_core.parts import Shard, launched_shard, parse_shard

SUITE = "Suite"
SCORER = "Official scorer"
CLIPS = "Clips"
PARTS = ("sample", "score", "report")
RATIOS = ("1-1", "8-5", "7-4", "16-9")
_MOST_CLIPS = 1_000_000


def _option(panel: str, metavar: str, text: str, default: str | bool = True) -> Any:
    """Option in a panel of the help, with its default in words where it isn't the value's own."""
    return typer.Option(metavar=metavar, help=text, show_default=default, rich_help_panel=panel)


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
MaxClips = Annotated[int, _option(CLIPS, "N", "Clips at most, 1 to 1000000.")]


@dataclass(frozen=True)
class EvalOptions:
    """How a suite is run; None is the suite's own choice."""

    out: Out
    seed: Annotated[
        int | None,
        _option(SUITE, "N", "Seed that those of the samples are derived from, 0 to 2^63 - 1.", "0"),
    ] = None
    only: Annotated[
        str | None,
        _option(SUITE, "PART", "Run one part: sample, score or report.", "all three"),
    ] = None
    limit: Annotated[
        int | None,
        _option(
            SUITE, "N", "For trials: N prompts, 1 or more, a fixed random part of the suite.", "all"
        ),
    ] = None
    shard: Annotated[
        str | None,
        _option(
            SUITE,
            "I/N",
            "Sample part I, 1 to N, of the files; score and report once all parts are there.",
            "by torchrun",
        ),
    ] = None
    batch_size: Annotated[
        int,
        _option(SUITE, "N", "Samples per pass of the network, 1 to 1024; no result depends on it."),
    ] = 1
    prompts: Annotated[
        str | None,
        _option(
            SUITE,
            "KIND",
            "raw, or rewritten: the longer ones that the paper's best rows are sampled from.",
            "raw",
        ),
    ] = None
    images: Annotated[
        Path | None,
        _option(
            SUITE, "FOLDER", "The official cropped images.", "those of the ratio in --scorer-repo"
        ),
    ] = None
    ratio: Annotated[
        str | None,
        _option(SUITE, "R", "Ratio of the images: 1-1, 8-5 (512x320), 7-4 or 16-9.", "8-5"),
    ] = None
    seconds: Annotated[
        float | None,
        _option(
            SUITE,
            "S",
            "Length of each clip, above 0 to 600, to the nearest frame; the official scorer is "
            "for 5 and more.",
            "10",
        ),
    ] = None
    detector: Annotated[
        Path | None,
        _option(
            SCORER,
            "FOLDER",
            "Weights of the official detector, by download_models.sh of the checkout.",
            "the checkout",
        ),
    ] = None
    scorer_repo: Annotated[
        Path | None,
        _option(SCORER, "FOLDER", "Checkout of the official scorer.", False),
    ] = None
    scorer_python: Annotated[
        Path | None,
        _option(
            SCORER, "PYTHON", "Python of the environment that the official scorer runs in.", False
        ),
    ] = None

    def check(self) -> None:
        """Refuse options that can't be, or that don't go together.

        Raises:
            UsageError: There is one.
        """
        require = options.require
        require(self.only in (None, *PARTS), "--only", self.only, "sample, score or report")
        require(self.limit is None or self.limit >= 1, "--limit", self.limit, "1 or more")
        require(1 <= self.batch_size <= 1024, "--batch-size", self.batch_size, "1 to 1024")
        kinds, ratios = (None, "raw", "rewritten"), (None, *RATIOS)
        require(self.prompts in kinds, "--prompts", self.prompts, "raw or rewritten")
        require(self.ratio in ratios, "--ratio", self.ratio, " or ".join(RATIOS))
        in_range = self.seconds is None or 0 < self.seconds <= 600
        require(in_range, "--seconds", self.seconds, "above 0 to 600")
        check_folder(self.out)
        if self.out.suffix and not self.out.exists():
            raise _no_folder(self.out)
        if self.part.count > 1 and self.only not in (None, "sample"):
            raise UsageError(
                f"--shard is for samples, and --only {self.only} needs them all",
                "leave --shard out",
            )

    @property
    def part(self) -> Shard:
        """Part of the files that this process samples."""
        if self.shard is not None:
            return parse_shard(self.shard)
        return launched_shard(os.environ) or Shard()

    @property
    def parts(self) -> tuple[str, ...]:
        """Parts of the evaluation that run, in their order; one of several shards only samples."""
        if self.part.count > 1:
            return ("sample",)
        return PARTS if self.only is None else (self.only,)


@dataclass(frozen=True)
class ClipsOptions:
    """Which clips are measured, on which model; None is the model's own."""

    out: Out
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="Folders or files of videos and images, or shapes:heldout, clips of the "
            "procedural world.",
        ),
    ] = field(default_factory=lambda: ["shapes:heldout"])
    model: options.Model = options.DEFAULT_MODEL
    limit: MaxClips = 64
    frames: Annotated[
        int | None,
        _option(
            CLIPS,
            "N",
            "Frames of each clip, 1 + a multiple of the temporal stride; 1 for images.",
            "the model's",
        ),
    ] = None
    size: Annotated[
        str | None,
        _option(CLIPS, "HxW", "Height and width in pixels to scale and crop to.", "the model's"),
    ] = None
    device: options.Device = "auto"
    as_json: options.Json = False
    quiet: options.Quiet = False
    force: options.Force = False


def parameters(record: type, names: Collection[str] | None = None) -> list[inspect.Parameter]:
    """Parameters of a command, as Typer reads them, from the fields of a record of options.

    Args:
        record: Dataclass whose fields have annotations of Typer.
        names: Fields to take; None takes all.
    """

    def default(of: Any) -> Any:
        if of.default_factory is not MISSING:
            return of.default_factory()
        return inspect.Parameter.empty if of.default is MISSING else of.default

    hints = get_type_hints(record, include_extras=True)
    keyword = inspect.Parameter.KEYWORD_ONLY
    return [
        inspect.Parameter(each.name, keyword, default=default(each), annotation=hints[each.name])
        for each in fields(record)
        if names is None or each.name in names
    ]


def check_folder(out: Path) -> None:
    """Refuse what can't be the folder of an evaluation; raises `UsageError`."""
    if out.exists() and not out.is_dir():
        raise _no_folder(out)


def check_report(out: Path, limit: int, force: bool, *products: str) -> None:
    """Refuse a folder whose report would be replaced, and a number of clips out of range.

    Args:
        out: Folder to write to.
        limit: Largest number of clips.
        force: Replace what is there.
        products: Names of files and folders that are written before the report and its page.

    Raises:
        UsageError: The folder or the number can't be.
    """
    from ursa_core.evaluation.reports.report import PAGE, REPORT

    options.require(1 <= limit <= _MOST_CLIPS, "--limit", limit, f"1 to {_MOST_CLIPS}")
    check_folder(out)
    check_products(out, (*products, PAGE, REPORT), force)


def _no_folder(out: Path) -> UsageError:
    return UsageError(f"{out} is no folder, and an evaluation needs one", "give one with -o")
