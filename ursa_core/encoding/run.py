"""Runs of ``ursa tokenize``: one clip into a token file, or many into a folder of shards."""

import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ursa_core
from ursa_core.bundle.bundle import load_tokenizer, resolve_model
from ursa_core.bundle.hub import name_of
from ursa_core.bundle.settings import BundleSettings, load_settings, motion_prompt
from ursa_core.bundle.subjects import save_subjects
from ursa_core.devices import pick_device
from ursa_core.encoding.caption_fit import CaptionFit, measure_captions
from ursa_core.encoding.cuts import ClipCut, Dropped
from ursa_core.encoding.encode import Encoder, Tokenizing, encode_clips, measure, token_identity
from ursa_core.encoding.items import Item, find_items
from ursa_core.encoding.on_ray import OnRay, RayTokenizing
from ursa_core.encoding.options import PROCEDURAL, TokenizeOptions
from ursa_core.encoding.origins import Comparison, compare
from ursa_core.encoding.report import ItemResult, TokenizeReport, summary
from ursa_core.encoding.sources import MediaFile
from ursa_core.errors import CheckpointError, DataError, UsageError
from ursa_core.grids import PixelShape
from ursa_core.parts import Part
from ursa_core.tokenizers.text import TextTokenizer
from ursa_core.tokenizers.video_fsq import VideoTokenizer
from ursa_core.tokens.token_files import save_tokens
from ursa_core.tokens.writer import ShardWriter, remove_shards
from ursa_core.worlds.sprites import load_sprites

NUM_DRAWN_CHECKED = 16


def load_encoder(model: str | Path, options: TokenizeOptions, device: str = "auto") -> Encoder:
    """The tokenizer of a model, and the cut that the options ask for, if they fit each other."""
    folder = resolve_model(model)
    tokenizer, settings, digest = load_tokenizer(folder, pick_device(device))
    name = name_of(folder, exact=True)
    cut = clip_cut(options, settings)
    cut.check(tokenizer.strides)
    if options.refine and not isinstance(tokenizer, VideoTokenizer):
        fault = f"the model {name} has an image tokenizer, whose codes can't be refined"
        raise UsageError(fault, "leave out the refinement")
    return Encoder(name, folder, tokenizer, digest, cut, options.refine)


def clip_cut(options: TokenizeOptions, settings: BundleSettings) -> ClipCut:
    """The cut that options ask for, with a model's settings for what they leave open."""
    first, *others = options.size or [(settings.height, settings.width)]
    rate, shape = options.fps or settings.fps, PixelShape(options.frames or settings.frames, *first)
    counts = (options.stride or 1, options.clips_per_file or 1)
    bounds, crops = (options, options.source_fps), options.crops
    return ClipCut(rate, shape, options.clips, *counts, tuple(others), *bounds, crops=crops)


def fit_captions(items: Sequence[Item], encoder: Encoder) -> CaptionFit | CheckpointError | None:
    """Loss of the files' captions in the model's text tokenizer, if any, or its fault."""
    captions = [text for item in items if isinstance(item, MediaFile) for text in item.captions]
    folder = encoder.folder / "tokenizer"
    if not captions or not folder.is_dir():
        return None
    settings = load_settings(encoder.folder)
    prefix = motion_prompt(settings.motion, "") if settings.motion_prefix else ""
    try:
        texts = TextTokenizer.load(folder, settings.max_prompt_length)
    except CheckpointError as error:
        return error
    return measure_captions(texts, captions, prefix.__add__)


def tokenize_clip(item: Item, encoder: Encoder, path: Path, check: bool = True) -> ItemResult:
    """Encode one clip into a token file; ``check`` decodes it again and compares."""
    cut, tokenizer = encoder.cut, encoder.tokenizer
    clip = next(item.clips(cut, tokenizer.strides.temporal))
    if isinstance(clip, Dropped):
        raise DataError(f"{clip.name} is {clip.reason}: {clip.found}", "leave out the filter")
    (codes,) = encode_clips(tokenizer, [clip.frames], encoder.refine)
    metadata = {
        "tokenizer": encoder.digest,
        "fps": cut.fps,
        "source": item.name,
        "prompt": clip.captions[0] if clip.captions else "",
        "captions": list(clip.captions),
        "motion": clip.motion,
        **({"refine": encoder.refine} if encoder.refine else {}),
        "version": ursa_core.__version__,
    }
    quality = measure(tokenizer, codes, clip.frames) if check else None
    save_tokens(path, codes, metadata)
    return ItemResult(item.name, "done", quality=quality, notes=clip.notes)


