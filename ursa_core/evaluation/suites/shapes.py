"""The suite ``shapes``: do clips show the colour, shape, motion and background of their prompts?

After GenEval's model, for the procedural world: prompts name attributes, and a judge that knows no
prompt reads them from the pixels of the written files. Combinations held out of training stand
apart from as many that training saw.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ursa_core.errors import DataError
from ursa_core.evaluation.reports.intervals import wilson
from ursa_core.evaluation.reports.report import Options, Report, Sample, Score, Table, read_record
from ursa_core.evaluation.suites.completeness import digest
from ursa_core.evaluation.suites.shapes_judge import Verdict, judge
from ursa_core.evaluation.suites.suite import PlannedFile, Suite, thinned
from ursa_core.grids import PixelShape
from ursa_core.media import Frames, read_media, write_media
from ursa_core.seeding import stream_seed
from ursa_core.worlds import shapes

NAME = "shapes"
ATTRIBUTES = ("colour", "shape", "motion", "background")
ALL = "all four"
SPLITS = {"heldout": "held out of training", "train": "seen in training"}
_VALUES = (shapes.COLOURS, shapes.SHAPES, shapes.MOTIONS, shapes.BACKGROUNDS)
CHANCE = {name: 1 / len(values) for name, values in zip(ATTRIBUTES, _VALUES, strict=True)}
SCORES = "scores.json"
_SPLITS_NOTE = (
    "heldout: combinations of colour, shape and motion that training left out; "
    "train: as many that it saw. Intervals are Wilson's."
)


@dataclass(frozen=True)
class Scores:
    """What the judge saw, as ``scores.json`` holds it: verdicts on clips and rendered ones."""

    suite: str
    limit: int | None  # number of combinations of each split
    samples: str  # digest of the clips
    verdicts: Mapping[str, Verdict]
    judge_on_rendered: Mapping[str, Verdict]


@dataclass(frozen=True)
class Wanted:
    """What a clip should show, and the split that its combination belongs to."""

    split: str
    colour: str
    shape: str
    motion: str
    background: str

    @property
    def prompt(self) -> str:
        """The caption that asks for it."""
        return shapes.caption(self.colour, self.shape, self.motion, self.background)

    @property
    def name(self) -> str:
        """Path of its file below the folder of the clips."""
        return f"{self.split}/{self.prompt.replace(' ', '_')}.mp4"


def wanted(split: str, limit: int | None = None) -> list[Wanted]:
    """``limit`` fixed combinations of a split with backgrounds, else as many as are held out."""
    every = [
        Wanted(split, *combination, background)
        for combination in shapes.combinations(split)
        for background in shapes.BACKGROUNDS
    ]
    whole = len(shapes.combinations("heldout")) * len(shapes.BACKGROUNDS)
    return [every[place] for place in thinned(len(every), whole if limit is None else limit)]


def plan(limit: int | None = None) -> Suite:
    """The suite, with ``limit`` combinations of each split."""
    clips = [each for split in SPLITS for each in wanted(split, limit)]
    files = [PlannedFile(each.name, each.prompt, each.prompt) for each in clips]
    return Suite(NAME, files, sum(len(wanted(split)) for split in SPLITS))


def rendered(each: Wanted, shape: PixelShape, seed: int) -> Frames:
    """The clip (F, H, W, 3) as the procedural world draws it."""
    rng = np.random.default_rng(stream_seed(seed, each.prompt))
    spec = shapes.sample_spec(rng, each.colour, each.shape, each.motion, each.background)
    return shapes.render(spec, shape.height, shape.width, np.linspace(0, 1, shape.frames))


def judge_rendered(
    clips: Sequence[Wanted], shape: PixelShape, fps: float, seed: int
) -> Iterator[Verdict]:
    """Verdicts on rendered clips, written as mp4 and read back as sampled ones are."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "clip.mp4"
        for each in clips:
            write_media(file, rendered(each, shape, seed), fps)
            yield judge_file(file)


def judge_file(path: Path) -> Verdict:
    """What the clip in a file shows."""
    return judge(read_media(path).frames)


def right(each: Wanted, verdict: Verdict) -> dict[str, bool]:
    """Which attributes of a clip are as wanted, and whether all four are."""
    found = {name: getattr(each, name) == getattr(verdict, name) for name in ATTRIBUTES}
    return {**found, ALL: all(found.values())}


