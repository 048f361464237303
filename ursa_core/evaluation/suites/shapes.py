"""The suite ``shapes``: do clips show the colour, shape, motion and background of their prompts?

After GenEval's model, for the procedural world: prompts name attributes, and a judge that knows no
prompt reads them from the pixels of the written files. Combinations held out of training stand
apart from as many that training saw.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ursa_core.evaluation.reports.intervals import wilson
from ursa_core.evaluation.reports.report import Sample, Score, Table
from ursa_core.evaluation.suites.shapes_judge import Verdict, judge
from ursa_core.evaluation.suites.suite import PlannedFile, Suite, thinned
from ursa_core.grids import PixelShape
from ursa_core.media import Frames, read_media, write_media
from ursa_core.seeding import stream_seed
from ursa_core.worlds import shapes

ATTRIBUTES = ("colour", "shape", "motion", "background")
ALL = "all four"
SPLITS = {"heldout": "held out of training", "train": "seen in training"}
CHANCE = {
    "colour": 1 / len(shapes.COLOURS),
    "shape": 1 / len(shapes.SHAPES),
    "motion": 1 / len(shapes.MOTIONS),
    "background": 1 / len(shapes.BACKGROUNDS),
}


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
        """Of its file, below the folder of the clips."""
        return f"{self.split}/{self.prompt.replace(' ', '_')}.mp4"


def wanted(split: str, limit: int | None = None) -> list[Wanted]:
    """Combinations of a split over all backgrounds, a fixed random part of them.

    Every held-out one without a limit, and of those seen in training as many.

    Args:
        split: ``heldout`` or ``train``.
        limit: how many, 1 or more.
    """
    every = [
        Wanted(split, *combination, background)
        for combination in shapes.combinations(split)
        for background in shapes.BACKGROUNDS
    ]
    whole = len(shapes.combinations("heldout")) * len(shapes.BACKGROUNDS)
    return [every[place] for place in thinned(len(every), whole if limit is None else limit)]


def plan(limit: int | None = None, splits: Sequence[str] = tuple(SPLITS)) -> Suite:
    """The suite; a limit takes so many combinations of each split."""
    num_full = sum(len(wanted(split)) for split in splits)
    files = [
        PlannedFile(each.name, each.prompt, each.prompt, groups=(split,))
        for split in splits
        for each in wanted(split, limit)
    ]
    return Suite("shapes", files, num_full)


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
    """Which attributes of a clip are as wanted, and whether all are."""
    found = {name: getattr(each, name) == getattr(verdict, name) for name in ATTRIBUTES}
    return {**found, ALL: all(found.values())}


def scores(clips: Sequence[Wanted], verdicts: Sequence[Verdict], prefix: str = "") -> list[Score]:
    """Share of right clips for each attribute and for all together, in [0, 1]."""
    found = [right(each, verdict) for each, verdict in zip(clips, verdicts, strict=True)]
    chances = {**CHANCE, ALL: float(np.prod(list(CHANCE.values())))}
    return [
        Score.of(
            prefix + name, wilson(sum(row[name] for row in found), len(found)), "share",
            len(found), chances[name],
        )
        for name in (*ATTRIBUTES, ALL)
    ]  # fmt: skip


def by_value(clips: Sequence[Wanted], verdicts: Sequence[Verdict], title: str) -> Table:
    """How often an attribute is right, for each value that prompts ask for."""
    rows: list[tuple[str, str, int, float, str]] = []
    pairs = list(zip(clips, verdicts, strict=True))
    for name in ATTRIBUTES:
        for value in sorted({getattr(each, name) for each in clips}):
            asked = [right(*pair)[name] for pair in pairs if getattr(pair[0], name) == value]
            seen = [getattr(v, name) for e, v in pairs if getattr(e, name) == value]
            wrong = sorted({other for other in seen if other != value}, key=seen.count)
            share = wilson(sum(asked), len(asked))
            taken_for = ", ".join(reversed(wrong[-2:]))
            rows.append((name, value, len(asked), round(share.value, 4), taken_for))
    return Table(title, ("ATTRIBUTE", "ASKED FOR", "CLIPS", "RIGHT", "TAKEN FOR"), rows)


def sample_of(each: Wanted, verdict: Verdict) -> Sample:
    """A clip as reports list it; errors of colour and shape order those with equal rights."""
    found = right(each, verdict)
    doubt = min(verdict.colour_error / 442 + verdict.shape_error, 0.99)
    named = {f"{each.split} {name}": value for name, value in found.items()}
    shown = f"{verdict.colour} {verdict.shape} {verdict.motion} on {verdict.background}"
    rank = sum(found[name] for name in ATTRIBUTES) - doubt
    return Sample(each.name, each.prompt, named, rank, "right" if found[ALL] else f"seen: {shown}")


def judge_note(own: Mapping[str, Score]) -> str:
    """The judge's own error, in a sentence."""
    wrong = ", ".join(
        f"{name} {100 * (1 - (score.value or 0)):.1f} % ({score.interval_text} right)"
        for name, score in own.items()
    )
    num = next(iter(own.values())).num
    return f"The judge's own error on {num} rendered clips: {wrong}."
