"""`ursa eval shapes`: what clips of the procedural world show, against their prompts."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ursa_cli import sample_plan
from ursa_cli.commands.evaluate import eval_run
from ursa_cli.options import evaluation as shared
from ursa_cli.options import sampling as of_sampling
from ursa_cli.terminal import output
from ursa_core.errors import DataError

if TYPE_CHECKING:
    from ursa_core.evaluation.suites.shapes import Wanted
    from ursa_core.evaluation.suites.shapes_judge import Verdict
    from ursa_core.evaluation.suites.suite import Suite

_NAME = "shapes"
_SPLITS_NOTE = (
    "heldout: combinations of colour, shape and motion that training left out; "
    "train: as many that it saw. Intervals are Wilson's."
)


@of_sampling.spread
def shapes(
    out: shared.Out,
    sampling: of_sampling.SamplingOptions,
    seed: shared.Seed = None,
    only: shared.Only = None,
    limit: shared.Limit = None,
    shard: shared.ShardOption = None,
    batch_size: shared.BatchSize = 1,
) -> None:
    """Score colour, shape, motion and background of clips of the procedural world.

    A judge reads the four from the pixels. Combinations held out of training
    stand apart from as many that training saw (--limit counts each), and the
    judge's own error on rendered clips is stated.

    Examples:
      ursa eval shapes --model nano -o shapes

      ursa eval shapes --model nano --limit 24 --steps 8 -o trial
    """
    sampling = shared.prepared(sampling, seed)
    course = shared.course(out, only, limit, shard, batch_size)
    from ursa_core.evaluation.suites import shapes as shapes_suite

    begun = eval_run.begun_with(course, _NAME, limit=limit)
    suite = shapes_suite.plan(begun["limit"])

    def make() -> None:
        from ursa_cli.eval_tasks import EvalTask

        placed = eval_run.with_shard_device(sampling)
        task = EvalTask(_NAME, sample_plan.place_model(placed), placed, batch_size)
        eval_run.sample(suite, task, course, placed, begun)

    parts = {
        "sample": make,
        "score": lambda: _score(suite, course, begun["limit"]),
        "report": lambda: _report(suite, course, begun),
    }
    eval_run.run_parts(course, parts, sampling.dry_run)


def _score(suite: "Suite", course: shared.Course, limit: int | None) -> None:
    """Judge the clips, and rendered ones of the same prompts and size."""
    from ursa_core.evaluation.suites import shapes as shapes_suite
    from ursa_core.evaluation.suites.completeness import digest
    from ursa_core.grids import PixelShape
    from ursa_core.media import read_media

    eval_run.check_complete(suite, course)
    clips = [each for split in shapes_suite.SPLITS for each in shapes_suite.wanted(split, limit)]
    first = read_media(course.samples / clips[0].name)
    shape, fps = PixelShape(*first.frames.shape[:3]), first.fps or 8.0
    with output.progress(2 * len(clips), "judge") as advance:
        verdicts = []
        for each in clips:
            verdicts.append(shapes_suite.judge_file(course.samples / each.name))
            advance()
        own = []
        for verdict in shapes_suite.judge_rendered(clips, shape, fps, eval_run.DEFAULT_SEED):
            own.append(verdict)
            advance()
    content: dict[str, Any] = {
        "suite": _NAME,
        "limit": limit,
        "samples": digest(suite, course.samples),
        "verdicts": {
            each.name: asdict(verdict) for each, verdict in zip(clips, verdicts, strict=True)
        },
        "judge_on_rendered": {
            each.name: asdict(verdict) for each, verdict in zip(clips, own, strict=True)
        },
    }
    path = eval_run.write_scores(course, content)
    output.note(f"{len(clips)} clips are judged: {path}")


def _report(suite: "Suite", course: shared.Course, begun: dict[str, Any]) -> None:
    from ursa_core.evaluation.reports.report import Report
    from ursa_core.evaluation.suites import shapes as shapes_suite

    content = eval_run.read_scores(course)
    eval_run.check_scored(suite, course, content)
    scores, tables, samples, rendered = [], [], [], []
    for split, title in shapes_suite.SPLITS.items():
        clips = shapes_suite.wanted(split, begun["limit"])
        seen = _verdicts(content, "verdicts", clips, course)
        own = _verdicts(content, "judge_on_rendered", clips, course)
        scores += shapes_suite.scores(clips, seen, f"{split} ")
        tables.append(shapes_suite.by_value(clips, seen, f"By value, {title}"))
        samples += [shapes_suite.sample_of(*pair) for pair in zip(clips, seen, strict=True)]
        rendered += list(zip(clips, own, strict=True))
    of_judge = shapes_suite.scores([each for each, _ in rendered], [own for _, own in rendered])
    report = Report(
        _NAME,
        eval_run.settings_of(course, begun),
        suite.is_whole,
        scores,
        tables,
        samples,
        (_SPLITS_NOTE, shapes_suite.judge_note({score.name: score for score in of_judge})),
    )
    eval_run.finish(report, course)


def _verdicts(
    content: Mapping[str, Any], key: str, clips: "Sequence[Wanted]", course: shared.Course
) -> "list[Verdict]":
    from ursa_core.evaluation.suites.shapes_judge import Verdict

    try:
        return [Verdict(**content[key][each.name]) for each in clips]
    except (KeyError, TypeError) as error:
        raise DataError(f"the scores in {course.scores} are damaged", "run --only score") from error
