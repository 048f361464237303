"""Sizes of transformers by name."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """Widths and depth of a transformer; names as in Qwen3's configuration."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int = 128


PRESETS = {
    "nano": Size(256, 384, 6, 4, 2, 64),
    "0.6B": Size(1024, 3072, 28, 16, 8),
    "1.7B": Size(2048, 6144, 28, 16, 8),
    "4B": Size(2560, 9728, 36, 32, 8),
}
"""The last three are Qwen3's own sizes, so that its weights can start them."""
