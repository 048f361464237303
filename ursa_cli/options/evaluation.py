"""Options of `ursa eval`: records of them, from whose fields the commands are made."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from ursa_cli.options import shared as options
from ursa_cli.options.batches import RAY, RayGiven, own_shard
from ursa_core.errors import UsageError
from ursa_core.files import check_products
from ursa_core.parts import Part

_CLIPS_PANEL = "Clips"
PARTS = ("sample", "score", "report")
RATIOS = ("1-1", "8-5", "7-4", "16-9")
_MOST_CLIPS = 1_000_000


Out = Annotated[
    Path,
    options.output_path(
        "DIR",
        "Folder of the evaluation: samples, records and scores in folders of their own, "
        "report.json and report.html.",
    ),
]
MaxClips = Annotated[int, options.option("N", "Clips at most, 1 to 1000000.", _CLIPS_PANEL)]


EVALUATION: options.Panels = {
    "Suite": {
        "seed": ("N", "Seed that those of the samples are derived from, 0 to 2^63 - 1.", "0"),
        "only": ("PART", "Run one part: sample, score or report.", "all three"),
        "limit": ("N", "For trials: N prompts, 1 or more, a fixed random part of the suite.",
                  "all"),
        "shard": ("I/N", ("Sample part I, 1 to N, of the files; score and report once all parts "
                  "are there."), "by torchrun"),
        "batch_size": ("N", ("Samples per pass of the network, 1 to 1024; no result depends on "
                       "it.")),
        **RAY,
        "prompts": ("KIND", ("raw, or rewritten: the longer ones that the paper's best rows are "
                    "sampled from."), "raw"),
        "images": ("FOLDER", "The official cropped images.", "those of the ratio in --scorer-repo"),
        "ratio": ("R", "Ratio of the images: 1-1, 8-5 (512x320), 7-4 or 16-9.", "8-5"),
        "seconds": ("S", ("Length of each clip, above 0 to 600, to the nearest frame; the official "
                    "scorer is for 5 and more."), "10"),
    },
    "Official scorer": {
        "detector": ("FOLDER", ("Weights of the official detector, by download_models.sh of the "
                     "checkout."), "the checkout"),
        "scorer_repo": ("FOLDER", "Checkout of the official scorer."),
        "scorer_python": ("PYTHON", "Python of the environment that the official scorer runs in."),
    },
}  # fmt: skip


@dataclass(frozen=True)
class EvalOptions(RayGiven):
    """How a suite is run; None is the suite's own choice."""

    out: Out
    seed: int | None = None
    only: str | None = None
    limit: int | None = None
    shard: str | None = None
    batch_size: int = 1
    prompts: str | None = None
    images: Path | None = None
    ratio: str | None = None
    seconds: float | None = None
    detector: Path | None = None
    scorer_repo: Path | None = None
    scorer_python: Path | None = None

    def check(self) -> None:
        """Refuse options that can't be, or that don't go together; UsageError."""
        require = options.require
        require(self.only in (None, *PARTS), "--only", self.only, "sample, score or report")
        require(self.limit is None or self.limit >= 1, "--limit", self.limit, "1 or more")
        require(1 <= self.batch_size <= 1024, "--batch-size", self.batch_size, "1 to 1024")
        kinds, ratios = (None, "raw", "rewritten"), (None, *RATIOS)
        require(self.prompts in kinds, "--prompts", self.prompts, "raw or rewritten")
        require(self.ratio in ratios, "--ratio", self.ratio, " or ".join(RATIOS))
        in_range = self.seconds is None or 0 < self.seconds <= 600
        require(in_range, "--seconds", self.seconds, "above 0 to 600")
        check_folder(self.out, may_have_suffix=False)
        if self.part.count > 1 and self.only not in (None, "sample"):
            hint = "leave --shard out"
            raise UsageError(f"--shard is for samples, and --only {self.only} needs them all", hint)

    @property
    def part(self) -> Part:
        """Part of the files that this process samples."""
        return own_shard(self.shard)

    @property
    def parts(self) -> tuple[str, ...]:
        """Parts of the evaluation that run, in their order; one of several shards only samples."""
        if self.part.count > 1:
            return ("sample",)
        return PARTS if self.only is None else (self.only,)


CLIPS: options.Panels = {_CLIPS_PANEL: {
    "frames": ("N", "Frames of each clip, 1 + a multiple of the temporal stride; 1 for images.",
               "the model's"),
    "size": ("HxW", "Height and width in pixels to scale and crop to.", "the model's"),
}}  # fmt: skip


@dataclass(frozen=True)
class ClipsOptions:
    """Which clips are measured, on which model; None is the model's own."""

    out: Out
    inputs: Annotated[
        list[str],
        options.argument(
            "INPUT",
            "Folders or files of videos and images, or shapes:heldout, clips of the "
            "procedural world.",
        ),
    ] = field(default_factory=lambda: ["shapes:heldout"])
    model: options.Model = options.DEFAULT_MODEL
    limit: MaxClips = 64
    frames: int | None = None
    size: str | None = None
    device: options.Device = "auto"
    as_json: options.Json = False
    quiet: options.Quiet = False
    force: options.Force = False


def check_folder(out: Path, *, may_have_suffix: bool = True) -> None:
    """Refuse what can't be the folder of an evaluation; raises `UsageError`."""
    if not out.is_dir() and (out.exists() or (out.suffix and not may_have_suffix)):
        raise UsageError(f"{out} is no folder, and an evaluation needs one", "give one with -o")


def check_report(out: Path, limit: int, force: bool, *products: str) -> None:
    """Refuse a folder whose report would be replaced, and a number of clips out of range.

    ``products`` are files and folders in it that are written before the report and its page.
    """
    from ursa_core.evaluation.reports.report import PAGE, REPORT

    options.require(1 <= limit <= _MOST_CLIPS, "--limit", limit, f"1 to {_MOST_CLIPS}")
    check_folder(out)
    check_products(out, (*products, PAGE, REPORT), force)
