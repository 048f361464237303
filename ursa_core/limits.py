"""Bounds that several rooms share: how much is computed at once, and what a path can be."""

MAX_TABLE_ENTRIES = 1 << 27
"""Largest table of distances: (classes × codes) entries of two bytes each."""
TABLE_BYTES = 3
"""Bytes of that table per entry, with what its classes hold beside."""
MLP_ROWS = 4096
"""Positions per pass through a network's MLP."""
SLICE_PIXELS = 1 << 21
"""Pixels decoded at once, or those of one latent frame if there are more."""
ALPHA_RANGE = (0.01, 100.0)
C_RANGE = (1e-4, 1e4)
"""Ranges of a path's alpha and c, where its sharpness stays finite in all that is computed."""
