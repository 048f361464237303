"""The tokenizers of pixels that a model folder may hold, by the class that its config names."""

from typing import Any

from ursa_core.errors import CheckpointError
from ursa_core.tokenizers.image_vq import ImageTokenizer, ImageTokenizerConfig
from ursa_core.tokenizers.video_fsq import VideoTokenizer, VideoTokenizerConfig

VisualTokenizer = VideoTokenizer | ImageTokenizer
VIDEO_CLASS = "AutoencoderVQCosmos3D"
IMAGE_CLASS = "AutoencoderVQ"


def build_visual_tokenizer(config: dict[str, Any]) -> VisualTokenizer:
    """The tokenizer, without a checkpoint's weights, that a ``vae/config.json`` describes.

    Raises:
        CheckpointError: an unknown class, or a config that makes no network.
    """
    name = config.get("_class_name")
    if name == VIDEO_CLASS:
        return VideoTokenizer(VideoTokenizerConfig.from_json(config))
    if name == IMAGE_CLASS:
        return ImageTokenizer(ImageTokenizerConfig.from_json(config))
    raise CheckpointError(
        f"vae/config.json describes a {name!r}, which is no tokenizer of ursa's",
        f"this version reads {VIDEO_CLASS} (video) and {IMAGE_CLASS} (images)",
    )
