"""How clips are sampled: one record, its ranges, and what users may write; no heavy imports."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from numbers import Integral, Real
from typing import Annotated, Any, get_type_hints

from annotated_types import Ge, GroupedMetadata, Le

from ursa_core.errors import UsageError
from ursa_core.grids import PixelShape

MAX_SEED = 2**63


@dataclass(frozen=True)
class Range(GroupedMetadata):
    """Lowest and highest value of a field, and both in words; pydantic reads it too."""

    low: float
    high: float
    description: str

    def __iter__(self) -> Iterator[object]:
        return iter((Ge(self.low), Le(self.high)))


@dataclass(frozen=True)
class Described:
    """What a field without a range takes, in words."""

    description: str


SOURCE_FPS = Range(0.001, 10_000, "0.001 to 10000")
SEED = Range(0, MAX_SEED - 1, "0 to 2^63 - 1")
_Pixels = Annotated[int, Range(1, 1 << 16, "a whole number from 1 to 65536")]
_Time = Annotated[float, Range(0, 1, "0 to 1")]


@dataclass(frozen=True)
class SamplingOptions:
    """How a clip is sampled and written; a model's own are ``model.defaults``.

    Attributes:
        negative: Prompt that guidance leads away from.
        frames: Number of frames, 1 + a multiple of the model's temporal stride; 1 is an image.
        height: Height in pixels.
        width: Width in pixels.
        fps: Frames per second of the file.
        motion: Score of the prompt's motion prefix, for models trained with one.
        crf: Quality of an mp4, 0 (lossless) to 51.
        steps: Network calls along the path.
        guidance: Scale of classifier-free guidance; 1 is off.
        guidance_interval: Times (low, high) between which guidance acts; 0 is noise, 1 is data.
        solver: ``integrated`` or ``euler`` (``maskgit`` where the path is masked); None is the
            path's first.
        shift: Time shift of the steps.
        correct: Probability that a step draws a code again from the path; 0 is off.
        temperature: Temperature of the draws of x_1.
        top_p: Share of probability that is drawn from.
    """

    negative: Annotated[str, Described("a text")] = ""
    steps: Annotated[int, Range(1, 10_000, "1 to 10000")] = 50
    guidance: Annotated[float, Range(0, 100, "0 to 100; 1 is off")] = 7.0
    guidance_interval: Annotated[
        tuple[_Time, _Time], Described("two numbers from 0 to 1, the lower one first")
    ] = (0.0, 0.9)
    solver: Annotated[str | None, Described("a solver, or null")] = None
    shift: Annotated[float, Range(0.001, 1000, "0.001 to 1000; 1 is none")] = 3.0
    correct: Annotated[float, Range(0, 1, "0 (off) to 1")] = 0.0
    frames: Annotated[int, Range(1, 1_000_000, "1 to 1000000")] = 49
    height: _Pixels = 320
    width: _Pixels = 512
    temperature: Annotated[
        float, Range(0.001, 1000, "0.001 to 1000; 1 is the model's own spread")
    ] = 1.0
    top_p: Annotated[float, Range(1e-6, 1, "0.000001 to 1 (all)")] = 1.0
    motion: Annotated[float, Range(0, 1000, "0 to 1000, as 9")] = 9.0
    fps: Annotated[float, Range(0.1, 1000, "0.1 to 1000")] = 12.0
    crf: Annotated[int, Range(0, 51, "0 (lossless) to 51 (worst)")] = 18

    @property
    def shape(self) -> PixelShape:
        """Pixel shape of the clip."""
        return PixelShape(self.frames, self.height, self.width)

    def solver_of(self, solvers: Sequence[str]) -> str:
        """Own solver, or a path's first; UsageError where the path lacks it or it can't correct."""
        solver = self.solver or solvers[0]
        require(solver in solvers, "solver", solver, " or ".join(solvers))
        if self.correct and solver == "maskgit":
            hint = "leave `correct` at 0, or use the solver integrated"
            raise UsageError("maskgit reveals each code once and can't correct it", hint)
        return solver


@cache
def option_types() -> dict[str, type]:
    """Names of all options of a clip besides its prompt, and the types that users write them in."""
    hints = get_type_hints(SamplingOptions)
    names = ["seed", "negative", "frames", "size", *hints]
    others = {"seed": int, "size": str, "guidance_interval": str, "solver": str}
    types = {name: others.get(name) or hints[name] for name in names}
    return {name: kind for name, kind in types.items() if name not in ("height", "width")}


_FIELDS = get_type_hints(SamplingOptions, include_extras=True)


def checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `SamplingOptions` from options as users give them; None is not given.

    Values are by the names of the fields, but for ``size`` as ``HxW`` or (height, width), and
    ``guidance_interval`` as ``LO:HI`` or (low, high). A ``seed`` is checked and left out. An
    unknown name, or a value out of range or of another form, is a UsageError.
    """
    found: dict[str, Any] = {}
    for name, value in given.items():
        if value is None:
            continue
        if name == "size":
            found["height"], found["width"] = parse_size(value)
        elif name == "guidance_interval":
            found[name] = parse_interval(value)
        elif name == "seed":
            number_of(name, value, SEED, int)
        elif name not in _FIELDS:
            hint = f"known are {', '.join(option_types())}"
            raise UsageError(f"there is no option `{name}`", hint)
        elif isinstance(limits := _FIELDS[name].__metadata__[0], Range):
            found[name] = number_of(name, value, limits, _FIELDS[name].__origin__)
        else:
            require_text(f"{name} prompt" * (name == "negative") or name, value, True)
            found[name] = value
    return found


