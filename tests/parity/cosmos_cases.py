"""Small tokenizers of NVIDIA's whose weights and clips follow from a formula (autoencoder_cases).

`make_cosmos_cases.py` runs NVIDIA's code on them, `test_cosmos_parity.py` ours.
"""

from dataclasses import dataclass

FIRST, LATER = "cosmos_tokenizer", "cosmos_predict1.tokenizer"
"""NVIDIA's packages: of Cosmos 0.1, and of Cosmos-Tokenize1."""


@dataclass(frozen=True)
class CosmosCase:
    """Changes to a package's published configuration, and the shape of a clip that it encodes."""

    package: str
    published: str
    stride: tuple[int, int]
    shape: tuple[int, int, int]
    patch_size: int
    changes: dict[str, int | list[int]]
    salt: int = 0


CASES = {
    "first_4x8x8": CosmosCase(
        FIRST, "DV", (4, 8), (9, 16, 24), 4, {"channels": 4, "z_channels": 6}
    ),
    "first_8x8x8": CosmosCase(
        FIRST,
        "DV",
        (8, 8),
        (9, 16, 16),
        4,
        {"channels": 4, "z_channels": 5, "channels_mult": [3, 2, 4], "num_res_blocks": 1},
    ),
    "later_8x16x16": CosmosCase(
        LATER,
        "DV8x16x16_720p",
        (8, 16),
        (9, 32, 32),
        4,
        {"channels": 4, "z_channels": 6, "num_res_blocks": 1},
    ),
    "later_4x8x8": CosmosCase(
        LATER,
        "DV4x8x8_360p",
        (4, 8),
        (9, 24, 16),
        2,
        {"channels": 4, "z_channels": 8, "num_res_blocks": 1},
    ),
}
FULL = {
    "first_full": CosmosCase(FIRST, "DV", (4, 8), (9, 16, 16), 4, {}),
    "later_full": CosmosCase(LATER, "DV4x8x8_360p", (4, 8), (9, 16, 16), 2, {}),
}
"""The published DV4x8x8 tokenizers, of which names and shapes are compared."""
