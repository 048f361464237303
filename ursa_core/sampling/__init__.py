"""Solvers that walk a probability path from noise to data."""
