"""Tokenizers: pixels to codes and back, text to ids."""
