"""Scores computed from pixels."""
