"""Tuning of a generator to rewards: rollouts, advantages and loss."""
