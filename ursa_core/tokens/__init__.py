"""Codes on disk: token files and token shards."""
