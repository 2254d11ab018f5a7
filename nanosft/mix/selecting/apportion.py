"""Shares into whole amounts: how much of each source makes a mixture of the wanted ratios. Pure.

An amount is a number of the recipe's unit: rows, tokens or supervised tokens. Ratios are the decimals that the recipe
writes: `0.3` is exactly three tenths.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor

from nanosft.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Demand:
    """What one source shall add, and what it has.

    Attributes:
        name: The source's name, for errors.
        available: What one epoch of it is, in the unit of the mixture.
        ratio: Its weight; None where `epochs`, `rest` or its size decides.
        epochs: How often all of it is taken.
        rest: Whether it fills what the others leave.
        synthetic: On which side of the synthetic share it is.
    """

    name: str
    available: int
    ratio: float | None = None
    epochs: float | None = None
    rest: bool = False
    synthetic: bool = False


def largest_remainder(weights: Sequence[Fraction], total: int) -> list[int]:
    """Whole numbers in proportion to `weights` that sum to `total`; each is less than 1 off its exact quota.

    Ties of remainders go to the earlier weight. Source: Hamilton's method of apportionment.
    """
    whole = sum(weights, Fraction())
    quotas = [weight * total / whole for weight in weights]
    seats = [floor(quota) for quota in quotas]
    by_remainder = sorted(range(len(quotas)), key=lambda i: (seats[i] - quotas[i], i))
    for index in by_remainder[: total - sum(seats)]:
        seats[index] += 1
    return seats


def fill_gap(gap: int, weights: Sequence[int], *, may_exceed: bool = True) -> list[int]:
    """Which of `weights`, tried in order, bring a sum nearest to `gap`: their indexes.

    Each is taken that still fits; in the end one more, where too much by it is less than what is missing, if the sum
    may exceed the gap.
    """
    chosen = []
    for index, weight in enumerate(weights):
        if weight <= gap:
            chosen.append(index)
            gap -= weight
    if not may_exceed:
        return chosen
    taken = set(chosen)
    left = [index for index, weight in enumerate(weights) if index not in taken and weight < 2 * gap]
    if left:
        chosen.append(min(left, key=lambda index: (abs(weights[index] - gap), index)))
    return chosen


def apportion(
    demands: Sequence[Demand], *, synthetic_share: float | None, total: int | None, max_epochs: float = 1.0
) -> list[int]:
    """The amount of each source, in the order of `demands`.

    Args:
        demands: All sources of the mixture.
        synthetic_share: Share of the synthetic ones, or None where ratios alone decide.
        total: Size of the mixture; None is as much as the scarcest source allows.
        max_epochs: How often the scarcest may be repeated for that.

    Raises:
        ConfigError: No mixture of these sources is what was asked for; the message says why.
    """
    if synthetic_share is not None:
        weights = _sided_weights(demands, _exact(synthetic_share))
        return _by_weight(demands, weights, total, _exact(max_epochs))
    amounts = [round(_exact(d.epochs) * d.available) if d.epochs is not None else 0 for d in demands]
    ratios = [_exact(d.ratio) if d.ratio is not None else Fraction() for d in demands]
    if any(d.rest for d in demands):
        return _with_rest(demands, amounts, ratios, total, _exact(max_epochs))
    if not any(ratios):
        ratios = [Fraction(d.available if d.epochs is None else 0) for d in demands]
        if not any(ratios):
            return amounts
    left = None if total is None else total - sum(amounts)
    if left is not None and left < 0:
        raise ConfigError(
            f"the sources with epochs give {sum(amounts)}, more than the total of {total}: raise the total"
        )
    weighted = _by_weight(demands, ratios, left, _exact(max_epochs))
    return [amount + more for amount, more in zip(amounts, weighted, strict=True)]


def _sided_weights(demands: Sequence[Demand], share: Fraction) -> list[Fraction]:
    weights = [_exact(d.ratio) if d.ratio is not None else Fraction(d.available) for d in demands]
    sums = {
        side: sum((w for w, d in zip(weights, demands, strict=True) if d.synthetic is side), Fraction())
        for side in (True, False)
    }
    for side, found in sums.items():
        if not found:
            word = "synthetic" if side else "other"
            raise ConfigError(f"the {word} sources have no train rows left, so synthetic_share cannot be met")
    return [
        w / sums[d.synthetic] * (share if d.synthetic else 1 - share) for w, d in zip(weights, demands, strict=True)
    ]


def _by_weight(
    demands: Sequence[Demand], weights: Sequence[Fraction], total: int | None, max_epochs: Fraction
) -> list[int]:
    whole = sum(weights, Fraction())
    for demand, weight in zip(demands, weights, strict=True):
        if weight and not demand.available:
            raise ConfigError(f"source {demand.name!r} has no train rows left, so its share cannot be met")
    if total is None:
        limits = [d.available * max_epochs * whole / w for d, w in zip(demands, weights, strict=True) if w]
        total = floor(min(limits))
    return largest_remainder(weights, total)


def _with_rest(
    demands: Sequence[Demand], amounts: list[int], ratios: list[Fraction], total: int | None, max_epochs: Fraction
) -> list[int]:
    rest = sum(d.available for d in demands if d.rest)
    fixed, share = sum(amounts), sum(ratios, Fraction())
    given = total
    if total is None:
        limits = [d.available * max_epochs / r for d, r in zip(demands, ratios, strict=True) if r]
        total = floor(min([*limits, (fixed + rest) / (1 - share)]))
    wanted = largest_remainder([*ratios, 1 - share], total)
    left = wanted.pop() - fixed
    names = ", ".join(repr(d.name) for d in demands if d.rest)
    if left < 0 and given is None:
        raise ConfigError(
            f"the sources with epochs give {fixed}, more than ratios that sum to {float(share):g} leave them where "
            f"{names} is the rest: lower epochs or ratios"
        )
    if left < 0:
        raise ConfigError(f"epochs and ratios give {total - left}, more than the total of {total}: raise the total")
    if left > rest:
        raise ConfigError(
            f"source {names} has {rest} where {left} are needed as the rest of {total}: "
            "lower the total, or give it a ratio so that it repeats"
        )
    for demand, ratio in zip(demands, ratios, strict=True):
        if ratio and not demand.available:
            raise ConfigError(f"source {demand.name!r} has no train rows left, so its share cannot be met")
    sizes = [Fraction(d.available if d.rest else 0) for d in demands]
    filled = largest_remainder(sizes, left) if left else [0] * len(demands)
    return [a + w + f for a, w, f in zip(amounts, wanted, filled, strict=True)]


def _exact(value: float) -> Fraction:
    return Fraction(repr(value))
