"""How media become codes: the record that the command line annotates and Python fills."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Literal

from ursa_core.bundle.options import SOURCE_FPS, Range, number_of
from ursa_core.errors import UsageError

Mode = Literal["head", "chunk", "slide", "uniform", "full"]
SHAPES_PREFIX, EMOJI_PREFIX = "shapes:", "emoji:"
PROCEDURAL = (SHAPES_PREFIX, EMOJI_PREFIX)

_RANGES = {
    "num": Range(1, 10_000_000, "1 to 10000000"),
    "seed": Range(0, 2**63 - 1, "0 to 2^63 - 1"),
    **dict.fromkeys(("refine", "crops"), Range(0, 1000, "0 to 1000")),
    "check": Range(0, inf, "0 or more"),
    "fps": Range(0.1, 1000, "0.1 to 1000"),
    "source_fps": SOURCE_FPS,
    **dict.fromkeys(("frames", "stride", "clips_per_file"), Range(1, 1_000_000, "1 to 1000000")),
    "min_size": Range(1, inf, "1 or more"),
    **dict.fromkeys(("min_seconds", "max_seconds"), Range(0, inf, "0 or more")),
    **dict.fromkeys(("min_motion", "max_motion"), Range(0, 1, "0 to 1")),
}

_REASONS = {
    "min_size": "smaller than {} pixels",
    "min_seconds": "shorter than {:g} s",
    "max_seconds": "longer than {:g} s",
    "min_motion": "motion below {:g}",
    "max_motion": "motion above {:g}",
}


@dataclass(frozen=True)
class Filters:
    """Bounds outside which clips are left out; None is no bound."""

    min_size: int | None = None  # pixels of the shorter side of the file's frames
    min_seconds: float | None = None  # length of the file
    max_seconds: float | None = None  # length of the file
    min_motion: float | None = None  # motion of the cut clip, in [0, 1]
    max_motion: float | None = None  # motion of the cut clip, in [0, 1]

    def reason(self, what: Literal["size", "seconds", "motion"], value: float) -> str:
        """Why a clip of this size, length or motion is left out; empty if it isn't."""
        least, most = getattr(self, f"min_{what}"), getattr(self, f"max_{what}", None)
        if least is not None and value < least:
            return _REASONS[f"min_{what}"].format(least)
        if most is not None and value > most:
            return _REASONS[f"max_{what}"].format(most)
        return ""


@dataclass(frozen=True)
class TokenizeOptions(Filters):
    """Options of ``ursa tokenize``, in Python and on the command line, with the filters'."""

    fps: float | None = None  # frames sampled per second; None is the model's rate
    source_fps: float | None = None  # frames per second of the files, whatever they state
    frames: int | None = None  # frames per clip; None is the model's length
    # Sizes (height, width) that frames are scaled and cropped to; each file gets the one nearest in
    # aspect ratio. None is the model's size.
    size: Sequence[tuple[int, int]] | None = None
    clips: Mode = "head"  # which clips of a file, see `ClipCut`
    stride: int | None = None  # sampled frames between the starts of `clips="slide"`
    clips_per_file: int | None = None  # number of clips of `clips="uniform"`
    crops: int = 0  # random parts of each clip, scaled to its size, that are added to the whole
    num: int = 1000  # clips per procedural input
    seed: int = 0  # seed of the procedural inputs
    data: Path | None = None  # folder of the sprites that `emoji:train` draws
    refine: int = 0  # steps of gradient descent on the codes through the decoder
    # Clips that are decoded again for PSNR and SSIM; None is all of files, and 16 procedural ones.
    check: int | None = None
    fresh: bool = False  # whether the folder's shards are deleted first
    drop_gone: bool = False  # whether clips of files that no longer exist are removed

    def refuse(self, inputs: Sequence[str] = ()) -> None:
        """Refuse with a UsageError values out of range, or that don't go together."""
        for name, limits in _RANGES.items():
            number_of(name, getattr(self, name), limits)
        for name in ("seconds", "motion"):
            least, most = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if least is not None and most is not None and least > most:
                raise UsageError(
                    f"nothing has {least:g} to {most:g} of {name}",
                    f"swap `min_{name}` and `max_{name}`",
                )
        if self.clips == "full" and self.frames is not None:
            fault = "`clips` full takes all frames, and no `frames`"
            raise UsageError(fault, "leave one of them out")
        for name, mode in (("stride", "slide"), ("clips_per_file", "uniform")):
            is_given = getattr(self, name) is not None
            if self.clips == mode and not is_given:
                raise UsageError(f"`clips` {mode} needs `{name}`", f"give `{name}`")
            if is_given and self.clips != mode:
                hint = f"leave it out, or give `clips` {mode}"
                raise UsageError(f"`{name}` is for `clips` {mode}", hint)
        bounds = (self.min_size, self.min_seconds, self.max_seconds)
        is_whole = self.clips == "head" and not self.crops
        is_plain = is_whole and len(self.size or ()) < 2 and bounds == (None,) * 3
        drawn = [given for given in inputs if given.startswith(PROCEDURAL)]
        if drawn and not is_plain:
            raise UsageError(
                f"the clips of {drawn[0]} are drawn at one length and size",
                "leave out `clips`, `crops`, `min_size`, `min_seconds`, `max_seconds`, more sizes",
            )
        if self.data is not None and not any(given.startswith(EMOJI_PREFIX) for given in inputs):
            hint = "add the input emoji:train, or leave it out"
            raise UsageError("`data` is for the emoji", hint)
