"""The commands under `ursa eval`."""
