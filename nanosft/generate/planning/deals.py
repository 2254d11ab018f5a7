"""Values dealt to rows by shares: who writes a row, and in which language. Pure.

With T topics and a word of n values (three of one and one of another for shares of 3 to 1), row r has value

    word[(r + base + s + turn * b) mod n]        where b, s = divmod(r // lcm(T, n), gcd(T, n))

So each aligned block of n rows holds the word once, and each aligned block of T * n rows every pair of a topic and a
place in the word: the reasons are those in `plan`. A word spreads its values evenly, so that the rows of a value
differ from their share by at most 1 at every length, and by less than 2 where three or more share them unequally.
`turn` is another number for each kind of value: two kinds whose words have a common factor would else keep step with
each other.

That is dealing 1. In dealing 2 the places of each block of T * n rows are then balanced against other values of its
rows (`balancing`): persona, dynamic, and of a language the model. Blocks that follow one another within a stretch of
about 4,000 rows make good what the one before has left over; a row's value takes its stretch's time, 0.2 to 0.5 s for
models and languages together on busy cores, and is then known for all of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from math import gcd, lcm
from typing import Final

from nanosft.generate.planning.balancing import Balancer
from nanosft.generate.planning.draws import choose, draw

DEALING: Final = 2
"""How new plans are dealt."""
_STRETCH_ROWS: Final = 4096


@dataclass(frozen=True, slots=True)
class Deal:
    """One kind of value.

    Attributes:
        label: Names it to the seed.
        word: The values of n rows, in turn.
        turn: By how much the word moves on after each block of stretches.
        dimensions: What else is dealt to rows and balanced against, with the numbers of values; none in dealing 1.
        beside: Another kind of value that it is balanced against.
    """

    label: str
    word: tuple[str, ...]
    turn: int
    dimensions: tuple[tuple[str, int], ...] = ()
    beside: "Deal | None" = None

    def as_first(self) -> "Deal":
        """The same values in dealing 1."""
        return replace(self, dimensions=(), beside=None)

    def pick(self, row: int, *, num_topics: int, seed: int) -> str:
        """The value of a row: a function of the seed and the row alone."""
        return self.word[self._place(row, num_topics, seed)]

    def _place(self, row: int, num_topics: int, seed: int) -> int:
        num_values = len(self.word)
        if num_values == 1:
            return 0
        if not self.dimensions:
            return self.first_place(row, num_topics, seed)
        stretch, within = divmod(row, _stretch_blocks(num_topics, num_values) * num_topics * num_values)
        return _balance(self, stretch, num_topics, seed)[within]

    def first_place(self, row: int, num_topics: int, seed: int) -> int:
        """The row's place in the word in dealing 1."""
        num_values = len(self.word)
        num_stretches = gcd(num_topics, num_values)
        block, stretch = divmod(row // lcm(num_topics, num_values), num_stretches)
        return (row + draw(seed, self.label) + stretch + self.turn * block) % num_values

    def groups_of(self, row: int, num_topics: int, seed: int) -> list[int]:
        """The row's values of what it is balanced against, numbered through."""
        groups, first = [], 0
        for label, num in self.dimensions:
            groups.append(first + choose(seed, num_topics, row, label, num))
            first += num
        if self.beside is not None:
            value = self.beside.pick(row, num_topics=num_topics, seed=seed)
            groups.append(first + self.beside.word.index(value))
        return groups

    @property
    def num_groups(self) -> int:
        """Values of all that it is balanced against."""
        beside = () if self.beside is None else self.beside.word
        return sum(num for _, num in self.dimensions) + len(beside)


def make_deal(
    label: str, shares: Mapping[str, int], *, turn: int, against: Mapping[str, int], beside: Deal | None = None
) -> Deal:
    """Deal values by whole shares: `{"a": 3, "b": 1}` is `a a b a`; balanced against dimensions, by their sizes."""
    total = sum(shares.values())
    owed = dict.fromkeys(shares, 0)
    word = []
    for _ in range(total):
        for value, share in shares.items():
            owed[value] += share
        chosen = max(owed, key=lambda value: owed[value])
        owed[chosen] -= total
        word.append(chosen)
    return Deal(label, tuple(word), turn, tuple(against.items()), beside)


def _stretch_blocks(num_topics: int, num_values: int) -> int:
    return max(1, _STRETCH_ROWS // (num_topics * num_values))


@lru_cache(maxsize=16)
def _balance(deal: Deal, stretch: int, num_topics: int, seed: int) -> bytes:
    """The places of a stretch's rows; a word is at most 100 values long."""
    size = num_topics * len(deal.word)
    num_blocks = _stretch_blocks(num_topics, len(deal.word))
    balancer = Balancer(deal.word, num_topics, deal.num_groups)
    found = bytearray()
    for block in range(stretch * num_blocks, (stretch + 1) * num_blocks):
        rows = range(block * size, (block + 1) * size)
        places = [deal.first_place(row, num_topics, seed) for row in rows]
        found += bytes(balancer.balance(places, [deal.groups_of(row, num_topics, seed) for row in rows]))
    return bytes(found)
