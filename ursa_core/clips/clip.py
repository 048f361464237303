"""A clip that was made: its frames, its codes and what it was made by; and how it is made."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ursa_core.bundle.bundle import Bundle
from ursa_core.clips.outputs import Target, is_preview, preview_path, targets
from ursa_core.clips.plan import Plan
from ursa_core.errors import UsageError
from ursa_core.grids import LatentGrid, PixelShape
from ursa_core.media import Frames, check_output, read_media, write_media
from ursa_core.places import delete
from ursa_core.sampling.denoise import OnStep
from ursa_core.sampling.generate import decode, generate
from ursa_core.tokens.token_files import load_tokens_of, save_tokens


@dataclass(frozen=True, eq=False)
class Clip:
    """A clip that was made.

    An extended clip has no codes, since its length needn't fit the latent grid.
    """

    frames: Frames = field(repr=False)  # uint8 (F, height, width, 3)
    codes: Tensor | None = field(repr=False)  # int64 (F, H, W) on the CPU
    fps: float  # frames per second
    metadata: Mapping[str, Any]  # what it was made by, as its file records it
    crf: int = 18  # quality of an mp4, 0 (lossless) to 51

    def save(self, path: str | Path) -> None:
        """Write the clip, with its options inside; a file that is there is replaced.

        Args:
            path: Path ending in .mp4, .mkv (lossless), .gif, .webp or .png; without an extension
                it is a folder of PNG frames.

        Raises:
            UsageError: The format can't hold the clip, or the name is none for a file.
            DataError: It can't be written.
        """
        if "\0" in str(path):
            raise UsageError(f"{str(path)!r} is no name for a video", "leave the NUL out")
        (target,) = targets(str(path), None, 1)
        check_output(target.media, True, PixelShape(*self.frames.shape[:3]), self.fps)
        write_media(path, self.frames, self.fps, self.metadata, self.crf)


@contextmanager
def previews(
    bundle: Bundle, grid: LatentGrid, outputs: Sequence[str | Path], every: int
) -> Iterator[OnStep]:
    """Writes, every so many steps, the first frame of the present estimate next to each output.

    The estimate x_1 (B, L) are the codes drawn for the step. A causal tokenizer decodes the first
    latent frame alone, so a preview costs a fraction of the clip. A picture is replaced whole, and
    deleted once the clip is sampled.
    """
    paths = [preview_path(output) for output in outputs]

    def take(step: int, x_1: Tensor) -> None:
        for path, codes in zip(paths, x_1, strict=True) if every and step % every == 0 else ():
            first = codes[: grid.codes_per_frame].view(1, grid.rows, grid.columns)
            write_media(path, decode(bundle, first), 1, {"step": step})

    yield take
    for path in filter(is_preview, paths):
        with suppress(OSError):
            delete(path)


def decoded(bundle: Bundle, plan: Plan, codes: Tensor, index: int = 0) -> Clip:
    """The clip of codes int64 (F, H, W) that were sampled by a plan."""
    options, frames = plan.options, plan.shown(decode(bundle, codes))
    return Clip(frames, codes.cpu(), options.fps, plan.metadata(index), options.crf)


def kept_frames(plan: Plan, path: str | Path, made: Frames | None = None) -> dict[str, Any]:
    """``kept``, how near a file that is written is to the frames given; empty without any."""
    if plan.cond_frames is None:
        return {}
    written = read_media(path).frames
    if made is not None and len(written) != len(made):
        written = made  # animations join equal frames, and reading may count them differently
    return {"kept": plan.cond_frames.kept(written)}


def make_files(
    bundle: Bundle,
    plan: Plan,
    written: Sequence[Target],
    first: int = 0,
    there: Collection[str] = (),
    on_step: Callable[..., None] = lambda *_, **__: None,
    preview: int = 0,
) -> Iterator[dict[str, Any]]:
    """Make the clips of a plan, from index ``first`` on, and write them, one after the other.

    Files ``there``, which a stopped run has left, are kept. ``on_step`` is called with a number of
    steps after they are made, with ``earlier=True`` for those of a stopped run. ``preview`` counts
    the steps from one preview to the next; 0 is none. Yields per clip its ``path``, ``tokens``,
    ``index`` and, where frames were given, ``kept``.
    """
    identity, conditioning = plan.model.tokenizer, plan.conditioning(bundle)
    grid = bundle.grid(plan.options.shape)
    for index, target in enumerate(written, start=first):
        entry = {"path": target.media, "tokens": target.tokens, "index": index}
        if target.files[0] in there:
            on_step(plan.num_steps, earlier=True)
        if target.media in there:
            yield {**entry, **kept_frames(plan, target.media)}
            continue
        if target.tokens is not None and target.tokens in there:
            codes = load_tokens_of(target.tokens, identity).codes
        else:
            request = plan.request(index)
            with previews(bundle, grid, [target.media], preview) as take:
                codes = generate(bundle, request, lambda *_: on_step(1), take, conditioning)
            if target.tokens is not None:
                save_tokens(target.tokens, codes, {**plan.metadata(index), "tokenizer": identity})
        clip = decoded(bundle, plan, codes, index)
        clip.save(target.media)
        yield {**entry, **kept_frames(plan, target.media, clip.frames)}
