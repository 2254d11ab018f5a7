"""Means with intervals, by bootstrap over clusters. Pure.

Answers to wordings of one fact are no independent draws, so clusters (facts, documents, conversations) are resampled,
not answers: 2.5th and 97.5th percentile of 2,000 resamples (Efron, 1979), seeded.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

NUM_RESAMPLES: Final = 2000
_PERCENTILES: Final = (2.5, 97.5)
_BLOCK_DRAWS: Final = 1 << 22
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and where it lies, at 95 %.

    Attributes:
        mean: Of all that was measured.
        low: The interval's lower end.
        high: Its upper end.
        num: Measurements.
    """

    mean: float
    low: float
    high: float
    num: int

    def to_json(self) -> dict[str, Any]:
        """Values of JSON, rounded to six digits after the point."""
        return {"mean": round(self.mean, 6), "low": round(self.low, 6), "high": round(self.high, 6), "num": self.num}


def bootstrap_mean(values: Sequence[float], clusters: Sequence[Hashable], *, seed: int = 0) -> Interval | None:
    """The mean of values, and its interval over clusters; None of no values.

    Args:
        values: Measured.
        clusters: What each belongs to.
        seed: Of the resampling.
    """
    return bootstrap_ratio(values, [1.0] * len(values), clusters, seed=seed)


def bootstrap_ratio(
    numerators: Sequence[float], denominators: Sequence[float], clusters: Sequence[Hashable], *, seed: int = 0
) -> Interval | None:
    """Sum of numerators over sum of denominators, such as bits over bytes, and its interval over clusters.

    None where there is nothing, or the denominators are all zero.
    """
    sums = _sum_by_cluster(np.array([numerators, denominators], np.float64), clusters)
    total = sums.sum(axis=1)
    if not len(clusters) or not total[1]:
        return None
    ratios = np.concatenate([_divide(block[0], block[1]) for block in _resample(sums, seed)])
    low, high = np.nanpercentile(ratios, _PERCENTILES)
    return Interval(float(total[0] / total[1]), float(low), float(high), len(numerators))


def bootstrap_centred(groups: Sequence[tuple[Sequence[float], float]], *, seed: int = 0) -> Interval:
    """The mean over groups of `(mean - baseline) / (1 - baseline)`; each group is resampled by itself.

    Args:
        groups: Values, one at least, and what chance alone would reach.
        seed: Of the resampling.
    """
    means, draws = [], []
    for number, (values, baseline) in enumerate(groups):
        own = np.array([values], np.float64)
        resampled = np.concatenate([block[0] for block in _resample(own, seed + number)]) / len(values)
        means.append((own.mean() - baseline) / (1 - baseline))
        draws.append((resampled - baseline) / (1 - baseline))
    low, high = np.percentile(np.mean(draws, axis=0), _PERCENTILES)
    return Interval(float(np.mean(means)), float(low), float(high), sum(len(values) for values, _ in groups))


def _sum_by_cluster(values: FloatArray, clusters: Sequence[Hashable]) -> FloatArray:
    """Sums of (rows, values) by cluster: (rows, clusters), clusters in order of their first value."""
    places: dict[Hashable, int] = {}
    index = np.array([places.setdefault(cluster, len(places)) for cluster in clusters], np.int64)
    return np.stack([np.bincount(index, weights=row, minlength=max(len(places), 1)) for row in values])


def _resample(sums: FloatArray, seed: int) -> list[FloatArray]:
    """Sums of resampled clusters, in blocks of (rows, resamples)."""
    rng = np.random.default_rng(seed)
    num_clusters = sums.shape[1]
    blocks, left = [], NUM_RESAMPLES
    while left:
        num = min(left, max(1, _BLOCK_DRAWS // num_clusters))
        drawn = rng.integers(0, num_clusters, (num, num_clusters))
        blocks.append(sums[:, drawn].sum(axis=2))
        left -= num
    return blocks


def _divide(numerators: FloatArray, denominators: FloatArray) -> FloatArray:
    return np.divide(numerators, denominators, out=np.full_like(numerators, np.nan), where=denominators != 0)
