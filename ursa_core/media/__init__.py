"""Video and images in and out; frames are uint8 arrays (F, H, W, 3)."""

from ursa_core.media.frames import Clip, Frames, contact_sheet, resize_and_crop, to_frames, to_video
from ursa_core.media.reading import measure_length, open_media, read_media
from ursa_core.media.writing import FORMATS, check_format, check_output, write_media

__all__ = [
    "FORMATS", "Clip", "Frames", "check_format", "check_output",
    "contact_sheet", "measure_length", "open_media", "read_media", "resize_and_crop", "to_frames",
    "to_video", "write_media",
]  # fmt: skip
