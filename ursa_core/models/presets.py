"""Sizes of transformers by name."""

from dataclasses import dataclass

from ursa_core.configs import Whole


@dataclass(frozen=True)
class Size:
    """Widths and depth of a transformer; names as in Qwen3's configuration."""

    hidden_size: Whole
    intermediate_size: Whole
    num_hidden_layers: Whole
    num_attention_heads: Whole
    num_key_value_heads: Whole
    head_dim: Whole = 128


PRESETS = {
    "nano": Size(256, 384, 6, 4, 2, 64),
    "0.6B": Size(1024, 3072, 28, 16, 8),
    "1.7B": Size(2048, 6144, 28, 16, 8),
    "4B": Size(2560, 9728, 36, 32, 8),
}
"""The last three are Qwen3's own sizes, so that its weights can start them."""
