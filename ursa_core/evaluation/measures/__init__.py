"""Measures of clips, tokenizers and paths."""
