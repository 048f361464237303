"""`ursa eval vbench|vbench-i2v|vbench-long`: video suites that official code scores."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ursa_cli.commands.evaluate import eval_run
from ursa_cli.options import evaluation as shared
from ursa_cli.options import sampling as of_sampling
from ursa_cli.options import shared as options
from ursa_core.errors import UsageError

if TYPE_CHECKING:
    from ursa_core.evaluation.suites.suite import Prompts

_LONG_SECONDS = 10.0


def kind(prompts: object) -> "Prompts":
    """The kind of prompts that is asked for."""
    options.require(prompts in (None, "raw", "rewritten"), "--prompts", prompts, "raw or rewritten")
    return "rewritten" if prompts == "rewritten" else "raw"


@of_sampling.spread
def vbench(
    out: shared.Out,
    sampling: of_sampling.SamplingOptions,
    seed: shared.Seed = None,
    only: shared.Only = None,
    limit: shared.Limit = None,
    shard: shared.ShardOption = None,
    batch_size: shared.BatchSize = 1,
    prompts: shared.PromptsOption = None,
    scorer_repo: shared.ScorerRepo = None,
    scorer_python: shared.ScorerPython = None,
) -> None:
    """Score a model by VBench: text to video, 6,220 files, 16 dimensions.

    Examples:
      ursa eval vbench --only sample --prompts rewritten --shard 1/4 -o vbench

      ursa eval vbench -o vbench --scorer-repo VBench --scorer-python env/bin/python
    """
    sampling = shared.prepared(sampling, seed)
    course = shared.course(out, only, limit, shard, batch_size)
    from ursa_cli.commands.evaluate.official import Official
    from ursa_cli.eval_tasks import EvalTask
    from ursa_core.evaluation.official import reports as official_reports
    from ursa_core.evaluation.suites.vbench import plan

    kind(prompts)
    begun = eval_run.begun_with(course, "vbench", limit=limit, prompts=prompts)
    suite = plan(kind(begun["prompts"]), begun["limit"])
    Official(
        course,
        suite,
        sampling,
        begun,
        lambda model, placed: EvalTask(suite.name, model, placed, batch_size),
        scorer_repo,
        scorer_python,
        lambda settings: official_reports.vbench_report(suite, settings, course.scores),
    ).run()


@of_sampling.spread
def vbench_i2v(
    out: shared.Out,
    sampling: of_sampling.SamplingOptions,
    seed: shared.Seed = None,
    only: shared.Only = None,
    limit: shared.Limit = None,
    shard: shared.ShardOption = None,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="The official cropped images.",
            show_default="those of the ratio in --scorer-repo",
            rich_help_panel=shared.SUITE_PANEL,
        ),
    ] = None,
    ratio: Annotated[
        str | None,
        typer.Option(
            metavar="R",
            help="Of the images: 1-1, 8-5 (512x320), 7-4 or 16-9.",
            show_default="8-5",
            rich_help_panel=shared.SUITE_PANEL,
        ),
    ] = None,
    scorer_repo: shared.ScorerRepo = None,
    scorer_python: shared.ScorerPython = None,
) -> None:
    """Score a model by VBench-I2V: image to video, 5,590 files, 9 dimensions.

    The images are in no package: download_data.sh in the checkout of VBench fetches them.

    Examples:
      ursa eval vbench-i2v --only sample --scorer-repo VBench -o i2v

      ursa eval vbench-i2v -o i2v --scorer-repo VBench --scorer-python bin/python
    """
    sampling = shared.prepared(sampling, seed)
    course = shared.course(out, only, limit, shard, 1)
    from ursa_cli.commands.evaluate.official import Official
    from ursa_cli.eval_tasks import ImageTask
    from ursa_core.evaluation.official import reports as official_reports
    from ursa_core.evaluation.suites.vbench import RATIOS, plan_i2v

    options.require(ratio in (None, *RATIOS), "--ratio", ratio, " or ".join(RATIOS))
    where = None if images is None else str(images)
    begun = eval_run.begun_with(course, "vbench-i2v", limit=limit, ratio=ratio, images=where)
    chosen = begun["ratio"] or "8-5"
    if begun["images"] is None and scorer_repo is None:
        raise UsageError(
            "the images of VBench-I2V are in its checkout, and none is given",
            "git clone https://github.com/Vchitect/VBench, run "
            "vbench2_beta_i2v/download_data.sh there, and give --scorer-repo",
        )
    inside = Path("vbench2_beta_i2v") / "data" / "crop" / chosen
    suite = plan_i2v(Path(begun["images"] or (scorer_repo or Path()) / inside), begun["limit"])
    Official(
        course,
        suite,
        sampling,
        begun,
        lambda model, placed: ImageTask(suite.name, model, placed, 1),
        scorer_repo,
        scorer_python,
        lambda settings: official_reports.vbench_report(suite, settings, course.scores),
        {"ratio": chosen},
    ).run()


@of_sampling.spread
def vbench_long(
    out: shared.Out,
    sampling: of_sampling.SamplingOptions,
    seed: shared.Seed = None,
    only: shared.Only = None,
    limit: shared.Limit = None,
    shard: shared.ShardOption = None,
    prompts: shared.PromptsOption = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            metavar="S",
            help="Length of each clip, above 0 to 600, to the nearest frame; the official "
            "scorer is for 5 and more.",
            show_default=f"{_LONG_SECONDS:g}",
            rich_help_panel=shared.SUITE_PANEL,
        ),
    ] = None,
    scorer_repo: shared.ScorerRepo = None,
    scorer_python: shared.ScorerPython = None,
) -> None:
    """Score a model by VBench-Long: clips that are extended, as `ursa extend` does.

    Examples:
      ursa eval vbench-long --only sample --seconds 10 -o long

      ursa eval vbench-long -o o --scorer-repo VBench --scorer-python bin/python
    """
    sampling = shared.prepared(sampling, seed)
    course = shared.course(out, only, limit, shard, 1)
    in_range = seconds is None or 0 < seconds <= 600
    options.require(in_range, "--seconds", seconds, "above 0 to 600")
    from ursa_cli.commands.evaluate.official import Official
    from ursa_cli.eval_tasks import EvalTask, LongTask
    from ursa_cli.sample_plan import PlacedModel
    from ursa_core.evaluation.official import reports as official_reports
    from ursa_core.evaluation.suites.vbench import plan

    kind(prompts)
    begun = eval_run.begun_with(
        course, "vbench-long", limit=limit, prompts=prompts, seconds=seconds
    )
    suite = plan(kind(begun["prompts"]), begun["limit"], long=True)
    length = float(begun["seconds"] or _LONG_SECONDS)

    def task(model: PlacedModel, placed: of_sampling.SamplingOptions) -> EvalTask:
        fps = placed.fps or model.found.settings.fps
        rounds = course.records / "rounds"
        return LongTask(suite.name, model, placed, round(length * fps), rounds)

    Official(
        course,
        suite,
        sampling,
        begun,
        task,
        scorer_repo,
        scorer_python,
        lambda settings: official_reports.vbench_report(suite, settings, course.scores),
    ).run()