@dataclass
class FolderRun:
    """A run of a process into a folder of shards; iterating over it encodes the clips."""

    encoder: Encoder
    items: list[Item]
    repeats: list[Path]  # inputs that were given twice, and count once
    left_out: list[Path]  # files in folders that are no media of a known suffix, or unreadable
    fit: CaptionFit | CheckpointError | None  # loss of captions, or why it isn't known
    found: Comparison
    report: TokenizeReport
    writer: ShardWriter
    _iteration: Generator[tuple[str, list[ItemResult]], None, None]
    results: list[ItemResult] = field(default_factory=list)

    def __iter__(self) -> Iterator[tuple[str, list[ItemResult]]]:
        for name, of_item in self._iteration:
            self.results += of_item
            self.report.add(name, of_item)
            yield name, of_item

    def close(self) -> None:
        """Write the items that are done, and stop."""
        self._iteration.close()

    def summary(self) -> dict[str, Any]:
        """Counts, means and measured clips of the whole run."""
        return {**self.found.to_json(self.writer.folder), **summary(self.results)}


@contextmanager
def tokenizing(
    inputs: Sequence[str],
    out: Path,
    encoder: Encoder,
    options: TokenizeOptions,
    part: Part = Part(),  # noqa: B008  (frozen)
    ray: OnRay | None = None,
) -> Iterator[FolderRun]:
    """A run over a part of the inputs, compared with what the folder holds, ready to iterate."""
    repeats: list[Path] = []
    left_out: list[Path] = []
    sprites = load_sprites(options.data) if options.data is not None else None
    items = find_items(
        inputs, options.num, options.seed, encoder.cut.fps, repeats.append, sprites, left_out.append
    )
    fit = fit_captions(items, encoder)
    check = options.check
    if check is None and any(given.startswith(PROCEDURAL) for given in inputs):
        check = NUM_DRAWN_CHECKED
    identity = token_identity(encoder.tokenizer, encoder.digest)
    record = encoder.cut.to_json() | ({"refine": encoder.refine} if encoder.refine else {})
    with TokenizeReport(out, part) as report:  # from here on nobody else does the part
        if options.fresh:
            remove_shards(out)
        writer = ShardWriter(out, identity, record, part=part)
        report.begin(writer.settings, keep=not options.fresh)
        work = Tokenizing(encoder.tokenizer, encoder.cut, writer, check, encoder.refine)
        if ray is not None:
            work = RayTokenizing(ray, encoder, writer, check)
        names = {encoder.cut.item_of(clip) for clip in writer.done} | report.dropped_names
        made = writer.made | report.dropped
        found = compare(items, names, made, out, part.owns, options.drop_gone)
        own = [item for index, item in enumerate(items) if part.owns(index)]
        with closing(work.run(own, found)) as iteration:
            about = (repeats, left_out, fit, found, report, writer)
            yield FolderRun(encoder, own, *about, iteration)
    if sprites is not None and part.number == 1 and writer.num_clips:
        save_subjects(out, sprites.subjects)  # a generator's bundle lists what it can draw


def tokenize(
    inputs: Sequence[str | Path],
    out: str | Path,
    options: TokenizeOptions = TokenizeOptions(),  # noqa: B008  (frozen)
    *,
    model: str | Path = "emoji",
    device: str = "auto",
) -> FolderRun:
    """Encode clips of files and folders into a folder of shards; a stopped run continues.

    Skipped files and captions that the model can't take are warnings; what can't be used at all is
    an UrsaError.

    Args:
        inputs: Files, folders, manifests, or procedural inputs such as ``shapes:train``.
        out: Folder of the shards.
        options: How clips are cut and filtered.
        model: Name, folder or Hugging Face id of the model whose tokenizer encodes.
        device: Device to encode on.
    """
    given = [str(each) for each in inputs]
    options.refuse(given)
    with tokenizing(given, Path(out), load_encoder(model, options, device), options) as run:
        if isinstance(run.fit, CaptionFit):
            for text in run.fit.warnings(run.encoder.model):
                warnings.warn(text, stacklevel=3)
        for _, results in run:
            for result in results:
                if result.status == "skipped":
                    warnings.warn(f"skipped: {result.reason}", stacklevel=3)
    return run
