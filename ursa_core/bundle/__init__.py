"""A model folder: on disk, on the hub, in memory."""
