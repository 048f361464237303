"""What the parts of every suite share: what it was begun with, sampling, checks, the report."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ursa_cli import batch_run
from ursa_cli.options.evaluation import Course
from ursa_cli.terminal import output
from ursa_core import files
from ursa_core.errors import DataError, UsageError
from ursa_core.files import parse_json

if TYPE_CHECKING:
    from ursa_cli.eval_tasks import EvalTask
    from ursa_cli.options.sampling import SamplingOptions
    from ursa_core.batches.resume import Item
    from ursa_core.evaluation.reports.report import Report
    from ursa_core.evaluation.suites.suite import Suite

DEFAULT_SEED = 0
"""So that two runs agree where nobody asked for a seed."""

_BEGUN = "suite.json"
_FORMAT = 1


def begun_with(course: Course, suite: str, **given: str | float | None) -> dict[str, Any]:
    """What decides the files of a suite: as given, else as the folder was begun with.

    Args:
        course: whose folder it is.
        suite: its name.
        given: options by name, None where they aren't.

    Raises:
        UsageError: the folder is of another suite, or begun with other options or more prompts.
        DataError: it can't be read, or nothing was sampled there.
    """
    from ursa_core.batches.manifest import read_header
    from ursa_core.evaluation.reports.report import PAGE, REPORT

    path = course.records / _BEGUN
    # A run that could not begin leaves no manifest, and decides nothing.
    if not path.exists() or read_header(course.records) is None:
        if "sample" not in course.parts:
            raise DataError(f"nothing was sampled in {course.folder}", "run --only sample first")
        for name in (PAGE, REPORT):
            if (course.folder / name).exists():
                raise UsageError(
                    f"{course.folder / name} exists already, of another evaluation",
                    "give another folder",
                )
        return dict(given)
    found = _read_begun(path, given)
    name = found.pop("suite")
    if name != suite:
        raise UsageError(
            f"{course.folder} is an evaluation by {name}, not {suite}", "give another folder"
        )
    for key, value in given.items():
        if key != "limit" and value is not None and value != found.get(key):
            raise UsageError(
                f"{course.folder} was begun with --{key} {found.get(key)}, not {value}",
                f"leave --{key} out to go on, or give another folder",
            )
    limit, before = given["limit"], found["limit"]
    # A larger part of a suite holds every smaller one, so a trial may grow.
    if limit is not None and (before is None or limit < before):
        whole = "all prompts" if before is None else f"--limit {before}"
        raise UsageError(
            f"{course.folder} was begun with {whole}, more than --limit {limit}",
            "leave --limit out, or give another folder",
        )
    if limit is None and before is not None and "sample" in course.parts:
        output.note(f"{course.folder} goes on with --limit {before}; a larger one makes more")
    return {**found, "limit": before if limit is None else limit}


def _read_begun(path: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a folder was begun with: the suite, and a value for each of ``given``."""
    hint = "give another folder with -o"
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} can't be read: {error}", hint) from error
    if not isinstance(found, dict) or "format" not in found:
        raise DataError(f"{path} is damaged", hint)
    version = found.pop("format")
    if version != _FORMAT:
        raise DataError(f"{path} has format {version}, not {_FORMAT}", hint)
    limit = found.get("limit")
    has_limit = limit is None or (isinstance(limit, int) and limit >= 1)
    if set(found) != {"suite", *given} or not has_limit:
        raise DataError(f"{path} is damaged", hint)
    return found


def sample(
    suite: "Suite",
    task: "EvalTask",
    course: Course,
    sampling: "SamplingOptions",
    begun: Mapping[str, Any],
) -> None:
    """Sample what is left of a suite into its layout.

    Raises:
        UrsaError: it can't begin, a sample failed, or the disk is full.
    """
    from ursa_core.batches.manifest import read_header
    from ursa_core.batches.resume import Item
    from ursa_core.evaluation.suites.completeness import distinguishes_case

    def settled(seed: int) -> "list[Item]":
        items = []
        for index, file in enumerate(suite.files):
            path, own = course.samples / file.name, file.seed(seed)
            options = task.settle_file(file, own, path)
            items.append(Item(file.name, index, 0, path, own, options))
        return items

    found = read_header(course.records)
    of_folder = DEFAULT_SEED if found is None else found.seed
    seed = of_folder if sampling.seed is None else sampling.seed
    if not sampling.dry_run:
        for folder in (course.records, course.samples):
            batch_run.make_folder(folder)
        twins = case_twins(suite)
        if twins and not distinguishes_case(course.samples):
            raise DataError(
                f"{course.samples} takes {twins[0]} and {twins[1]} for one file",
                "sample to a disk that tells upper from lower case",
            )
        begun = {"format": _FORMAT, "suite": suite.name, **begun}
        files.write(course.records / _BEGUN, json.dumps(begun, indent=1) + "\n")
        for name, content in suite.fixed.items():
            path = course.samples / name
            if not path.exists():
                batch_run.make_folder(path.parent)
                files.write(path, content)
    work = batch_run.Work(
        course.records, course.samples, course.shard, course.batch_size, sampling.force
    )
    batch_run.run_work(task, work, settled, seed, sampling.dry_run)


