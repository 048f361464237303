"""Official scorers in environments of their own: their commands, what they lack, what they leave.

Nothing of them is imported here. Each step of a scorer writes into a folder of its own, with its
whole output in ``log.txt``; ``scored.json`` says that it ended, and for which samples.
"""

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ursa_core import files
from ursa_core.errors import DataError, UsageError
from ursa_core.evaluation.reports.report import read_record, write_record
from ursa_core.evaluation.suites import dpg, geneval, vbench
from ursa_core.evaluation.suites.completeness import digest
from ursa_core.evaluation.suites.suite import Suite

_LOG = "log.txt"
_DONE = "scored.json"

_VBENCH = "https://github.com/Vchitect/VBench"
_REPOSITORIES = {
    "geneval": "https://github.com/djghosh13/geneval",
    "dpg": "https://github.com/TencentQQGYLab/ELLA",
}
_INSTALL = {
    "vbench": "pip install -r requirements.txt in the checkout of VBench",
    "detectron2": "pip install 'git+https://github.com/facebookresearch/detectron2.git'",
    "scenedetect": "pip install scenedetect",
    "mmdet": "pip install mmcv-full==1.7.1 mmdet==2.27.0",
    "open_clip": "pip install open-clip-torch",
    "clip_benchmark": "pip install clip-benchmark",
}
_VBENCH_FILES = {  # script, and list of prompts
    "vbench": ("evaluate.py", "vbench/VBench_full_info.json"),
    "vbench-long": ("vbench2_beta_long/eval_long.py", "vbench2_beta_long/VBench_full_info.json"),
    "vbench-i2v": ("evaluate_i2v.py", "vbench2_beta_i2v/vbench2_i2v_full_info.json"),
}


@dataclass(frozen=True)
class _Step:
    """A part of a scorer that runs, fails and is kept by itself: a dimension, or a whole suite."""

    name: str
    commands: Sequence[Sequence[str]]  # arguments of its Python, run in turn until one fails
    modules: Sequence[str]  # that it needs there
    files: Sequence[str]  # that it needs in the checkout
    results: str  # pattern; without one of these it has failed


@dataclass(frozen=True)
class _Done:
    """The content of ``scored.json``."""

    samples: str


def check_checkout(suite: str, repo: Path | None, python: Path | None) -> tuple[Path, Path]:
    """The checkout and Python of a scorer, absolute; raises `UsageError` where one isn't there."""
    hint = (
        f"git clone {_REPOSITORIES.get(suite, _VBENCH)}, make it an environment of its own, and "
        "give both with --scorer-repo and --scorer-python (or sample alone, with --only sample)"
    )
    if repo is None or python is None:
        missing = "--scorer-repo" if repo is None else "--scorer-python"
        raise UsageError(f"{suite} is scored by its official code, and {missing} isn't given", hint)
    if not repo.is_dir():
        raise UsageError(f"there is no checkout {repo}", hint)
    if not (python.is_file() and os.access(python, os.X_OK)):
        raise UsageError(f"{python} is no Python that can be run", hint)
    return repo.absolute(), python.absolute()