def scores(clips: Sequence[Wanted], verdicts: Sequence[Verdict], prefix: str = "") -> list[Score]:
    """Share of right clips for each attribute and for all together, in [0, 1]."""
    found = [right(*pair) for pair in zip(clips, verdicts, strict=True)]
    num, chances = len(found), {**CHANCE, ALL: float(np.prod(list(CHANCE.values())))}
    shares = {name: wilson(sum(row[name] for row in found), num) for name in chances}
    pairs = shares.items()
    return [Score.of(prefix + name, share, "share", num, chances[name]) for name, share in pairs]


def _by_value(pairs: Sequence[tuple[Wanted, Verdict]], title: str) -> Table:
    """How often an attribute is right, for each value that prompts ask for."""
    rows = []
    for name in ATTRIBUTES:
        for value in sorted({getattr(each, name) for each, _ in pairs}):
            seen = [getattr(v, name) for each, v in pairs if getattr(each, name) == value]
            wrong = sorted(dict.fromkeys(each for each in seen if each != value), key=seen.count)
            share, taken_for = seen.count(value) / len(seen), ", ".join(reversed(wrong[-2:]))
            rows.append((name, value, len(seen), round(share, 4), taken_for))
    return Table(title, ("ATTRIBUTE", "ASKED FOR", "CLIPS", "RIGHT", "TAKEN FOR"), rows)


def _sample_of(each: Wanted, verdict: Verdict) -> Sample:
    """A clip as reports list it; errors of colour and shape order those with equal rights."""
    found = right(each, verdict)
    doubt = min(verdict.colour_error / 442 + verdict.shape_error, 0.99)
    named = {f"{each.split} {name}": value for name, value in found.items()}
    shown = f"{verdict.colour} {verdict.shape} {verdict.motion} on {verdict.background}"
    rank = sum(found[name] for name in ATTRIBUTES) - doubt
    return Sample(each.name, each.prompt, named, rank, "right" if found[ALL] else f"seen: {shown}")


def score(folder: Path, limit: int | None, seed: int, on_clip: Callable[[], object]) -> Scores:
    """Judge the clips of a folder, and rendered ones of the same prompts and size.

    ``limit`` is the number of combinations of each split, ``seed`` that of the rendered clips;
    ``on_clip`` is called after each clip, two times as often as there are files.
    """
    clips = [each for split in SPLITS for each in wanted(split, limit)]
    first = read_media(folder / clips[0].name)
    shape = PixelShape(*first.frames.shape[:3])
    judged = (judge_file(folder / each.name) for each in clips)
    found: list[dict[str, Verdict]] = []
    for verdicts in (judged, judge_rendered(clips, shape, first.fps or 8.0, seed)):
        found.append({})
        for each, verdict in zip(clips, verdicts, strict=True):
            found[-1][each.name] = verdict
            on_clip()
    return Scores(NAME, limit, digest(plan(limit), folder), *found)


def report(suite: Suite, settings: Options, scores_in: Path, samples_digest: str) -> Report:
    """The report of verdicts in a folder; `DataError` if missing, damaged or on other clips."""
    path, hint = scores_in / SCORES, "run --only score"
    if not path.exists():
        raise DataError(f"nothing was scored in {scores_in.parent}", hint)
    found = read_record(path, Scores, "record", hint)
    if found.samples != samples_digest:
        raise DataError(f"the samples aren't those scored in {path}", hint)
    scored, tables, samples, judged, on_rendered = [], [], [], [], []
    try:
        for split, title in SPLITS.items():
            clips = wanted(split, found.limit)
            seen = [found.verdicts[each.name] for each in clips]
            on_rendered += [found.judge_on_rendered[each.name] for each in clips]
            judged += clips
            pairs = list(zip(clips, seen, strict=True))
            scored += scores(clips, seen, f"{split} ")
            tables.append(_by_value(pairs, f"By value, {title}"))
            samples += [_sample_of(*pair) for pair in pairs]
    except KeyError as error:
        raise DataError(f"{path} is damaged: it has no verdict on {error}", hint) from error
    own = scores(judged, on_rendered)
    wrong = ", ".join(
        f"{each.name} {100 * (1 - (each.value or 0)):.1f} % ({each.interval_text} right)"
        for each in own
    )
    note = f"The judge's own error on {own[0].num} rendered clips: {wrong}."
    return Report(NAME, settings, suite.is_whole, scored, tables, samples, (_SPLITS_NOTE, note))
