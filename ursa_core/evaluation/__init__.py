"""Suites, their layouts and scores, and reports of them."""
