"""What users ask of a clip besides sampling options: frames given, ends to go between, a length.

The fields are the columns of a batch's lines too. Nothing heavy is imported before a plan is made.
Each record's ``check`` refuses, with a UsageError, values that can't be or don't go together.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from ursa_core.bundle.options import SOURCE_FPS, Range, number_of, require, require_text
from ursa_core.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

    from ursa_core.clips.clip import Clip
    from ursa_core.clips.plan import PlacedModel, Plan
    from ursa_core.sampling.conditioning import Cond

    Source: TypeAlias = str | Path | Image | NDArray[Any] | Clip
    """An image or a clip: a file, a PIL image, an array uint8, or a clip made here."""

STRENGTH = 0.6


def cond_or_default(cond: str | None, cond_noise: float | None) -> tuple["Cond", float]:
    """How given frames are taken, and the noise that they enter with; UsageError for others."""
    require(cond in (None, "soft", "lock"), "cond", cond, "soft or lock")
    in_range = cond_noise is None or 0 <= cond_noise < 1
    require(in_range, "cond_noise", cond_noise, "0 to below 1")
    return ("soft" if cond == "soft" else "lock"), cond_noise or 0.0


def _require_sources(**sources: "Source | None") -> None:
    for name, source in sources.items():
        if isinstance(source, str):
            require_text(name.replace("_", " "), source)


def _own_fields(record: object, values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name in vars(record)}


@dataclass(frozen=True)
class SampleInputs:
    """Frames that ``sample`` is given besides text, as `Model.sample` describes them."""

    image: "Source | None" = None
    video: "Source | None" = None
    strength: float | None = None
    cond: str | None = None
    cond_noise: float | None = None
    fit: bool = False
    source_fps: float | None = None
    prompt: str = ""

    def overridden(self, values: Mapping[str, Any]) -> Self:
        """With the values of a line; an image or video replaces either, and its options."""
        others: dict[str, None] = {}
        if values.get("image") is not None:
            others |= dict.fromkeys(("video", "strength", "source_fps"))
        if values.get("video") is not None:
            others |= dict.fromkeys(("image", "cond", "cond_noise"))
        return replace(self, **{**others, **_own_fields(self, values)})

    def check(self) -> None:
        """Refuse values that can't be, or don't go together."""
        _require_sources(image=self.image, video_to_edit=self.video)
        image, video = self.image is not None, self.video is not None
        taken = self.cond is not None or self.cond_noise is not None
        if image and video:
            raise UsageError("`image` and `video` can't both be given", "give one of them")
        number_of("strength", self.strength, Range(0.001, 1, "0.001 to 1 (all is redone)"))
        if self.strength is not None and not video:
            raise UsageError("`strength` is for `video`", "name a video to edit with `video`")
        if taken and not image:
            hint = "name an image with `image`"
            raise UsageError("`cond` and `cond_noise` are for `image`", hint)
        if self.fit and not image and not video:
            raise UsageError("`fit` is for `image` and `video`", "name one of them")
        if self.source_fps is not None and not video:
            raise UsageError("`source_fps` is for `video`", "leave it out")
        number_of("source_fps", self.source_fps, SOURCE_FPS)
        cond_or_default(self.cond, self.cond_noise)

    def plan(
        self, model: "PlacedModel", options: Mapping[str, Any], out: str | None, num: int = 1
    ) -> "Plan":
        """What is to be made, its frames read; UrsaError if they can't be, or don't fit it."""
        from ursa_core.clips.cond_frames import CondFrames, read_clip, read_image
        from ursa_core.clips.plan import make_plan

        plan = make_plan(model, options, self.prompt, out, num)
        shape, fps = plan.options.shape, plan.options.fps
        if self.image is not None:
            way = cond_or_default(self.cond, self.cond_noise)
            given = CondFrames({0: read_image(self.image, shape, self.fit)}, *way)
            return replace(plan, cond_frames=given)
        if self.video is not None:
            redone = self.strength or STRENGTH
            edited = read_clip(self.video, shape, self.fit, fps, source_fps=self.source_fps)
            given = CondFrames({0: edited}, "soft", redone)
            return replace(plan, cond_frames=given, strength=redone)
        return plan

    @property
    def title(self) -> str:
        """What the clip is called after."""
        return self.prompt


@dataclass(frozen=True)
class InterpolationOptions:
    """What ``interpolate`` goes between; keyframes are ``IMAGE@FRAME``, or images by frame."""

    first: "Source | None" = None
    last: "Source | None" = None
    keyframes: "list[str] | Mapping[int, Source] | None" = None
    loop: bool = False
    prompt: str = ""
    cond: str | None = None
    cond_noise: float | None = None
    fit: bool = False

    def overridden(self, line: Mapping[str, Any]) -> Self:
        """With the values of a line; its images take the place of all, and of a loop."""
        values = _own_fields(self, line)
        if {"first", "last", "keyframes"} & values.keys():
            values = {"first": None, "last": None, "keyframes": None, "loop": False, **values}
        return replace(self, **values)

    def check(self) -> None:
        """Refuse values that can't be, or don't go together."""
        first, last = self.first, self.last
        cond_or_default(self.cond, self.cond_noise)
        require_text("prompt", self.prompt, may_be_empty=True)
        _require_sources(first_image=first, last_image=last)
        if self.loop and (first is None or last is not None):
            raise UsageError("`loop` goes from `first` back to it", "give `first` and no `last`")
        ends = (first is not None) + (last is not None or self.loop)
        if len(self.placed) + ends < 2:
            hint = "give `first` and `last`, or `first` and `loop`"
            raise UsageError("there is nothing to go between", hint)

    def plan(
        self, model: "PlacedModel", options: Mapping[str, Any], out: str | None, num: int = 1
    ) -> "Plan":
        """What is to be made, the images read; UrsaError if they can't be, or don't fit it."""
        from ursa_core.clips.cond_frames import CondFrames, place_keyframes, read_image
        from ursa_core.clips.plan import make_plan

        stride = model.found.strides.temporal
        plan = make_plan(model, options, self.prompt, out, num)
        if plan.options.frames == 1:
            hint = "ask for more `frames`"
            raise UsageError("a clip of one frame has nothing between its ends", hint)
        if self.loop and options.get("frames") is not None:
            # A loop's end, which shows the first frame again, is made and left out of the file.
            longer = {**options, "frames": options["frames"] + stride, "seed": plan.seed}
            plan = make_plan(model, longer, self.prompt, out, num)
        shape = plan.options.shape
        drop, end = (stride, self.first) if self.loop else (0, self.last)
        places = place_keyframes(
            self.first, end, self.placed, shape.frames - drop, stride, self.loop
        )
        images = {at: read_image(image, shape, self.fit) for at, image in places.items()}
        cond_frames = CondFrames(images, *cond_or_default(self.cond, self.cond_noise))
        return replace(plan, cond_frames=cond_frames, drop=drop)

    @property
    def title(self) -> str:
        """What the clip is called after: its prompt, otherwise its images."""
        between = [str(text).rpartition("@")[0] for text in self.keyframes or []]
        images = (self.first, *between, self.last)
        return self.prompt or " ".join(Path(str(image)).stem for image in images if image)

    @property
    def placed(self) -> "list[tuple[Source, int]]":
        """Images between the ends, and their frames."""
        if isinstance(self.keyframes, Mapping):
            return [(image, frame) for frame, image in sorted(self.keyframes.items())]
        placed: list[tuple[Source, int]] = []
        for text in self.keyframes or ():
            require_text("keyframe", text)
            image, _, frame = text.rpartition("@")
            if not image or not frame.isdecimal() or not frame.isascii() or len(frame) > 7:
                raise UsageError(f"{text} is no keyframe", "give IMAGE@FRAME, as middle.png@8")
            placed.append((image, int(frame)))
        return placed


@dataclass(frozen=True)
class ExtensionOptions:
    """How ``extend`` makes a clip longer."""

    clip: "Source" = ""
    prompts: list[str] | None = None
    seconds: float | None = None
    frames: int | None = None
    before: bool = False
    overlap: int | None = None
    chain: str | None = None
    schedule: str = "together"
    cond: str | None = None
    cond_noise: float | None = None
    fit: bool = False
    source_fps: float | None = None

    def overridden(self, line: Mapping[str, Any]) -> Self:
        """With the values of a line; its length takes the place of either."""
        values = _own_fields(self, line)
        if "prompt" in line:
            if "prompts" in line:
                raise UsageError("prompt and prompts can't both be given", "give one of them")
            values["prompts"] = [line["prompt"]]
        if {"seconds", "frames"} & values.keys():
            values = {"seconds": None, "frames": None, **values}
        return replace(self, **values)

    def check(self) -> None:
        """Refuse values that can't be, whatever the clip and the model are."""
        _require_sources(clip=self.clip)
        for prompt in self.prompts or []:
            require_text("prompt", prompt, may_be_empty=True)
        cond_or_default(self.cond, self.cond_noise)
        if (self.seconds is None) == (self.frames is None):
            raise UsageError("the length of the result isn't clear", "give `seconds` or `frames`")
        number_of("frames", self.frames, Range(1, 1_000_000, "1 to 1000000"))
        in_range = self.seconds is None or 0 < self.seconds <= 100_000
        require(in_range, "seconds", self.seconds, "above 0 to 100000")
        require(self.chain in (None, "tokens", "pixels"), "chain", self.chain, "tokens or pixels")
        number_of("source_fps", self.source_fps, SOURCE_FPS)
        known = self.schedule in ("together", "diagonal")
        require(known, "schedule", self.schedule, "together or diagonal")
