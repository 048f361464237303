"""What the official suites share: their three parts, whatever they sample."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ursa_cli import batch_run, sample_plan
from ursa_cli.commands.evaluate import eval_run
from ursa_cli.options.evaluation import Course
from ursa_cli.options.sampling import SamplingOptions
from ursa_cli.terminal import output
from ursa_core import files
from ursa_core.errors import DataError

if TYPE_CHECKING:
    from ursa_cli.eval_tasks import EvalTask
    from ursa_cli.sample_plan import PlacedModel
    from ursa_core.evaluation.reports.report import Report
    from ursa_core.evaluation.suites.suite import Suite


@dataclass(frozen=True)
class Official:
    """One official suite, as a command line asks for it.

    Attributes:
        course: its parts and folders.
        suite: its files.
        sampling: options of every sample.
        begun: what decides the files.
        task: makes them, from the model and the options.
        repo: checkout of the scorer.
        python: of its environment.
        scorer_options: as ``official_scorer.steps`` takes them.
        report: from the settings.
    """

    course: Course
    suite: "Suite"
    sampling: SamplingOptions
    begun: Mapping[str, Any]
    task: "Callable[[PlacedModel, SamplingOptions], EvalTask]"
    repo: Path | None
    python: Path | None
    report: "Callable[[Mapping[str, Any]], Report]"
    scorer_options: Mapping[str, str] = field(default_factory=dict)

    def run(self) -> None:
        """Run the parts that are asked for.

        Raises:
            UrsaError: one of them fails; what was done before is kept.
        """
        from ursa_core.evaluation.official.scorer import check_checkout

        if "score" in self.course.parts and not self.sampling.dry_run:
            # Told before hours of sampling, not after them.
            check_checkout(self.suite.name, self.repo, self.python)
        parts = {"sample": self._sample, "score": self._score, "report": self._report}
        eval_run.run_parts(self.course, parts, self.sampling.dry_run)

    def _sample(self) -> None:
        placed = eval_run.with_shard_device(self.sampling)
        task = self.task(sample_plan.place_model(placed), placed)
        eval_run.sample(self.suite, task, self.course, placed, self.begun)

    def _score(self) -> None:
        from ursa_core.evaluation.official import scorer
        from ursa_core.evaluation.suites.completeness import digest

        repo, python = scorer.check_checkout(self.suite.name, self.repo, self.python)
        eval_run.check_complete(self.suite, self.course)
        scores, samples = self.course.scores.absolute(), self.course.samples.absolute()
        batch_run.make_folder(scores)
        mark = digest(self.suite, samples)
        options = {**self.scorer_options, **self._of_samples(repo, scores)}
        steps = scorer.steps(self.suite.name, python, samples, scores, options)
        sampled = {group for file in self.suite.files for group in file.groups}
        failed, lacking = [], []
        for step in steps:
            folder = scores / step.name
            if step.name != self.suite.name and step.name not in sampled:
                output.note(f"{step.name}: the trial has no prompt of it")
                continue
            if scorer.is_scored(folder, mark) and not self.sampling.force:
                output.note(f"{step.name}: scored already")
                continue
            missing = scorer.missing_of(step, repo, python)
            if missing:
                lacking.append(step.name)
                output.warn(f"{step.name} isn't scored, there is no {'; no '.join(missing)}")
                continue
            output.note(f"{step.name}: {folder / scorer.LOG}")
            reason = scorer.run_step(step, folder, repo, mark)
            if reason is not None:
                failed.append(step.name)
                output.warn(f"{step.name} failed: {reason}")
        if failed or lacking:
            parts = [
                f"{what}: {', '.join(names)}"
                for what, names in (("failed", failed), ("can't be scored", lacking))
                if names
            ]
            raise DataError(
                f"{len(failed) + len(lacking)} of {len(steps)} parts of {self.suite.name} have no "
                f"score ({'; '.join(parts)})",
                "the warnings and logs say why; the same command scores the rest, --only report"
                " shows what is there",
            )

    def _of_samples(self, repo: Path, scores: Path) -> dict[str, str]:
        """Options of the scorer that follow from the samples."""
        from ursa_core.files import parse_json

        if self.suite.name == "dpg":
            return {"resolution": str(self._resolution())}
        info = {
            "vbench": "vbench/VBench_full_info.json",
            "vbench-long": "vbench2_beta_long/VBench_full_info.json",
            "vbench-i2v": "vbench2_beta_i2v/vbench2_i2v_full_info.json",
        }.get(self.suite.name)
        if info is None or self.suite.is_whole or not (repo / info).is_file():
            return {}
        # The scorer warns of every prompt without a video, and fails where none has one.
        prompts = {file.prompt_id for file in self.suite.files}
        try:
            entries = parse_json((repo / info).read_text(encoding="utf-8"))
            chosen = [entry for entry in entries if entry["prompt_en"] in prompts]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{repo / info} can't be read: {error}", "clone it anew") from error
        path = scores / "full_info.json"
        files.write(path, json.dumps(chosen))
        return {"info": str(path)}

    def _resolution(self) -> int:
        from PIL import Image

        with Image.open(self.course.samples / self.suite.files[0].name) as image:
            return image.height // 2

    def _report(self) -> None:
        from ursa_core.evaluation.official import scorer
        from ursa_core.evaluation.suites.completeness import digest

        try:
            mark = digest(self.suite, self.course.samples)
        except OSError as error:
            raise DataError(f"samples are missing: {error}", "run --only sample") from error
        names = [path.name for path in self.course.scores.glob("*") if path.is_dir()]
        old = scorer.stale(self.course.scores, names, mark)
        if old:
            raise DataError(
                f"{', '.join(old)} in {self.course.scores} were scored for other samples",
                "run --only score",
            )
        settings = eval_run.settings_of(self.course, self.begun)
        eval_run.finish(self.report(settings), self.course)
