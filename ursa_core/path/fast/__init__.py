"""The same draws as the plain step, without tensors over all codes."""