def case_twins(suite: "Suite") -> tuple[str, str] | None:
    """Two names of a suite that differ in case alone, if there are any."""
    seen: dict[str, str] = {}
    for file in suite.files:
        other = seen.setdefault(file.name.casefold(), file.name)
        if other != file.name:
            return other, file.name
    return None


def check_complete(suite: "Suite", course: Course) -> None:
    """Refuse a folder that doesn't hold exactly what the suite asks for.

    Raises:
        DataError: it doesn't; the first files of each kind are named.
    """
    from ursa_core.batches.manifest import read_records
    from ursa_core.evaluation.suites.completeness import check, refuse
    from ursa_core.grids import PixelShape

    expected = {
        name: PixelShape(*record.options["pixel_shape"])
        for name, record in read_records(course.records).items()
        if "pixel_shape" in record.options
    }
    with output.progress(len(suite.files) + len(suite.fixed), "check") as advance:
        faults = check(suite, course.samples, expected, advance)
    if faults:
        raise refuse(faults, course.samples)
    unknown = sum(file.name not in expected for file in suite.files)
    if unknown:
        output.warn(f"no record tells what length and size {unknown} files should have")
    output.note(f"{course.samples} is complete: {len(suite.files)} files")


def check_scored(suite: "Suite", course: Course, content: Mapping[str, Any]) -> None:
    """Refuse scores of other samples than those that are there.

    Raises:
        DataError: files were changed since, or the suite is another.
    """
    from ursa_core.evaluation.suites.completeness import digest

    try:
        is_same = content.get("samples") == digest(suite, course.samples)
    except OSError:
        is_same = False
    if not is_same:
        raise DataError(f"the samples in {course.samples} aren't those scored", "run --only score")


def settings_of(course: Course, begun: Mapping[str, Any]) -> dict[str, Any]:
    """What the samples came of, as reports state it: what all their records agree on."""
    from ursa_core import __version__
    from ursa_core.batches.manifest import read_header, read_records

    header = read_header(course.records)
    records = list(read_records(course.records).values())
    shared = dict(records[0].options) if records else {}
    for record in records:
        shared = {k: v for k, v in shared.items() if record.options.get(k) == v}
    shown = {k: v for k, v in shared.items() if k not in ("index", "pixel_shape")}
    of_batch = {"model": header.model, "seed": header.seed} if header else {}
    given = {key: value for key, value in begun.items() if value is not None}
    return {**of_batch, **given, **shown, **of_batch, "ursa": __version__}


def finish(report: "Report", course: Course, plots: Mapping[str, bytes] | None = None) -> None:
    """Write a report and its page, and print it."""
    from ursa_core.evaluation.reports.page import write_page
    from ursa_core.evaluation.reports.report import write_report

    with files.producing(course.folder):
        page = write_page(course.folder, report, course.samples, plots)
        paths = [write_report(course.folder, report), page]  # last, as it means that all is there
    output.data(report.to_json(), lines=[*lines_of(report), *map(str, paths)], paths=paths)


def lines_of(report: "Report") -> list[str]:
    """A report for the terminal."""
    rows = [
        (
            score.name,
            score.text,
            score.interval_text,
            "" if score.chance is None else f"{100 * score.chance:.1f} %",
            "" if score.num is None else str(score.num),
        )
        for score in report.scores
    ]
    lines = output.table(("SCORE", "VALUE", "95 % INTERVAL", "CHANCE", "SAMPLES"), rows)
    for table in report.tables:
        shown = [["" if cell is None else cell for cell in row] for row in table.rows]
        lines += ["", table.title, *output.fitting_table(table.header, shown)]
        lines += [table.note] if table.note else []
    lines += ["", *report.notes]
    if not report.complete:
        lines.append("INCOMPLETE: this is no result of the whole.")
    return lines


def with_shard_device(sampling: "SamplingOptions") -> "SamplingOptions":
    """The options with the device of this process."""
    return replace(sampling, device=batch_run.local_device(sampling.device))


def run_parts(course: Course, parts: Mapping[str, Callable[[], None]], dry_run: bool) -> None:
    """Run the parts of a course in order; a dry run tells of the samples alone."""
    for name in course.parts:
        if dry_run and name != "sample":
            output.note(f"{name} would follow")
        else:
            parts[name]()


def write_scores(course: Course, content: Mapping[str, Any], name: str = "scores.json") -> Path:
    """Write what was scored, with the format's number, into the folder of the scores."""
    batch_run.make_folder(course.scores)
    path = course.scores / name
    text = json.dumps({"format": _FORMAT, **content}, ensure_ascii=False, indent=1)
    files.write(path, text + "\n")
    return path


def read_scores(course: Course, name: str = "scores.json") -> dict[str, Any]:
    """What ``write_scores`` wrote.

    Raises:
        DataError: nothing was scored, or by another version.
    """
    path = course.scores / name
    hint = "run --only score"
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"nothing was scored in {course.folder}", hint) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} can't be read: {error}", hint) from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise DataError(f"{path} is of another version", hint)
    return content
