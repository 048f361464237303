"""A run of a suite: its folder, what decides its files, and what its records say."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from ursa_core import __version__, files
from ursa_core.batches.manifest import Records, read_header
from ursa_core.errors import DataError, UsageError
from ursa_core.evaluation.reports.report import PAGE, REPORT, read_record, write_record
from ursa_core.evaluation.suites import dpg, geneval, shapes, vbench
from ursa_core.evaluation.suites.completeness import case_twins, check, distinguishes_case, refuse
from ursa_core.evaluation.suites.suite import Suite
from ursa_core.grids import PixelShape

DEFAULT_RATIO = "8-5"  # of VBench-I2V's images
DEFAULT_SEED = 0  # fixed, so that two runs agree where nobody asked for a seed


class EvalRun:
    """Folder of an evaluation, and in it those of the scored files, of records and of scores."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.samples = folder, folder / "samples"
        self.records, self.scores = folder / "records", folder / "scores"


@dataclass(frozen=True)
class Begun:
    """What decides the files of a suite; None is the suite's own choice."""

    suite: str
    limit: Annotated[int, Field(ge=1)] | None  # number of prompts
    prompts: str | None = None  # ``raw`` or ``rewritten``
    ratio: str | None = None  # of the given images
    images: str | None = None  # folder of the given images
    seconds: float | None = None  # length of a clip

    @property
    def given(self) -> dict[str, Any]:
        """The choices without the suite's name, those that were made."""
        return {key: v for key, v in asdict(self).items() if key != "suite" and v is not None}


def planned(begun: Begun, repo: Path | None) -> Suite:
    """The files of a suite, some of them from ``repo``, the checkout of the official scorer.

    Raises `UsageError` where it is needed and `DataError` where it lacks images or prompts.
    """
    prompts, limit = begun.prompts or "raw", begun.limit
    match begun.suite:
        case "shapes":
            return shapes.plan(limit)
        case "geneval":
            return geneval.plan(prompts, limit)
        case "dpg":
            return dpg.plan(repo, limit)
        case "vbench-i2v":
            ratio = begun.ratio or DEFAULT_RATIO
            images = Path(begun.images) if begun.images else vbench.images_in(repo, ratio)
            return vbench.plan_i2v(images, limit)
    return vbench.plan(prompts, limit, long=begun.suite == "vbench-long")


def begin(run: EvalRun, wanted: Begun, may_sample: bool) -> Begun:
    """What decides the files of a run: as wanted, else as its folder was begun with.

    Raises `UsageError` for a folder of another suite, other options or more prompts, `DataError`
    where its record can't be read, or nothing was sampled there.
    """
    path, folder, another = run.records / "suite.json", run.folder, "give another folder"
    # A run that could not begin leaves no manifest, and decides nothing.
    if not path.exists() or read_header(run.records) is None:
        if not may_sample:
            raise DataError(f"nothing was sampled in {folder}", "run --only sample first")
        for file in (folder / PAGE, folder / REPORT):
            if file.exists():
                raise UsageError(f"{file} exists already, of another evaluation", another)
        return wanted
    found = read_record(path, Begun, "record", "give another folder with -o")
    if found.suite != wanted.suite:
        raise UsageError(f"{folder} is an evaluation by {found.suite}, not {wanted.suite}", another)
    for key, value in wanted.given.items():
        if key != "limit" and value != getattr(found, key):
            fault = f"{folder} was begun with --{key} {getattr(found, key)}, not {value}"
            raise UsageError(fault, f"leave --{key} out to go on, or give another folder")
    # A larger part of a suite holds every smaller one, so a trial may grow.
    if wanted.limit is None:
        return found
    if found.limit is None or wanted.limit < found.limit:
        whole = "all prompts" if found.limit is None else f"--limit {found.limit}"
        hint = "leave --limit out, or give another folder"
        raise UsageError(f"{folder} was begun with {whole}, more than --limit {wanted.limit}", hint)
    return replace(found, limit=wanted.limit)


def lay_out(run: EvalRun, suite: Suite, begun: Mapping[str, Any]) -> None:
    """Create a run's folders, record and fixed files; `DataError` if the disk can't hold them."""
    files.make_folder(run.samples)
    twins = case_twins(suite)
    if twins and not distinguishes_case(run.samples):
        hint = "sample to a disk that distinguishes upper from lower case"
        raise DataError(f"{run.samples} takes {twins[0]} and {twins[1]} for one file", hint)
    write_record(run.records / "suite.json", begun)
    for name, content in suite.fixed.items():
        path = run.samples / name
        if not path.exists():
            files.write(files.make_folder(path.parent) / path.name, content)


def check_complete(run: EvalRun, suite: Suite, on_file: Callable[[], object]) -> int:
    """Number of files whose shape no record states; `DataError` where some aren't as asked for."""
    made = {name: record.options for name, record in Records(run.records).items()}
    shapes_of = ((name, options.get("pixel_shape")) for name, options in made.items())
    expected = {name: PixelShape(*shape) for name, shape in shapes_of if shape}
    faults = check(suite, run.samples, expected, on_file)
    if faults:
        raise refuse(faults, run.samples)
    return sum(file.name not in expected for file in suite.files)


def settings_of(run: EvalRun, begun: Begun) -> dict[str, Any]:
    """What the samples were made with, as reports state it: what all their records agree on."""
    header = read_header(run.records)
    made = [record.options for record in Records(run.records).values()]
    own = ("index", "pixel_shape")
    shared = {
        key: value
        for key, value in (made[0] if made else {}).items()
        if key not in own and all(options.get(key) == value for options in made)
    }
    of_batch = {"model": header.model, "seed": header.seed} if header else {}
    return {**of_batch, **begun.given, **shared, **of_batch, "ursa": __version__}
