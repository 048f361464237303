"""Runs cases of a reader: anything but the project's own errors fails, and any slow case.

Hypothesis draws the random numbers of the mutators, so that what fails is shrunk to few changes,
and a seed gives the same cases again. (Atheris looks for inputs by coverage, but stops at the
first fault, has wheels for few Pythons, and sees little of readers that are mostly C and Rust.)
"""

import ast
import importlib
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz.readers import ROOT, Reader
from ursa_core.errors import UrsaError

LIMIT_SECONDS = 5.0
"""Processor time of a case; inputs have at most 1 MB."""
MAX_BYTES = 1_000_000


class PlantedError(BaseException):
    """A fault put into a reader, to be found; no Exception, which readers may catch."""


class SlowError(BaseException):
    """A case took too long."""


def fuzz(reader: Reader, folder: Path, cases: int, first_seed: int, *, shrink: bool = True) -> None:
    """Run cases of a reader.

    Args:
        reader: Of the table.
        folder: Empty, for its files.
        cases: Number of cases.
        first_seed: Seed of all cases.
        shrink: Look for the smallest change that fails.

    Raises:
        Exception: Whatever a case raised; the input is kept in ``folder``.
    """
    for name, data in {**reader.beside, **reader.seeds}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    for name in reader.seeds:
        with _limited(LIMIT_SECONDS):
            reader.read(folder, name)  # the seeds themselves are fine
    phases = (Phase.generate, Phase.shrink) if shrink else (Phase.generate,)

    @seed(first_seed)
    @settings(
        max_examples=cases, database=None, deadline=None, phases=phases,
        suppress_health_check=list(HealthCheck), report_multiple_bugs=False,
    )  # fmt: skip
    @given(st.randoms(use_true_random=False))
    def run(random: Random) -> None:
        name = random.choice(sorted(reader.seeds))
        data = reader.mutate(random, reader.seeds[name])[:MAX_BYTES]
        file = folder / name
        file.write_bytes(data)
        try:
            with _limited(LIMIT_SECONDS), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                reader.read(folder, name)
        except UrsaError as error:
            if not error.hint:
                raise AssertionError(f"no hint: {error.message}") from error
        except BaseException:
            (folder / f"failed-{file.name}").write_bytes(data)
            raise
        finally:
            file.write_bytes(reader.seeds[name])

    run()


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Refuse more processor time; a loop in C is told once it returns."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise SlowError(f"more than {seconds:g} s of processor time")

    began = time.process_time()
    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    if time.process_time() - began > seconds:
        raise SlowError(f"more than {seconds:g} s of processor time")


@contextmanager
def planted(reader: Reader) -> Iterator[None]:
    """A fault in one function of a reader, for some of its arguments alone."""
    module_name, _, name = reader.plant.partition(":")
    module = importlib.import_module(module_name)
    real: Callable[..., Any] = getattr(module, name)

    def faulty(*args: Any, **options: Any) -> Any:
        if reader.plant_if(*args, **options):
            raise PlantedError(reader.plant)
        return real(*args, **options)

    setattr(module, name, faulty)
    try:
        yield
    finally:
        setattr(module, name, real)


def coverage_of(reader: Reader, run: Callable[[], None]) -> dict[str, float]:
    """Share of the lines inside functions that a run reaches, by module of a reader."""
    from coverage import Coverage

    files = [str(ROOT / "ursa_core" / module) for module in reader.modules]
    recorder = Coverage(include=files, data_file=None)
    recorder.start()
    try:
        run()
    finally:
        recorder.stop()
    found = {}
    for file in files:
        _, statements, _, missing, _ = recorder.analysis2(file)
        inside = _lines_of_functions(Path(file)) & set(statements)
        found[Path(file).relative_to(ROOT / "ursa_core").as_posix()] = 1 - len(
            inside & set(missing)
        ) / len(inside)
    return found


def _lines_of_functions(file: Path) -> set[int]:
    """Lines that run when something is called, not when the file is imported."""
    functions = (
        node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef)
    )
    return {
        line
        for node in functions
        for statement in node.body
        for line in range(statement.lineno, (statement.end_lineno or statement.lineno) + 1)
    }