def require(ok: bool, name: str, value: object, words: str) -> None:
    """Raise UsageError, naming option (as in Python, or ``--name``), value and range, unless ok."""
    if not ok:
        option = name if name.startswith("--") else f"`{name}`"
        shown = f"{value:g}" if isinstance(value, float) else str(value)
        raise UsageError(f"{option} can't be {shown}", f"give {words}")


def number_of(name: str, value: Any, limits: Range, kind: type = float) -> Any:
    """A number as Python's, since files record none of NumPy's; UsageError if out of range.

    None stays. With ``kind`` int it must be whole.
    """
    numbers = Integral if kind is int else Real
    is_number = type(value) is kind or (isinstance(value, numbers) and not isinstance(value, bool))
    ok = value is None or (is_number and limits.low <= value <= limits.high)
    shown = f"the text {value!a}" if isinstance(value, str) else value
    require(ok, name, shown, limits.description)
    return None if value is None else kind(value)


def require_text(name: str, text: str | None, may_be_empty: bool = False) -> None:
    """Raise UsageError for a text that is empty, or whose bytes were no UTF-8; None is fine."""
    if isinstance(text, str) and text == "" and not may_be_empty:
        raise UsageError(f"the {name} is empty", "give a name")
    if text is not None and not isinstance(text, str):
        raise UsageError(f"the {name} can't be {text!r}", "give a text")
    try:
        (text or "").encode()
    except UnicodeEncodeError:  # Python passes such bytes on as lone surrogates
        raise UsageError(f"the {name} is not UTF-8: {text!a}", "give it as UTF-8") from None


def parse_size(size: str | tuple[int, int]) -> tuple[int, int]:
    """Height and width from ``HxW``, or as they are; UsageError for another form."""
    parts = size if isinstance(size, tuple | list) else (size,)
    text = "x".join(map(str, parts))
    match = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text.strip().lower())
    if not match or not (int(match[1]) and int(match[2])):
        raise UsageError(f"{text!r} is no size", "give height x width in pixels, as 64x96")
    return int(match[1]), int(match[2])


def parse_interval(interval: str | tuple[float, float]) -> tuple[float, float]:
    """Two times from ``LO:HI``, or as they are; UsageError unless 0 <= LO <= HI <= 1."""
    parts = interval.split(":") if isinstance(interval, str) else interval
    try:
        low, high = (float(part) for part in parts)
    except (TypeError, ValueError):
        low = high = math.nan
    if not 0 <= low <= high <= 1:
        hint = "give LO:HI with 0 <= LO <= HI <= 1, as 0:0.9"
        raise UsageError(f"{interval!r} is no interval of times", hint)
    return low, high
