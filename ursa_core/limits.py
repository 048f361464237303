"""How much is computed at a time; the memory estimate counts with the same numbers."""

MAX_TABLE_ENTRIES = 1 << 27
"""Largest table of distances: (classes × codes) entries of two bytes each."""
MLP_ROWS = 4096
"""Positions that go through a network's MLP at a time."""
SLICE_PIXELS = 1 << 21
"""Pixels that are decoded at a time, at least those of one latent frame."""
