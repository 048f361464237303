"""Clips, captions and token shards."""
