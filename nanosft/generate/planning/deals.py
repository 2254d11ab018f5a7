"""Values dealt to rows by shares: who writes a row, and in which language. Pure, and O(1) by row.

With T topics and a word of n values (three of one and one of another for shares of 3 to 1), row r has value

    word[(r + base + s + turn * b) mod n]        where b, s = divmod(r // lcm(T, n), gcd(T, n))

So each aligned block of n rows holds the word once, and each aligned block of T * n rows every pair of a topic and a
place in the word: the reasons are those in `plan`. A word spreads its values evenly, so that the rows of a value
differ from their share by at most 1 at every length, and by less than 2 where three or more share them unequally.
`turn` is another number for each kind of value: two kinds whose words have a common factor would else keep step with
each other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd, lcm

from nanosft.generate.planning.draws import draw


@dataclass(frozen=True, slots=True)
class Deal:
    """One kind of value.

    Attributes:
        label: Names it to the seed.
        word: The values of n rows, in turn.
        turn: By how much the word moves on after each block of stretches.
    """

    label: str
    word: tuple[str, ...]
    turn: int

    def pick(self, row: int, *, num_topics: int, seed: int) -> str:
        """The value of a row: a function of the seed and the row alone."""
        num_values = len(self.word)
        if num_values == 1:
            return self.word[0]
        num_stretches = gcd(num_topics, num_values)
        block, stretch = divmod(row // lcm(num_topics, num_values), num_stretches)
        return self.word[(row + draw(seed, self.label) + stretch + self.turn * block) % num_values]


def make_deal(label: str, shares: Mapping[str, int], *, turn: int) -> Deal:
    """Deal values by whole shares: `{"a": 3, "b": 1}` is `a a b a`."""
    total = sum(shares.values())
    owed = dict.fromkeys(shares, 0)
    word = []
    for _ in range(total):
        for value, share in shares.items():
            owed[value] += share
        chosen = max(owed, key=lambda value: owed[value])
        owed[chosen] -= total
        word.append(chosen)
    return Deal(label, tuple(word), turn)
