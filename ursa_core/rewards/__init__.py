"""Rewards: scores of clips by their prompts, which the trainer is handed as callables."""
