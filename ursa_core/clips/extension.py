"""How a clip is made longer: what is asked for, and whether it can be done."""

from dataclasses import dataclass
from typing import Literal

from ursa_core.errors import DataError, ShapeError, UsageError
from ursa_core.sampling.conditioning import Cond
from ursa_core.sampling.rolling import stage_steps

Chain = Literal["tokens", "pixels"]
Schedule = Literal["together", "diagonal"]


@dataclass(frozen=True)
class Extension:
    """How a clip is made longer.

    Attributes:
        own_frames: Number of frames of the clip.
        frames: Number of frames of the result.
        window: Frames that a round makes, those that it is given among them.
        overlap: Frames that a round is given, 1 + a multiple of the temporal stride.
        prompts: One per segment; segments take even shares of the rounds.
        before: Make what comes before the clip instead of what follows.
        chain: Whether rounds chain in ``tokens`` or in ``pixels``.
        schedule: The new frames of a round go ``together``, or on a rolling ``diagonal`` on which
            earlier ones are ahead in time, and a round ends with the first of them.
        stride: The model's temporal stride.
        cond: ``soft`` or ``lock``.
        cond_noise: Noise in [0, 1] that given frames enter with.
    """

    own_frames: int
    frames: int
    window: int
    overlap: int
    prompts: tuple[str, ...]
    before: bool
    chain: Chain
    schedule: Schedule
    stride: int
    cond: Cond
    cond_noise: float

    def check(self) -> None:
        """Refuse what can't be made.

        Raises:
            UsageError: The result isn't longer than the clip, the prompts outnumber the rounds, or
                what comes before, or a diagonal, is to chain in a way that it can't.
            ShapeError: The overlap doesn't fit the stride or leaves nothing to make.
            DataError: The clip is shorter than the overlap.
        """
        if (self.overlap - 1) % self.stride or not 1 <= self.overlap < self.window:
            fitting = range(1, self.window, self.stride)
            raise ShapeError(
                f"an overlap of {self.overlap} frames can't be used",
                f"use one of {', '.join(map(str, fitting))}" if fitting else "use a video model",
            )
        if self.before and self.chain == "tokens":
            raise UsageError(
                "what comes before a clip can't chain in tokens: its first latent frame would have"
                " to stand for more than one frame",
                "add `chain=pixels`",
            )
        if self.schedule == "diagonal" and self.chain == "pixels":
            raise UsageError(
                "a rolling diagonal can't chain in pixels: its frames are at different times",
                "add `chain=tokens`",
            )
        if self.schedule == "diagonal" and self.cond == "soft" and self.cond_noise > 0:
            raise UsageError(
                "frames given to a rolling diagonal are done, and can't be refined",
                "leave out `cond=soft`",
            )
        if self.before and self.overlap == 1:
            raise ShapeError(
                "an overlap of 1 frame gives nothing to make what comes before it",
                f"use {1 + self.stride} or more",
            )
        if self.own_frames < self.overlap:
            count = f"{self.own_frames} frame{'s' * (self.own_frames != 1)}"
            raise DataError(
                f"the clip has {count}, fewer than the overlap of {self.overlap}",
                "give a longer clip or a smaller `overlap`",
            )
        if self.frames <= self.own_frames:
            raise UsageError(
                f"the clip has {self.own_frames} frames, so {self.frames} don't extend it",
                "ask for more frames or seconds; they count the clip's own",
            )
        if len(self.prompts) > self.num_rounds:
            rounds = f"{self.num_rounds} round{'s' * (self.num_rounds != 1)}"
            raise UsageError(
                f"{len(self.prompts)} prompts can't share {rounds}",
                "give fewer prompts, or make the video longer",
            )

    @property
    def frames_per_round(self) -> int:
        """New frames of a round."""
        return self.stride if self.schedule == "diagonal" else self.window - self.overlap

    @property
    def num_given(self) -> int:
        """Latent frames that a round is given in tokens."""
        return 1 + (self.overlap - 1) // self.stride

    @property
    def num_rounds(self) -> int:
        """Rounds that the result takes; the last one's surplus is cut off."""
        return -(-(self.frames - self.own_frames) // self.frames_per_round)

    def steps_of(self, index: int, steps: int) -> int:
        """Network calls of round ``index``, where a clip takes ``steps``."""
        if self.schedule == "together":
            return steps
        num_new = 1 + (self.window - 1) // self.stride - self.num_given
        return stage_steps(steps, num_new) * (num_new if index == 0 else 1)

    def prompt_of(self, index: int) -> str:
        """What round ``index`` shows."""
        return self.prompts[index * len(self.prompts) // self.num_rounds]


def default_overlap(window: int, stride: int) -> int:
    """About a quarter of the window, as the paper's 13 of 49; at least one stride of frames."""
    return 1 + stride * max(1, round((window * 13 / 49 - 1) / stride))
