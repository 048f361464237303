"""A clip as it is planned, with the frames that it is given: told, made and written."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ursa_cli.sample_plan import check_begun
from ursa_cli.terminal import output

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from ursa_cli.options.sampling import SamplingOptions
    from ursa_cli.sample_plan import Plan
    from ursa_core.bundle.bundle import Bundle
    from ursa_core.clips.given import Given
    from ursa_core.grids import LatentGrid
    from ursa_core.media import Frames
    from ursa_core.sampling.conditioning import Conditioning


@dataclass(frozen=True)
class Clip:
    """What is to be made.

    Attributes:
        plan: of sampling, and where to.
        given: frames that each of its videos is given.
        drop: frames at the end of what is made that aren't written.
        strength: of an edit; None where what is given is no video to edit.
    """

    plan: "Plan"
    given: "Given | None" = None
    drop: int = 0
    strength: float | None = None

    def __post_init__(self) -> None:
        """Refuse what is given, if it leaves nothing to make."""
        if self.given is not None:
            strides = self.plan.model.found.strides
            self.given.check(strides.grid(self.plan.settings.shape), strides.temporal)

    @property
    def provenance(self) -> dict[str, Any]:
        """What the videos are made of, as their metadata record it."""
        told = self.plan.provenance
        if self.given is not None:
            told |= {"given": self.given.provenance}
        if self.drop:
            told |= {"dropped_frames": self.drop}
        if self.strength is not None:
            told |= {"strength": self.strength}
        return told

    def conditionings(self, bundle: "Bundle", grid: "LatentGrid") -> "list[Conditioning]":
        """What one video is given, encoded; empty if it is given nothing."""
        return [] if self.given is None else [self.given.conditioning(bundle, grid)]

    def write(
        self, bundle: "Bundle", codes: "Tensor", path: "str | Path", metadata: "Mapping[str, Any]"
    ) -> dict[str, Any]:
        """Decode and write one video, and tell how near it is to what was given.

        Args:
            bundle: the model.
            codes: int64 (F, H, W).
            path: of the video.
            metadata: that it records.

        Returns:
            ``kept``, where something was given.
        """
        from ursa_core.media import write_media
        from ursa_core.sampling.generate import decode

        frames = decode(bundle, codes)
        if self.given is not None:
            frames = self.given.shown(frames)
        frames = frames[: len(frames) - self.drop]
        write_media(path, frames, self.plan.settings.fps, metadata, self.plan.crf)
        return self.kept(path, frames)

    def kept(self, path: "str | Path", made: "Frames | None" = None) -> dict[str, Any]:
        """How near a video that is written is to what was given, as ``write`` tells it."""
        from ursa_core.media import read_media

        if self.given is None:
            return {}
        written = read_media(path).frames
        # Animations join equal frames, and reading may count them differently.
        kept = self.given.kept(written if made is None or len(written) == len(made) else made)
        tell_kept(kept)
        return {"kept": kept}


def run(
    clip: Clip,
    sampling: "SamplingOptions",
    preview: int = 0,
    there: "Mapping[str, Mapping[str, Any]]" = MappingProxyType({}),
) -> None:
    """Make what is planned, or print the plan with ``--dry-run``.

    Args:
        clip: of what, and where to.
        sampling: as given.
        preview: steps from one preview to the next; 0 is none.
        there: files of it that a stopped run has left, and what they say they were made by.

    Raises:
        UrsaError: it can't be made.
    """
    clip.plan.check_memory()
    for index, target in enumerate(clip.plan.targets, start=clip.plan.first):
        for file in target.files:
            if file in there:
                check_begun(file, there[file], {**clip.provenance, "index": index})
    if not sampling.dry_run:
        _make(clip, sampling.seed is None, preview, there)
        return
    payload, lines = clip.plan.described()
    if clip.given is not None:
        given = clip.given
        lines += [
            f"{'given':<10}{media.file}, from frame {at}, {given.cond}, noise {given.cond_noise:g}"
            for at, media in given.media.items()
        ]
    output.data({**payload, **clip.provenance}, lines=lines, paths=payload["outputs"])


def _make(clip: Clip, tell_seed: bool, preview: int, there: "Collection[str]") -> None:
    """Generate, decode and write, one video after the other."""
    from ursa_cli.prompt_warnings import prompt_warnings
    from ursa_core.bundle.bundle import tokenizer_identity
    from ursa_core.clips.preview import Preview
    from ursa_core.sampling.generate import generate, pixel_shape
    from ursa_core.tokens.token_files import load_tokens_of, save_tokens

    plan, wanted, provenance = clip.plan, clip.plan.wanted, clip.provenance
    bundle = plan.model.load()
    notes = [] if clip.given is None else clip.given.notes
    for warning in (*notes, *prompt_warnings(bundle, wanted)):
        output.warn(warning)
    identity = tokenizer_identity(bundle.folder)
    grid = bundle.grid(pixel_shape(bundle, wanted))
    if tell_seed or there:
        output.note(f"seed {wanted.seed}")
    if there:
        output.note(f"going on with what is there: {', '.join(there)}")
    conditioning = next(iter(clip.conditionings(bundle, grid)), None)
    outputs = []
    with output.progress(plan.num_steps * len(plan.targets), "sample") as advance:
        for index, target in enumerate(plan.targets, start=plan.first):
            entry = {"path": target.media, "tokens": target.tokens, "index": index}
            if target.files[0] in there:
                advance(plan.num_steps, earlier=True)
            if target.media in there:
                outputs.append({**entry, **clip.kept(target.media)})
                continue
            pictures = Preview(bundle, grid, [target.media], preview)
            metadata = {**provenance, "index": index}
            if target.tokens is not None and target.tokens in there:
                codes = load_tokens_of(target.tokens, identity).codes
            else:
                (made,) = generate(
                    bundle, wanted, lambda *_: advance(), pictures, [index], conditioning
                )
                codes = made.codes
                pictures.remove()
                if target.tokens is not None:
                    save_tokens(target.tokens, codes, {**metadata, "tokenizer": identity})
            outputs.append({**entry, **clip.write(bundle, codes, target.media, metadata)})
    output.data({**provenance, "outputs": outputs}, paths=[entry["path"] for entry in outputs])


def tell_kept(kept: "Sequence[Mapping[str, Any]]") -> None:
    """Say how near the given frames came out, where that can be told."""
    for row in kept:
        if row["psnr"] is None:
            continue
        last = row["frame"] + row["frames"] - 1
        where = f"frame {last}" if row["frames"] == 1 else f"frames {row['frame']} to {last}"
        output.note(f"kept {where} of {row['file']} at {row['psnr']:.1f} dB")
