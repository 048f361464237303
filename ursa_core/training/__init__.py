"""Trainers, objectives, checkpoints."""