@dataclass(frozen=True)
class Scorer:
    """An official scorer in the checkout ``repo`` and what it scores; all paths are absolute."""

    suite: Suite
    repo: Path
    python: Path
    samples: Path
    scores: Path  # folder in which each step has its own
    ratio: str  # of the images of VBench-I2V
    detector: Path | None = None  # folder of GenEval's, None for the checkout's own

    def score(self, force: bool, note: Callable[[str], None], warn: Callable[[str], None]) -> None:
        """Run all steps that haven't scored these samples yet; with ``force`` the others, too.

        ``note`` is called with what is done, ``warn`` with what a step lacks, or why it failed;
        `DataError` is raised after all others, whose scores are kept.
        """
        mark = digest(self.suite, self.samples)
        sampled = {group for file in self.suite.files for group in file.groups}
        without: dict[str, list[str]] = {"failed": [], "can't be scored": []}
        steps = self._steps()
        for step in steps:
            if step.name != self.suite.name and step.name not in sampled:
                note(f"{step.name}: the trial has no prompt of it")
            elif not force and _is_scored(self.scores / step.name, mark):
                note(f"{step.name}: scored already")
            elif missing := self._missing_of(step):
                without["can't be scored"].append(step.name)
                warn(f"{step.name} isn't scored, there is no {'; no '.join(missing)}")
            else:
                note(f"{step.name}: {self.scores / step.name / _LOG}")
                if (reason := self._run(step, mark)) is not None:
                    without["failed"].append(step.name)
                    warn(f"{step.name} failed: {reason}")
        parts = [f"{what}: {', '.join(names)}" for what, names in without.items() if names]
        if parts:
            raise DataError(
                f"{sum(map(len, without.values()))} of {len(steps)} parts of {self.suite.name} have"
                f" no score ({'; '.join(parts)})",
                "the warnings and logs say why; the same command scores the rest, --only report"
                " shows what is there",
            )

    def _steps(self) -> list[_Step]:
        name, samples = self.suite.name, str(self.samples)
        if name == "geneval":
            script, results = "evaluation/evaluate_images.py", geneval.RESULTS
            detector = ["--model-path", str(self.detector.absolute())] if self.detector else []
            command = [script, samples, "--outfile", str(self.scores / name / results), *detector]
            modules = ["torch", "mmdet", "open_clip", "clip_benchmark", "pandas"]
        elif name == "dpg":
            script, results = "dpg_bench/compute_dpg_bench.py", dpg.RESULTS
            with Image.open(self.samples / self.suite.files[0].name) as grid:
                side = grid.height // 2
            # What dist_eval.sh starts, with the results next to the images instead of among them.
            command = [
                "-m", "accelerate.commands.launch", "--num_machines", "1",
                "--num_processes", "1", "--mixed_precision", "fp16", script,
                "--image-root-path", samples, "--resolution", str(side),
                "--res-path", str(self.scores / name / results), "--pic-num", str(dpg.GRID),
                "--vqa-model", "mplug",
            ]  # fmt: skip
            modules = ["torch", "accelerate", "modelscope", "pandas"]
        else:
            dimensions = vbench.I2V_DIMENSIONS if name == "vbench-i2v" else vbench.DIMENSIONS
            more = self._sampled_prompts()
            return [self._vbench_step(dimension, more) for dimension in dimensions]
        return [_Step(name, [command], modules, [script], results)]

    def _vbench_step(self, dimension: str, more: Sequence[str]) -> _Step:
        name, videos, folder = self.suite.name, str(self.samples), self.scores / dimension
        script = _VBENCH_FILES[name][0]
        modules, scripts, commands = ["torch", "vbench"], [script], []
        modules += ["detectron2"] if dimension in vbench.NEED_DETECTRON2 else []
        is_flickering = dimension == vbench.FLICKERING
        if name == "vbench-i2v":
            more = ["--ratio", self.ratio, *more]
        elif name == "vbench-long":
            modules.append("scenedetect")
            filtering = ["--static_filter_flag"] if is_flickering else []
            more = ["--mode", "long_vbench_standard", "--dev_flag", *filtering, *more]
        elif is_flickering:
            filtered, script_before = str(folder / "filtered"), "static_filter.py"
            scripts.append(script_before)
            target = ["--result_path", filtered, "--filter_scope", dimension]
            commands.append([script_before, "--videos_path", videos, *target])
            videos = str(folder / "filtered" / "filtered_videos")
        command = [script, "--videos_path", videos, "--dimension", dimension]
        commands.append([*command, "--output_path", str(folder), *more])
        return _Step(dimension, commands, modules, scripts, "*_eval_results.json")

    def _sampled_prompts(self) -> list[str]:
        """Option for VBench to score the prompts of a trial alone.

        It warns of every prompt without a video, and fails where no prompt has one.
        """
        info = self.repo / _VBENCH_FILES[self.suite.name][1]
        if self.suite.is_whole or not info.is_file():
            return []
        prompts = {file.prompt_id for file in self.suite.files}
        try:
            entries = files.parse_json(info.read_text(encoding="utf-8"))
            chosen = [entry for entry in entries if entry["prompt_en"] in prompts]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{info} can't be read: {error}", "clone it again") from error
        path = files.make_folder(self.scores) / "full_info.json"
        files.write(path, json.dumps(chosen))
        return ["--full_json_dir", str(path)]

    def _missing_of(self, step: _Step) -> list[str]:
        needed = [self.repo / file for file in step.files]
        lacking = [f"{f} (from the official repository)" for f in needed if not f.is_file()]
        absent = "[m for m in sys.argv[1:] if importlib.util.find_spec(m) is None]"
        code = f"import importlib.util, sys; print(*{absent})"
        try:
            run = subprocess.run(
                [str(self.python), "-c", code, *step.modules],
                cwd=self.repo, capture_output=True, text=True, check=False, errors="replace",
            )  # fmt: skip
            said = (run.stderr.strip().splitlines() or ["it said nothing"])[-1]
            reason = said if run.returncode else None
        except OSError as error:
            reason = str(error.strerror)
        if reason is not None:
            return [*lacking, f"{self.python} that starts ({reason})"]
        how = {name: _INSTALL.get(name, f"pip install {name}") for name in run.stdout.split()}
        return [*lacking, *(f"the module {name} ({way})" for name, way in how.items())]

    def _run(self, step: _Step, samples_digest: str) -> str | None:
        """Run a step, its output appended to its log; why it failed, None if it didn't."""
        folder = self.scores / step.name
        commands = [[str(self.python), *command] for command in step.commands]
        with files.writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / _DONE).unlink(missing_ok=True)
            with (folder / _LOG).open("ab") as log:
                for command in commands:
                    log.write(f"$ {' '.join(command)}\n".encode())
                    log.flush()
                    done = subprocess.run(
                        command, cwd=self.repo, stdout=log, stderr=subprocess.STDOUT, check=False
                    )
                    if done.returncode:
                        return f"it ended with {done.returncode}: {_last_line(folder)}"
        if not list(folder.glob(step.results)):
            return f"it wrote no {step.results}: {_last_line(folder)}"
        write_record(folder / _DONE, {"samples": samples_digest, "commands": commands})
        return None


def check_current(scores: Path, samples_digest: str) -> None:
    """Refuse scores of other samples by `DataError`; results without our mark are taken."""
    folders = [path.parent for path in scores.glob(f"*/{_DONE}")]
    stale = ", ".join(each.name for each in folders if not _is_scored(each, samples_digest))
    if stale:
        raise DataError(f"{stale} in {scores} were scored for other samples", "run --only score")


def _is_scored(folder: Path, samples_digest: str) -> bool:
    file, hint = folder / _DONE, "delete it and score again"
    return file.exists() and read_record(file, _Done, "record", hint).samples == samples_digest


def _last_line(folder: Path) -> str:
    text = (folder / _LOG).read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    return lines[-1][:200] if lines else "it said nothing"
