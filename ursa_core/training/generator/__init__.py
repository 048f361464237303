"""Training the generator: batches, objective, loss."""
