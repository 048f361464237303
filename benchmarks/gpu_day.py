"""Prove the code on a GPU, measure it, and train the shipped model, in a few unattended minutes.

    python benchmarks/gpu_day.py --minutes 9 --out DIR --pixels emoji_pixels.zip [--wheels FOLDER]

Three phases, each in steps: `proof` (the tests marked `gpu`), `figures` (speed and memory at the
published sizes) and `weights` (the emoji model, in all the time that is left). A step is a process
of its own with a time limit, since a hung kernel can't be stopped otherwise; one that fails, hangs
or lacks a package is recorded with its traceback, and the next one begins. DIR holds at most eight
files: `gpu_day.json` with all results, metrics, samples, and the averaged weights. The same command
again skips the steps that are done and trains on from these weights. `docs/gpu.md` says more.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PHASES = ("proof", "figures", "weights")
RESULTS = "gpu_day.json"
BUNDLE = "bundle.zip"
SAMPLES = "samples.png"
METRICS = "metrics.jsonl"
GENERATOR = "generator"
"""Folder of the trained model among the scratch files."""
MAX_FILES, FILE_BYTES, ALL_BYTES = 8, 15_000_000, 60_000_000
WEIGHTS_SHARE = 0.55
"""Share of the whole time that is kept for training; proof and figures may not take it."""
LEAST_SECONDS = 10.0
"""A step with less time than this isn't begun."""
TAIL_CHARACTERS = 3000
NEEDED = ("ursa_core/", "ursa_cli/", "benchmarks/", "recipes/", "tests/", "pyproject.toml")
NOT_NEEDED = (
    "tests/parity/",
    *(f"tests/golden/{name}" for name in ("published_tokenizer", "autoenc", "cosmos", "path_")),
)
MEASUREMENTS = (
    "environment",
    "sampling",
    "sampling_unguided",
    "sampling_compiled",
    "sampling_offloaded",
    "solver_step",
    "decoder",
    "training_0.6B",
    "training_1.7B",
)
REASONS = {
    "No module named": "a package is missing: carry its wheel, see docs/gpu.md",
    "No space left on device": "the disk is full",
    "out of memory": "the device has too little memory",
    "MemoryError": "the machine has too little memory",
}


@dataclass(frozen=True)
class Step:
    """A process of a phase: its name, command, and the most seconds that it may take."""

    phase: str
    name: str
    command: tuple[str, ...]
    seconds: float


@dataclass
class Outcome:
    """What became of a step.

    Attributes:
        status: `done`, `failed`, `hung` or `left out`.
        seconds: Wall-clock time that it took.
        reason: Cause of a failure in one line.
        tail: End of what it printed, traceback included.
        result: What it wrote.
    """

    status: str
    seconds: float = 0.0
    reason: str = ""
    tail: str = ""
    result: object = None


