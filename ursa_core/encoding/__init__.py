"""Media to codes: what `ursa tokenize` does."""
