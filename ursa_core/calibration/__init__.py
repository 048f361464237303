"""Choosing the sharpness of a path for a codebook, and reporting on it."""
