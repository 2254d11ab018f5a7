"""SplitMix64: the one mixing of 64-bit numbers that hashes, keys and shuffled orders are made with. Pure.

All arithmetic is integer and modulo 2**64, so that every process, platform and version of NumPy gets the same numbers.

Source: Steele, Lea, Flood, Fast Splittable Pseudorandom Number Generators (2014).
"""

from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

UInt64Array = npt.NDArray[np.uint64]

GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
"""2**64 over the golden ratio: an odd factor that spreads neighbours, and the step from state to state."""
SPREAD: Final = np.uint64(0xBF58476D1CE4E5B9)
"""The first factor of `mix64`."""


def mix64(values: UInt64Array) -> UInt64Array:
    """SplitMix64's finalizer: a bijection in which each bit depends on all."""
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * SPREAD
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))


@cache
def odd_factors(count: int, *, seed: int) -> UInt64Array:
    """`count` fixed odd uint64: the SplitMix64 stream of the seed, its lowest bits set."""
    with np.errstate(over="ignore"):
        steps = np.arange(1, count + 1, dtype=np.uint64) + np.uint64(seed << 32)
        return mix64(steps * GOLDEN) | np.uint64(1)
