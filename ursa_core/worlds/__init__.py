"""Clips that are drawn, not read."""
