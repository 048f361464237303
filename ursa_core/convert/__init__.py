"""Foreign checkpoints, turned into this project's files."""
