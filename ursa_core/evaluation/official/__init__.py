"""Scores of the suites' own code, and the published totals."""
