"""The transformer that predicts data codes from noisy codes and text."""
