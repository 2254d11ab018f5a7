"""Seeded draws and orders, the same on every platform and Python version. Pure."""

import hashlib


def permute(count: int, seed: int, label: str) -> tuple[int, ...]:
    """A seeded permutation of 0 … count-1, the same on every platform and Python version."""
    return tuple(sorted(range(count), key=lambda index: draw(seed, label, index)))


def draw(seed: int, label: str, *indices: int) -> int:
    """64 bits that depend on all arguments and on nothing else."""
    text = "/".join(map(str, (seed, label, *indices)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
