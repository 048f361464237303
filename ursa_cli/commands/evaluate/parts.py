"""The parts of a suite, sampling, scoring and reporting, and how a report is printed.

Imported once a command runs: what it needs is heavy.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from ursa_cli import batch_run
from ursa_cli.commands.evaluate.app import SuiteCommand
from ursa_cli.options.batches import Work
from ursa_cli.options.evaluation import EvalOptions
from ursa_cli.options.sampling import SamplingCall
from ursa_cli.terminal import output
from ursa_core import files
from ursa_core.batches.manifest import read_header
from ursa_core.batches.run import BatchItem
from ursa_core.evaluation import runs
from ursa_core.evaluation.official.reports import official_report
from ursa_core.evaluation.official.scorer import Scorer, check_checkout
from ursa_core.evaluation.reports.page import write_page
from ursa_core.evaluation.reports.report import Report, write_record, write_report
from ursa_core.evaluation.runs import DEFAULT_SEED, Begun, EvalRun
from ursa_core.evaluation.suites import shapes, tasks
from ursa_core.evaluation.suites.completeness import digest

_LONG_SECONDS = 10.0
_DECIDING = ("limit", "prompts", "ratio", "images", "seconds")


class SuiteRun:
    """A run of a suite as the command line asks for it, its options checked.

    A folder's own options replace None; a folder of another run, or files that the suite lacks,
    are an UrsaError.
    """

    def __init__(self, command: SuiteCommand, chosen: EvalOptions, sampling: SamplingCall) -> None:
        self._evaluation = EvalRun(chosen.out)
        given = {name: getattr(chosen, name) for name in _DECIDING}
        given["images"] = None if chosen.images is None else str(chosen.images)
        wanted = Begun(command.name, **given)
        self._begun = runs.begin(self._evaluation, wanted, "sample" in chosen.parts)
        if wanted.limit is None is not self._begun.limit and "sample" in chosen.parts:
            output.note(
                f"{chosen.out} goes on with --limit {self._begun.limit}; a larger one makes more"
            )
        self._suite = runs.planned(self._begun, chosen.scorer_repo)
        self._command, self._chosen, self._sampling = command, chosen, sampling

    def run(self) -> None:
        """Run the parts that are asked for; what was done before one that fails is kept."""
        dry_run = self._sampling.dry_run
        if self._command.is_official and "score" in self._chosen.parts and not dry_run:
            self._scorer()  # what it lacks is reported before hours of sampling, not after them
        parts = {"sample": self._sample, "score": self._score, "report": self._report}
        for name in self._chosen.parts:
            if dry_run and name != "sample":
                output.note(f"{name} would follow")
            else:
                parts[name]()

    def _sample(self) -> None:
        run, suite, sampling = self._evaluation, self._suite, self._sampling
        task, part = self._task(), self._chosen.part

        def settled(seed: int) -> Iterator[BatchItem]:
            for index, file in enumerate(suite.files):
                path, own = str(run.samples / file.name), file.seed(seed)
                made_by, planned = task.settle_file(file, own, path)
                if part.owns(index):
                    yield BatchItem(file.name, index, 0, path, own, made_by, {}, planned)

        found = read_header(run.records)
        of_folder = DEFAULT_SEED if found is None else found.seed
        seed = of_folder if sampling.seed is None else sampling.seed
        if not sampling.dry_run:
            own = [name for name in _DECIDING if name in ("limit", *self._command.own)]
            begun = {name: getattr(self._begun, name) for name in ("suite", *own)}
            runs.lay_out(run, suite, begun)
        size, num, ray = self._chosen.batch_size, len(suite.files), self._chosen.options()
        work = Work(run.records, run.samples, part, size, sampling.force, num, ray)
        batch_run.run_work(task, work, settled, seed, sampling.dry_run)

    def _task(self) -> tasks.EvalTask:
        sampling, name = self._sampling, self._suite.name
        model = sampling.place(is_shared=True)
        options, warn = sampling.clip, output.warn
        if name == "vbench-long":
            fps = options.get("fps") or model.found.settings.fps
            num_frames = round((self._begun.seconds or _LONG_SECONDS) * fps)
            rounds = self._evaluation.records / "rounds"
            return tasks.LongTask(name, model, options, num_frames, rounds, warn)
        kinds = {"vbench-i2v": tasks.ImageTask, "dpg": tasks.GridTask}
        kind = kinds.get(name, tasks.EvalTask)
        return kind(name, model, options, self._chosen.batch_size, warn)

    def _scorer(self) -> Scorer:
        chosen, run = self._chosen, self._evaluation
        repo, python = check_checkout(self._suite.name, chosen.scorer_repo, chosen.scorer_python)
        samples, scores = run.samples.absolute(), run.scores.absolute()
        ratio = self._begun.ratio or runs.DEFAULT_RATIO
        return Scorer(self._suite, repo, python, samples, scores, ratio, chosen.detector)

    def _score(self) -> None:
        run, suite = self._evaluation, self._suite
        with output.progress(len(suite.files) + len(suite.fixed), "check") as advance:
            num_unknown = runs.check_complete(run, suite, advance)
        if num_unknown:
            output.warn(f"no record states what length and size {num_unknown} files should have")
        output.note(f"{run.samples} is complete: {len(suite.files)} files")
        if self._command.is_official:
            self._scorer().score(self._sampling.force, output.note, output.warn)
            return
        with output.progress(2 * len(suite.files), "judge") as advance:
            found = shapes.score(run.samples, self._begun.limit, DEFAULT_SEED, advance)
        path = run.scores / shapes.SCORES
        write_record(path, asdict(found))
        output.note(f"{len(suite.files)} clips are judged: {path}")

    def _report(self) -> None:
        run, suite = self._evaluation, self._suite
        report = official_report if self._command.is_official else shapes.report
        settings = runs.settings_of(run, self._begun)
        finish(report(suite, settings, run.scores, digest(suite, run.samples)), run.folder)


def finish(report: Report, folder: Path, plots: Mapping[str, bytes] | None = None) -> None:
    """Write the report of an evaluation into its folder, and its page; print it."""
    with files.producing(folder):
        page = write_page(folder, report, EvalRun(folder).samples, plots)
        paths = [write_report(folder, report), page]  # last, as it means that all is there
    output.data(report.to_json(), lines=[*lines_of(report), *map(str, paths)], paths=paths)


def lines_of(report: Report) -> list[str]:
    """A report for the terminal."""
    rows = [
        (each.name, each.text, each.interval_text, each.chance_text,
         "" if each.num is None else str(each.num))
        for each in report.scores
    ]  # fmt: skip
    lines = output.table(("SCORE", "VALUE", "95 % INTERVAL", "CHANCE", "SAMPLES"), rows)
    for table in report.tables:
        shown = [["" if cell is None else cell for cell in row] for row in table.rows]
        lines += ["", table.title, *output.fitting_table(table.header, shown)]
        lines += [table.note] if table.note else []
    lines += ["", *report.notes]
    if not report.complete:
        lines.append("INCOMPLETE: this is no result of the whole.")
    return lines
