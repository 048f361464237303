"""Draws from the distributions of the metric path, without tensors over all codes."""
