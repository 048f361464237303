"""What making one clip longer will take: for one run, a line of a batch and Python."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from ursa_core.bundle.bundle import Bundle
from ursa_core.clips.clip import Clip
from ursa_core.clips.cond_frames import CondMedia, Tokenizer, label, read_clip, read_tokens
from ursa_core.clips.extend import Extension, default_overlap, extend
from ursa_core.clips.plan import PlacedModel, Plan, make_plan
from ursa_core.clips.prompts import prompt_warnings
from ursa_core.clips.requests import ExtensionOptions, cond_or_default
from ursa_core.clips.round_store import RoundStore
from ursa_core.grids import PixelShape
from ursa_core.media import check_format, read_media
from ursa_core.media.quality import psnr
from ursa_core.sampling.denoise import OnStep


@dataclass(frozen=True)
class ExtendPlan:
    """Everything that is known before the weights are loaded; the plan's rate is the file's."""

    plan: Plan
    extension: Extension
    media: CondMedia
    warnings: list[str]

    @property
    def provenance(self) -> dict[str, Any]:
        """What the video is made of; it decides every round."""
        return {
            **self.plan.provenance,
            **asdict(self.extension),
            "prompt": self.extension.prompts[0],
            "given": self.media.provenance,
        }

    @property
    def round_steps(self) -> list[int]:
        """Steps of each round."""
        steps, extension = self.plan.num_steps, self.extension
        return [extension.steps_of(index, steps) for index in range(extension.num_rounds)]

    def prompt_warnings(self, bundle: Bundle) -> list[str]:
        """What the model can't take of the prompts."""
        request = self.plan.request()
        each = (replace(request, prompt=prompt) for prompt in self.extension.prompts)
        return [warning for request in each for warning in prompt_warnings(bundle, request)]

    def make(
        self,
        bundle: Bundle,
        store: RoundStore | None = None,
        on_step: OnStep | None = None,
        on_round: Callable[[bool], None] | None = None,
    ) -> tuple[Clip, list[dict[str, Any]]]:
        """The longer clip and its rounds; the other arguments are those of `extend`."""
        options, media = self.plan.options, self.media
        rounds, frames = extend(
            bundle, media.frames, self.extension, self.plan.request(), store, on_step, on_round,
            media.codes,
        )  # fmt: skip
        return Clip(frames, None, options.fps, self.provenance, options.crf), rounds

    def make_file(
        self,
        bundle: Bundle,
        store: RoundStore,
        out: str,
        on_step: OnStep,
        on_round: Callable[[bool], None] | None = None,
    ) -> dict[str, Any]:
        """Make the clip, write it, and delete what was kept for it.

        Returns:
            Metrics: ``kept``, how near the clip's own frames are in the file (PSNR None where it
            can't be measured), and ``rounds``.
        """
        clip, rounds = self.make(bundle, store, on_step, on_round)
        clip.save(out)
        store.remove()
        extension, media = self.extension, self.media
        start = extension.frames - extension.own_frames if extension.before else 0
        written = read_media(out).frames
        part = written[start : start + extension.own_frames]
        # Animations join equal frames, and reading may count them differently.
        is_whole = len(written) == extension.frames
        kept = {
            "file": media.file,
            "frame": start,
            "frames": extension.own_frames,
            "psnr": psnr(part, media.frames) if is_whole else None,
        }
        return {"kept": [kept], "rounds": rounds}


def plan_extension(
    model: PlacedModel,
    options: Mapping[str, Any],
    wanted: ExtensionOptions,
    out: str | None,
    tokenizer: Tokenizer,
) -> ExtendPlan:
    """What making a clip longer, as ``wanted`` and checked, will take, the clip read.

    Whether ``out`` can be written is the caller's to check; ``tokenizer`` is asked for where the
    clip is a token file.

    Raises:
        UrsaError: It can't be made.
    """
    # `frames` counts those of the result; a round has the model's own.
    options = {**options, "frames": None, **model.found.settings.extending(options)}
    plan = make_plan(model, options, (wanted.prompts or [""])[0])
    plan.check_memory()
    shape, stride, source = plan.options.shape, model.found.strides.temporal, wanted.clip
    size = PixelShape(1, shape.height, shape.width)
    own_fps: float | None = options.get("fps")
    if label(source).lower().endswith(".safetensors"):
        media = read_tokens(label(source), size, tokenizer)
    else:
        media = read_clip(source, size, wanted.fit, own_fps, True, wanted.source_fps)
    fps = own_fps or media.fps or plan.options.fps
    warnings = [*model.found.notes, *media.notes]
    if fps != plan.options.fps:
        warnings.append(
            f"{media.file} has {fps:g} frames a second and the model makes"
            f" {plan.options.fps:g}: motion will change its speed"
        )
    recorded = media.metadata.get("prompt")
    overlap = default_overlap(shape.frames, stride) if wanted.overlap is None else wanted.overlap
    best = "pixels" if wanted.before else model.found.settings.chain
    cond, cond_noise = cond_or_default(wanted.cond, wanted.cond_noise)
    extension = Extension(
        own_frames=len(media.frames),
        frames=wanted.frames or round((wanted.seconds or 0) * fps),
        window=shape.frames,
        overlap=overlap,
        prompts=tuple(wanted.prompts or [recorded if isinstance(recorded, str) else ""]),
        before=wanted.before,
        chain="tokens" if (wanted.chain or best) == "tokens" else "pixels",
        schedule="diagonal" if wanted.schedule == "diagonal" else "together",
        stride=stride,
        cond=cond,
        cond_noise=cond_noise,
    )
    extension.check()
    if out is not None:
        check_format(out, PixelShape(extension.frames, shape.height, shape.width), fps)
    plan = replace(plan, options=replace(plan.options, fps=fps))
    return ExtendPlan(plan, extension, media, warnings)