def run_step(step: Step, limit: float, scratch: Path, environment: dict[str, str]) -> Outcome:
    """Run a step's process, which writes its result to the file named by `$RESULT`.

    Args:
        step: The step.
        limit: Seconds after which the process and its children are killed.
        scratch: Folder for the result and the output.
        environment: Variables of the process.
    """
    result, printed = scratch / f"{step.name}.json", scratch / f"{step.name}.txt"
    began = time.monotonic()
    variables = {**environment, "RESULT": str(result), "SECONDS": f"{limit:.0f}"}
    with printed.open("wb") as output:
        process = subprocess.Popen(
            step.command, stdout=output, stderr=output, env=variables, start_new_session=True
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            kill_group(process)
    seconds = time.monotonic() - began
    tail = printed.read_text(encoding="utf-8", errors="replace")[-TAIL_CHARACTERS:]
    written = None
    if result.is_file():
        try:
            written = json.loads(result.read_text(encoding="utf-8"))
        except ValueError:
            code = code or 1
    if code is None:
        return Outcome("hung", seconds, f"killed after {limit:.0f} s", tail, written)
    if code:
        return Outcome("failed", seconds, reason_of(tail, code), tail, written)
    return Outcome("done", seconds, result=written)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def reason_of(tail: str, code: int) -> str:
    """One line that says why a step failed."""
    lines = [line for line in tail.splitlines() if line.strip()]
    last = " ".join(line.strip() for line in lines[-2:]) if lines else f"exit code {code}"
    for sign, meaning in REASONS.items():
        if sign.lower() in tail.lower():
            return f"{meaning} ({last})"
    return last


def run_steps(
    steps: Sequence[Step],
    seconds: float,
    done: dict[str, Outcome],
    start: Callable[[Step, float], Outcome],
    clock: Callable[[], float] = time.monotonic,
    on_outcome: Callable[[Step, Outcome], None] = lambda *_: None,
) -> None:
    """Run steps in order within a budget, and record each in `done` as it ends.

    Steps that an earlier call has done are skipped, but for training, which goes on. Where there is
    training, the others leave `WEIGHTS_SHARE` of the time to it.

    Args:
        steps: What to run.
        seconds: Budget of all steps.
        done: Outcomes by name, earlier ones among them.
        start: Runs a step within a limit of seconds.
        clock: Seconds since some moment.
        on_outcome: Called after each step.
    """
    end = clock() + seconds
    kept = WEIGHTS_SHARE * seconds if any(step.phase == "weights" for step in steps) else 0.0
    for step in steps:
        trains = step.phase == "weights"
        earlier = done.get(step.name)
        if earlier is not None and earlier.status == "done" and not trains:
            continue
        limit = min(step.seconds, end - clock() - (0.0 if trains else kept))
        outcome = (
            Outcome("left out", reason="no time was left")
            if limit < LEAST_SECONDS
            else start(step, limit)
        )
        done[step.name] = outcome
        on_outcome(step, outcome)


def all_steps(args: argparse.Namespace, scratch: Path) -> list[Step]:
    """The steps of the phases that were asked for."""
    python = sys.executable
    rehearse = ("--rehearse",) if args.rehearse else ()
    tests = (python, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(ROOT / "tests/devices"))
    chosen = ("-k", "logits") if args.rehearse else ("-m", "gpu")
    measure = (python, str(HERE / "gpu_day_figures.py"), *rehearse)
    train = (python, str(HERE / "gpu_day_weights.py"), *rehearse)
    pixels = () if args.pixels is None else ("--pixels", str(args.pixels))
    steps = [
        Step("proof", "proof", (*tests, *chosen, f"--junitxml={scratch / 'proof.xml'}"), 120),
        *(Step("figures", name, (*measure, name), 60) for name in MEASUREMENTS),
        Step(
            "weights",
            "weights",
            (*train, *pixels, "--out", str(args.out), "--scratch", str(scratch)),
            float("inf"),
        ),
    ]
    return [step for step in steps if step.phase in args.only]


def read_results(out: Path) -> dict[str, Outcome]:
    """Outcomes of earlier calls by name."""
    file = out / RESULTS
    if not file.is_file():
        return {}
    stored = json.loads(file.read_text(encoding="utf-8"))["steps"]
    return {name: Outcome(**values) for name, values in stored.items()}


def write_results(out: Path, outcomes: dict[str, Outcome]) -> None:
    """Write all outcomes, whole or not at all."""
    partial = out / f".{RESULTS}"
    steps = {name: asdict(outcome) for name, outcome in outcomes.items()}
    partial.write_text(json.dumps({"steps": steps}, indent=1), encoding="utf-8")
    partial.replace(out / RESULTS)


def proof_of(report: Path) -> dict[str, object] | None:
    """Counts and failures of a JUnit report; None without one."""
    if not report.is_file():
        return None
    cases = list(ET.parse(report).iter("testcase"))
    failed = [
        case.get("name", "")
        for case in cases
        for child in case
        if child.tag in ("failure", "error")
    ]
    skipped = sum(child.tag == "skipped" for case in cases for child in case)
    noted = {
        f"{case.get('name')}: {entry.get('name')}": entry.get("value")
        for case in cases
        for entry in case.iter("property")
    }
    passed = len(cases) - len(failed) - skipped
    return {"passed": passed, "skipped": skipped, "failed": failed, "noted": noted}


def export(run: Path, out: Path) -> None:
    """Copy a trained bundle, its metrics and newest sample grid from a run folder into `out`.

    Weight files above a megabyte go as they are, `transformer/x.safetensors` as
    `transformer.x.safetensors`; all small files go into `bundle.zip`.

    Raises:
        ValueError: The files would be more, or larger, than what may be carried back.
    """
    files = [
        file
        for file in sorted(run.rglob("*"))
        if file.is_file() and file.relative_to(run).parts[0] not in ("checkpoints", "samples")
    ]
    weights = [
        file for file in files if file.suffix == ".safetensors" and file.stat().st_size > 1e6
    ]
    small = [file for file in files if file not in weights and file.name != METRICS]
    sizes = [file.stat().st_size for file in weights]
    if len(weights) + 4 > MAX_FILES or max(sizes, default=0) > FILE_BYTES or sum(sizes) > ALL_BYTES:
        raise ValueError(f"the weights are {len(weights)} files of {sum(sizes) / 1e6:.0f} MB")
    for old in out.glob("*.safetensors"):
        old.unlink()
    for file in weights:
        shutil.copyfile(file, out / ".".join(file.relative_to(run).parts))
    with zipfile.ZipFile(out / BUNDLE, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in small:
            packed.write(file, file.relative_to(run).as_posix())
    if (run / METRICS).is_file():
        shutil.copyfile(run / METRICS, out / METRICS)
    if grids := sorted((run / "samples").glob("*.png")):
        shutil.copyfile(grids[-1], out / SAMPLES)


def unpack(out: Path, folder: Path) -> Path:
    """Make the model folder again that `export` took apart."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(out / BUNDLE) as packed:
        packed.extractall(folder)  # our own archive; zipfile keeps names inside the folder
    for file in out.glob("*.safetensors"):
        part, _, name = file.name.partition(".")
        (folder / part).mkdir(exist_ok=True)
        shutil.copyfile(file, folder / part / name)
    return folder


def needless_files() -> tuple[int, list[tuple[int, str]]]:
    """Bytes of the tracked files that the command needs, and size and name of the others."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    needed, others = 0, []
    for name in listed.stdout.splitlines():
        size = (ROOT / name).stat().st_size if (ROOT / name).is_file() else 0
        if name.startswith(NEEDED) and not name.startswith(NOT_NEEDED):
            needed += size
        else:
            others.append((size, name))
    return needed, sorted(others, reverse=True)


def install_wheels(folder: Path, site: Path) -> None:
    """Install the wheels of a folder into `site`, without a network."""
    wheels = map(str, sorted(folder.glob("*.whl")))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--upgrade", "--target", str(site), *wheels], check=True)


def show(step: Step, outcome: Outcome) -> None:
    """Print a line for a step that ended."""
    print(f"{step.phase:8} {step.name:20} {outcome.status:8} {outcome.seconds:6.1f} s  ", end="")
    print(outcome.reason or json.dumps(outcome.result)[:160], flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; the exit code is 1 where a step didn't end well."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=9.0, help="time of all phases")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--only", nargs="+", choices=PHASES, default=list(PHASES))
    parser.add_argument("--pixels", type=Path, help="file by `recipes/emoji_data.py carry`")
    parser.add_argument("--wheels", type=Path, help="folder of wheels that the machine lacks")
    parser.add_argument(
        "--unpack", type=Path, metavar="FOLDER", help="make a model folder of --out"
    )
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes, on a CPU")
    args = parser.parse_args(arguments)
    began = time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)
    args.out = args.out.resolve()
    if args.unpack:
        print(unpack(args.out, args.unpack))
        return 0
    if "weights" in args.only and not args.rehearse and args.pixels is None:
        parser.error("training needs --pixels; or leave it out with --only proof figures")
    needed, others = needless_files()
    print(f"needed of the checkout: {needed / 1e6:.1f} MB; may be left out, largest first:")
    for size, name in others[:8]:
        print(f"  {size / 1e6:6.2f} MB  {name}")
    outcomes = read_results(args.out)
    with tempfile.TemporaryDirectory(prefix="gpu-day-") as folder:
        scratch = Path(folder)
        paths = [str(ROOT), str(HERE), os.environ.get("PYTHONPATH", "")]
        if args.wheels:
            install_wheels(args.wheels, scratch / "site")
            paths.insert(0, str(scratch / "site"))
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "PYTHONUNBUFFERED": "1",
        }

        def ended(step: Step, outcome: Outcome) -> None:
            if step.phase == "proof":
                outcome.result = proof_of(scratch / "proof.xml")
            if step.phase == "weights" and (scratch / GENERATOR / "model_index.json").is_file():
                export(scratch / GENERATOR, args.out)  # a killed training left its checkpoint's
            write_results(args.out, outcomes)
            show(step, outcome)

        run_steps(
            all_steps(args, scratch),
            60 * args.minutes - (time.monotonic() - began),
            outcomes,
            lambda step, limit: run_step(step, limit, scratch, environment),
            on_outcome=ended,
        )
    print(f"results in {args.out}, {time.monotonic() - began:.0f} s")
    return 0 if all(outcome.status == "done" for outcome in outcomes.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
