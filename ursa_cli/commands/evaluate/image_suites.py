"""`ursa eval geneval|dpg`: image suites that official code scores."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ursa_cli.commands.evaluate import eval_run, suites
from ursa_cli.options import evaluation as shared
from ursa_cli.options import sampling as of_sampling
from ursa_cli.options import shared as options
from ursa_core.errors import UsageError


def _images_only(sampling: of_sampling.SamplingOptions) -> of_sampling.SamplingOptions:
    options.require(sampling.frames in (None, 1), "--frames", sampling.frames, "1: it is of images")
    return replace(sampling, frames=1)


@of_sampling.spread
def geneval(
    out: shared.Out,
    sampling: of_sampling.SamplingOptions,
    seed: shared.Seed = None,
    only: shared.Only = None,
    limit: shared.Limit = None,
    shard: shared.ShardOption = None,
    batch_size: shared.BatchSize = 1,
    prompts: shared.PromptsOption = None,
    detector: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Weights of the official detector, by download_models.sh of the checkout.",
            show_default="the checkout",
            rich_help_panel=shared.SCORER_PANEL,
        ),
    ] = None,
    scorer_repo: shared.ScorerRepo = None,
    scorer_python: shared.ScorerPython = None,
) -> None:
    """Score a model by GenEval: text to image, 553 prompts, four images each, six tags.

    Examples:
      ursa eval geneval --only sample --prompts rewritten -o geneval

      ursa eval geneval -o geneval --scorer-repo code --scorer-python env/bin/python
    """
    sampling = shared.prepared(sampling, seed)
    course = shared.course(out, only, limit, shard, batch_size)
    from ursa_cli.commands.evaluate.official import Official
    from ursa_cli.eval_tasks import EvalTask
    from ursa_core.evaluation.official import reports as official_reports
    from ursa_core.evaluation.suites.geneval import plan

    suites.kind(prompts)
    begun = eval_run.begun_with(course, "geneval", limit=limit, prompts=prompts)
    suite = plan(suites.kind(begun["prompts"]), begun["limit"])
    Official(
        course,
        suite,
        _images_only(sampling),
        begun,
        lambda model, placed: EvalTask(suite.name, model, placed, batch_size),
        scorer_repo,
        scorer_python,
        lambda settings: official_reports.geneval_report(suite, settings, course.scores),
        {} if detector is None else {"models": str(detector.absolute())},
    ).run()


@of_sampling.spread
def dpg(
    out: shared.Out,
    sampling: of_sampling.SamplingOptions,
    seed: shared.Seed = None,
    only: shared.Only = None,
    limit: shared.Limit = None,
    shard: shared.ShardOption = None,
    scorer_repo: shared.ScorerRepo = None,
    scorer_python: shared.ScorerPython = None,
) -> None:
    """Score a model by DPG-Bench: text to image, 1,065 grids of four square images.

    Its prompts are read from the checkout of ELLA, so sampling needs --scorer-repo, too.

    Examples:
      ursa eval dpg --only sample --scorer-repo ELLA --size 1024x1024 -o dpg

      ursa eval dpg -o dpg --scorer-repo ELLA --scorer-python env/bin/python
    """
    sampling = shared.prepared(sampling, seed)
    course = shared.course(out, only, limit, shard, 1)
    from ursa_cli.commands.evaluate.official import Official
    from ursa_cli.eval_tasks import GridTask
    from ursa_core.evaluation.official import reports as official_reports
    from ursa_core.evaluation.suites.dpg import plan

    begun = eval_run.begun_with(course, "dpg", limit=limit)
    if scorer_repo is None:
        raise UsageError(
            "the prompts of DPG-Bench are in its checkout, and none is given",
            "git clone https://github.com/TencentQQGYLab/ELLA, and give --scorer-repo",
        )
    suite = plan(scorer_repo, begun["limit"])
    Official(
        course,
        suite,
        _images_only(sampling),
        begun,
        lambda model, placed: GridTask(suite.name, model, placed, 1),
        scorer_repo,
        scorer_python,
        lambda settings: official_reports.dpg_report(suite, settings, course.scores),
    ).run()
