"""Prompt suites: their lists, layouts and judges."""
