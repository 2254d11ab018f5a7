"""Seeded draws and orders, the same on every platform and Python version. Pure."""

import hashlib
from functools import lru_cache
from math import gcd, lcm


def permute(count: int, seed: int, label: str) -> tuple[int, ...]:
    """A seeded permutation of 0 … count-1, the same on every platform and Python version."""
    return tuple(sorted(range(count), key=lambda index: draw(seed, label, index)))


def draw(seed: int, label: str, *indices: int) -> int:
    """64 bits that depend on all arguments and on nothing else."""
    text = "/".join(map(str, (seed, label, *indices)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def choose(seed: int, num_topics: int, row: int, label: str, num_values: int) -> int:
    """Which of `num_values` values of a dimension a row has: balanced by itself and with the topic (see `plan`)."""
    num_stretches = gcd(num_topics, num_values)
    block, stretch = divmod(row // lcm(num_topics, num_values), num_stretches)
    return (row + _shifts(seed, label, block, num_stretches)[stretch]) % num_values


@lru_cache(maxsize=4096)
def _shifts(seed: int, label: str, block: int, num_stretches: int) -> tuple[int, ...]:
    """A shift for each stretch of a block, all different mod their number."""
    offset = draw(seed, f"{label} offset", block)
    return tuple(offset + index for index in permute(num_stretches, seed, f"{label} {block}"))
