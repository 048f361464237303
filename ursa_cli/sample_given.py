"""What `ursa sample` can be given besides text: a first frame, or a video to edit."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from ursa_cli.options import sampling as shared
from ursa_cli.options import shared as options
from ursa_core.errors import UsageError

if TYPE_CHECKING:
    from ursa_cli.clips import Clip
    from ursa_cli.sample_plan import Plan

STRENGTH = 0.6


@dataclass(frozen=True)
class SampleGiven:
    """Options of given frames, as on the command line; lines of a batch give them as well.

    Attributes:
        image: file of the first frame.
        video: file to edit.
        strength: of the edit; None is `STRENGTH`.
        cond: how the image is taken.
        cond_noise: that it enters with.
        fit: scale and crop.
        source_fps: rate of the video to edit, whatever it says.
    """

    image: str | None = None
    video: str | None = None
    strength: float | None = None
    cond: str | None = None
    cond_noise: float | None = None
    fit: bool = False
    source_fps: float | None = None

    def overridden(self, values: Mapping[str, Any]) -> Self:
        """With other values; an image or video takes the place of either, and of its options."""
        own = self
        if values.get("image") is not None:
            own = replace(own, video=None, strength=None, source_fps=None)
        if values.get("video") is not None:
            own = replace(own, image=None, cond=None, cond_noise=None)
        return replace(own, **values)

    def check(self) -> None:
        """Refuse what can't be, or doesn't go together.

        Raises:
            UsageError: that is so.
        """
        image, video, strength = self.image, self.video, self.strength
        options.require_text("image", image)
        options.require_text("video to edit", video)
        if image is not None and video is not None:
            raise UsageError("--image and --video can't both be given", "give one of them")
        in_range = strength is None or 0.001 <= strength <= 1
        options.require(in_range, "--strength", strength, "0.001 to 1 (all is redone)")
        if strength is not None and video is None:
            raise UsageError("--strength is for --video", "name a video to edit with --video")
        if (self.cond is not None or self.cond_noise is not None) and image is None:
            raise UsageError(
                "--cond and --cond-noise are for --image", "name an image with --image"
            )
        if self.fit and image is None and video is None:
            raise UsageError("--fit is for --image and --video", "name one of them")
        if self.source_fps is not None and video is None:
            raise UsageError("--source-fps is for --video", "leave it out")
        shared.check_source_fps(self.source_fps)
        shared.condition(self.cond, self.cond_noise)

    @property
    def start_time(self) -> float:
        """At which sampling starts: above 0 where it refines a clip."""
        return 0.0 if self.video is None else 1 - self._redone

    def clip(self, plan: "Plan") -> "Clip":
        """What is planned, with the files read.

        Raises:
            UrsaError: they can't be read, or don't fit the clip.
        """
        from ursa_cli.clips import Clip
        from ursa_core.clips.given import Given, read_clip, read_image

        shape = plan.settings.shape
        if self.image is not None:
            way = shared.condition(self.cond, self.cond_noise)
            return Clip(plan, Given({0: read_image(self.image, shape, self.fit)}, *way))
        if self.video is not None:
            fps = plan.settings.fps
            edited = read_clip(self.video, shape, self.fit, fps, source_fps=self.source_fps)
            given = Given({0: edited}, "soft", self._redone)
            return Clip(plan, given, strength=self._redone)
        return Clip(plan)

    @property
    def _redone(self) -> float:
        return self.strength or STRENGTH
