"""Official scorers in environments of their own: their commands, what they lack, what they leave.

Nothing of them is imported here. Each step of a scorer writes into a folder of its own, with its
whole output in ``log.txt``; ``scored.json`` says that it came to its end, and for which samples.
"""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ursa_core import files
from ursa_core.errors import DataError, UsageError, unwritable
from ursa_core.evaluation.suites import dpg, geneval, vbench
from ursa_core.files import parse_json

LOG = "log.txt"
DONE = "scored.json"

REPOSITORIES = {
    "vbench": "https://github.com/Vchitect/VBench",
    "vbench-i2v": "https://github.com/Vchitect/VBench",
    "vbench-long": "https://github.com/Vchitect/VBench",
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


@dataclass(frozen=True)
class Step:
    """A part of a scorer that runs, fails and is kept by itself.

    Attributes:
        name: of its folder: a dimension, or the suite.
        commands: run in turn, in the checkout; the first that fails ends the step.
        modules: that its Python must have.
        files: of the checkout that it needs.
        results: pattern in its folder; a step without any has failed, whatever it returned.
    """

    name: str
    commands: Sequence[Sequence[str]]
    modules: Sequence[str]
    files: Sequence[str]
    results: str


def steps(
    suite: str, python: Path, samples: Path, scores: Path, options: Mapping[str, str]
) -> list[Step]:
    """How a suite is scored.

    Args:
        suite: its name.
        python: of the scorer's environment.
        samples: folder of the files.
        scores: folder that the steps' own folders are in.
        options: ``ratio`` of VBench-I2V, ``models`` of GenEval, ``resolution`` of DPG-Bench,
            ``info`` of VBench where only a part of its prompts was sampled.
    """
    executable, videos = str(python), str(samples)
    if suite == "geneval":
        target = scores / suite / geneval.RESULTS
        detector = ["--model-path", options["models"]] if "models" in options else []
        script = "evaluation/evaluate_images.py"
        command = [executable, script, videos, "--outfile", str(target), *detector]
        modules = ["torch", "mmdet", "open_clip", "clip_benchmark", "pandas"]
        return [Step(suite, [command], modules, (script,), geneval.RESULTS)]
    if suite == "dpg":
        target = scores / suite / dpg.RESULTS
        script = "dpg_bench/compute_dpg_bench.py"
        # What dist_eval.sh starts, with the results beside the images instead of among them.
        command = [
            executable, "-m", "accelerate.commands.launch", "--num_machines", "1",
            "--num_processes", "1", "--mixed_precision", "fp16", script,
            "--image-root-path", videos, "--resolution", options["resolution"],
            "--res-path", str(target), "--pic-num", str(dpg.GRID), "--vqa-model", "mplug",
        ]  # fmt: skip
        modules = ["torch", "accelerate", "modelscope", "pandas"]
        return [Step(suite, [command], modules, (script,), dpg.RESULTS)]
    return [
        _vbench_step(suite, dimension, executable, videos, scores / dimension, options)
        for dimension in (vbench.I2V_DIMENSIONS if suite == "vbench-i2v" else vbench.DIMENSIONS)
    ]


def _vbench_step(
    suite: str,
    dimension: str,
    python: str,
    videos: str,
    folder: Path,
    options: Mapping[str, str],
) -> Step:
    modules = ["torch", "vbench"]
    if dimension in vbench.NEED_DETECTRON2:
        modules.append("detectron2")
    script = {"vbench": "evaluate.py", "vbench-i2v": "evaluate_i2v.py"}.get(
        suite, "vbench2_beta_long/eval_long.py"
    )
    files, commands, more = [script], [], []
    is_flickering = dimension == vbench.FLICKERING
    if suite == "vbench-i2v":
        more = ["--ratio", options["ratio"]]
    elif suite == "vbench-long":
        modules.append("scenedetect")
        more = ["--mode", "long_vbench_standard", "--dev_flag"]
        more += ["--static_filter_flag"] if is_flickering else []
    elif is_flickering:
        filtered = folder / "filtered"
        files.append("static_filter.py")
        commands.append(
            [python, "static_filter.py", "--videos_path", videos, "--result_path", str(filtered),
             "--filter_scope", dimension]
        )  # fmt: skip
        videos = str(filtered / "filtered_videos")
    if "info" in options:
        more += ["--full_json_dir", options["info"]]
    command = [python, script, "--videos_path", videos, "--dimension", dimension]
    commands.append([*command, "--output_path", str(folder), *more])
    return Step(dimension, commands, modules, files, "*_eval_results.json")


def check_checkout(suite: str, repo: Path | None, python: Path | None) -> tuple[Path, Path]:
    """The checkout and the Python of a scorer, absolute.

    Raises:
        UsageError: one of them isn't given, or isn't there.
    """
    hint = (
        f"git clone {REPOSITORIES[suite]}, make it an environment of its own, and give both with"
        f" --scorer-repo and --scorer-python (or sample alone, with --only sample)"
    )
    if repo is None or python is None:
        missing = "--scorer-repo" if repo is None else "--scorer-python"
        raise UsageError(f"{suite} is scored by its official code, and {missing} isn't given", hint)
    if not repo.is_dir():
        raise UsageError(f"there is no checkout {repo}", hint)
    if not (python.is_file() and os.access(python, os.X_OK)):
        raise UsageError(f"{python} is no Python that can be run", hint)
    return repo.absolute(), python.absolute()


def missing_of(step: Step, repo: Path, python: Path) -> list[str]:
    """What a step lacks, each with the command to get it."""
    lacking = [
        f"{repo / file} (from the official repository)"
        for file in step.files
        if not (repo / file).is_file()
    ]
    code = (
        "import importlib.util as u, sys; "
        "print(*[m for m in sys.argv[1:] if u.find_spec(m) is None])"
    )
    try:
        run = subprocess.run(
            [str(python), "-c", code, *step.modules], cwd=repo, capture_output=True, text=True,
            check=False, errors="replace",
        )  # fmt: skip
    except OSError as error:
        return [*lacking, f"{python} that starts ({error.strerror})"]
    if run.returncode:
        said = (run.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return [*lacking, f"{python} that starts ({said})"]
    for module in run.stdout.split():
        how = _INSTALL.get(module, f"pip install {module}")
        lacking.append(f"the module {module} ({how})")
    return lacking


def run_step(step: Step, folder: Path, repo: Path, samples_digest: str) -> str | None:
    """Run a step, its output appended to its log; why it failed, None if it didn't.

    Raises:
        DataError: its folder can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / DONE).unlink(missing_ok=True)
        with (folder / LOG).open("ab") as log:
            for command in step.commands:
                log.write(f"$ {' '.join(command)}\n".encode())
                log.flush()
                done = subprocess.run(
                    command, cwd=repo, stdout=log, stderr=subprocess.STDOUT, check=False,
                )  # fmt: skip
                if done.returncode:
                    return f"it ended with {done.returncode}: {last_line(folder)}"
    except OSError as error:
        raise unwritable(folder, error) from error
    if not list(folder.glob(step.results)):
        return f"it wrote no {step.results}: {last_line(folder)}"
    content = {"format": 1, "samples": samples_digest, "commands": step.commands}
    files.write(folder / DONE, json.dumps(content, indent=1) + "\n")
    return None


def last_line(folder: Path) -> str:
    """The last line of a step's log that says something."""
    text = (folder / LOG).read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    return lines[-1][:200] if lines else "it said nothing"


def is_scored(folder: Path, samples_digest: str) -> bool:
    """Whether a step came to its end, for these samples.

    Raises:
        DataError: what it left is damaged.
    """
    file = folder / DONE
    if not file.exists():
        return False
    try:
        content = parse_json(file.read_text(encoding="utf-8"))
        return bool(content["samples"] == samples_digest)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} can't be read: {error}", "delete it and score again") from error


def stale(scores: Path, names: Sequence[str], samples_digest: str) -> list[str]:
    """Steps that were scored for other samples; results without our mark are taken as they are."""
    return [
        name
        for name in names
        if (scores / name / DONE).exists() and not is_scored(scores / name, samples_digest)
    ]
