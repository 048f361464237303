"""Named random streams: a draw depends on (seed, name, index) alone, not on what ran before."""

import hashlib

import torch


def stream_seed(seed: int, name: str, index: int = 0) -> int:
    """A 63-bit seed for the stream ``(seed, name, index)``."""
    digest = hashlib.sha256(f"{seed}/{name}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def stream(seed: int, name: str, index: int = 0) -> torch.Generator:
    """A fresh generator of the stream, on the CPU, whose numbers are the same on every machine."""
    return torch.Generator().manual_seed(stream_seed(seed, name, index))
