"""The tokenizers of pixels that a model folder may hold, and decoding within the memory."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ursa_core.configs import IMAGE_CLASS, VIDEO_CLASS
from ursa_core.errors import CheckpointError
from ursa_core.grids import SLICE_PIXELS
from ursa_core.media import Frames, to_frames
from ursa_core.tokenizers.image_vq import ImageTokenizer, ImageTokenizerConfig
from ursa_core.tokenizers.video_fsq import VideoTokenizer, VideoTokenizerConfig

VisualTokenizer = VideoTokenizer | ImageTokenizer


def build_visual_tokenizer(
    config: dict[str, Any], check_depth: Callable[[str, str, int, int], None] = lambda *_: None
) -> VisualTokenizer:
    """The tokenizer, without weights, that a ``vae/config.json`` describes, else CheckpointError.

    ``check_depth`` refuses too many layers before they are built, as in ``bundle.weights``.
    """
    name = config.get("_class_name")
    if name not in (VIDEO_CLASS, IMAGE_CLASS):
        raise CheckpointError(
            f"vae/config.json describes a {name!r}, which is no tokenizer of ursa's",
            f"this version reads {VIDEO_CLASS} (video) and {IMAGE_CLASS} (images)",
        )
    kind = VideoTokenizerConfig if name == VIDEO_CLASS else ImageTokenizerConfig
    read = kind.from_json(config)
    stages = len(read.block_out_channels)
    check_depth("vae/config.json", "layers_per_block", read.layers_per_block, stages)
    if isinstance(read, VideoTokenizerConfig):
        return VideoTokenizer(read)
    return ImageTokenizer(read)


@torch.inference_mode()
def decode_frames(tokenizer: VisualTokenizer, codes: Tensor) -> Frames:
    """Frames uint8 (F, height, width, 3) of codes int64 (f, h, w), decoded slice by slice.

    Where the device's memory doesn't suffice, it decodes single latent frames, and then on the CPU.
    """
    strides = tokenizer.strides
    frame_pixels = strides.temporal * strides.spatial**2 * codes[0].numel()
    size = max(1, SLICE_PIXELS // frame_pixels)
    device = next(tokenizer.parameters()).device
    for place, latent_frames in ((device, size), (device, 1)):
        try:
            return _decode(tokenizer, codes.to(place), latent_frames)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
    try:
        return _decode(tokenizer.to("cpu"), codes.cpu(), 1)
    finally:
        tokenizer.to(device)


def _decode(tokenizer: VisualTokenizer, codes: Tensor, size: int) -> Frames:
    slices = tokenizer.decode_slices(codes.unsqueeze(0), size)
    return np.concatenate([to_frames(part) for part in slices])
