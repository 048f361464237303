"""How much is computed at once; the memory estimate uses the same numbers."""

MAX_TABLE_ENTRIES = 1 << 27
"""Largest table of distances: (classes × codes) entries of two bytes each."""
MLP_ROWS = 4096
"""Positions per pass through a network's MLP."""
SLICE_PIXELS = 1 << 21
"""Pixels decoded at once, or those of one latent frame if there are more."""
