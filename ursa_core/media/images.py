"""Images, animations and folders of PNG frames, by Pillow."""

import logging
import math
import re
import warnings
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from ursa_core.errors import DataError
from ursa_core.files import parse_object
from ursa_core.media import sources
from ursa_core.media.frames import Frames
from ursa_core.media.sources import Shown, Source, check_size
from ursa_core.places import regular_file

# It logs what it then raises, and the error is reported anyway.
logging.getLogger("PIL.TiffImagePlugin").setLevel(logging.CRITICAL)

FOLDER_FPS = 25.0  # of a folder that states no rate
_ANIMATED = ("GIF", "PNG", "WEBP", "AVIF")
# Pillow recognises MPEG streams without decoding them, and runs Ghostscript for EPS.
_NOT_BY_PILLOW = ("MPEG", "EPS")
Colour = tuple[int, int, int]


def open_image(path: Path, background: Colour) -> Source | None:
    """The image or animation in a file; None if Pillow doesn't know it, DataError if too large."""
    image = _opened(path)
    if image is None:
        return None
    if image.format in _ANIMATED and getattr(image, "is_animated", False):
        return Source(_animation(path, image, background), metadata=metadata_of(image))
    with image:
        pixels = pixels_of(image, background, str(path))
        shown = ((0.0, lambda: pixels) for _ in range(1))
        return Source(shown, is_still=True, metadata=metadata_of(image))


def open_folder(path: Path, background: Colour) -> Source:
    """The frames of a folder, in the order in which people number them; no frames: DataError."""
    found = [p for p in path.iterdir() if p.suffix.lower() == ".png" and p.name[0] != "."]
    files = sorted(found, key=lambda file: natural_key(file.name))
    if not files:
        raise DataError(f"the folder {path} holds no PNG frames", "give one that does")

    def opened(file: Path) -> Image.Image:
        image = _opened(file)
        if image is None:
            raise ValueError(f"{file.name} is no image")
        return image

    def load(file: Path) -> Frames:
        with opened(file) as image:
            return pixels_of(image, background, str(file))

    with opened(files[0]) as first:
        metadata = metadata_of(first)
        stated = _rate(str(first.info.get("fps", "")))
    fps = stated or FOLDER_FPS
    note = (
        f"{path} states no frame rate and is taken as {fps:g} a second; --source-fps says another"
    )
    shown = ((1 / fps, partial(load, file)) for file in files)
    return Source(shown, False, (fps,), len(files) / fps, metadata, () if stated else (note,))


def natural_key(name: str) -> list[tuple[int, str]]:
    """Key that sorts names by the numbers in them: frame_2 before frame_10."""
    parts = re.findall(r"\d+|\D+", name)
    return [(int(part), part) if part.isdecimal() else (-1, part) for part in parts]


def _rate(text: str) -> float | None:
    with suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    return None


def _opened(path: Path) -> Image.Image | None:
    Image.init()
    formats = [name for name in Image.OPEN if name not in _NOT_BY_PILLOW]
    try:
        # Sizes that Pillow warns of are refused here.
        with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
            image = Image.open(regular_file(path), formats=formats)
    except UnidentifiedImageError:
        return None
    except Image.DecompressionBombError as error:
        raise DataError(f"{path} has too many pixels", "scale it down first") from error
    try:
        check_size(path, image.height, image.width)
    except DataError:
        image.close()
        raise
    return image


def _animation(path: Path, image: Image.Image, background: Colour) -> Shown:
    left = sources.MAX_PIXELS + sources.MOVING_PIXELS_PER_BYTE * path.stat().st_size
    with closing(image):
        # The default image of an APNG may be none of its frames.
        for k in range(int(getattr(image, "default_image", False)), image.n_frames):  # type: ignore[attr-defined]
            image.seek(k)
            # A frame of a GIF that reaches over the canvas makes it larger.
            check_size(path, image.height, image.width, sources.MAX_MOVING_PIXELS)
            left -= image.height * image.width
            if left < 0:
                raise DataError(
                    f"{path} has over {k} frames of {image.height}x{image.width} pixels, too many"
                    f" for its {path.stat().st_size} bytes",
                    "scale it down, or convert it to a film",
                )
            pixels = pixels_of(image, background, str(path))
            seconds = (image.info.get("duration") or 100) / 1000  # as browsers do
            yield float(seconds), lambda pixels=pixels: pixels  # type: ignore[misc]


def pixels_of(image: Image.Image, background: Colour, name: str) -> Frames:
    """RGB uint8 (H, W, 3) of an image's present frame, upright and over a colour.

    Samples without a known white are a DataError, which calls the image by ``name``.
    """
    is_tiff = image.format == "TIFF"
    is_turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    upright = ImageOps.exif_transpose(image) if is_turned else image
    if upright.mode == "F" or (upright.mode == "I" and is_tiff):
        samples = np.asarray(upright)
        if upright.mode == "I" or not (samples.min() >= 0 and samples.max() <= 1):
            fault = f"{name} has 32-bit samples, and doesn't say which of them is white"
            raise DataError(fault, "save it with 8 or 16 bits, or with floats from 0 to 1")
        upright = Image.fromarray(np.rint(samples * 255).astype(np.uint8))
    elif upright.mode.startswith("I"):  # 16-bit grey, which Pillow would saturate
        grey = (np.asarray(upright).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        upright = Image.fromarray(grey)
    if upright.has_transparency_data:
        upright = on_background(upright.convert("RGBA"), background)
    return np.array(upright if upright.mode == "RGB" else upright.convert("RGB"))


def on_background(image: Image.Image, background: Colour) -> Image.Image:
    """An RGBA image over a colour."""
    return Image.alpha_composite(Image.new("RGBA", image.size, (*background, 255)), image)


def metadata_of(image: Image.Image) -> dict[str, Any]:
    """Metadata that an image states."""
    tags = {str(key): value for key, value in image.info.items() if isinstance(value, str)}
    comment = image.info.get("comment", image.info.get("Comment", ""))
    if isinstance(comment, bytes):
        comment = comment.decode("utf-8", "replace")
        tags["comment"] = comment
    description = image.getexif().get(ExifTags.Base.ImageDescription, "")
    return parsed(str(comment or description), tags)


def parsed(comment: str, tags: dict[str, str]) -> dict[str, Any]:
    """The JSON object that ``write_media`` puts into the comment, else the tags as they are."""
    try:
        return parse_object(comment)
    except ValueError:
        return dict(tags)
