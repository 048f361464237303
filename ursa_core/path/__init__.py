"""Probability paths from noise to data over discrete codes."""
