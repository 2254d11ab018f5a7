"""A block of dealt values, balanced against what else its rows have. Pure.

A block is T * n rows: n visits of each of T topics, and T runs of n rows one after the other. Dealt is a place in a
word of n values, so that each run and each topic has every place once. Rows of two places form closed paths, from a row
to the other of its run, to the other of that one's topic, and so on: if the two places change sides along a path, each
run and topic has every place once as before. A path is turned where that brings the rows of other groups (of a persona,
say) nearer to their share of each value.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

_NUM_PASSES: Final = 3
_MAX_DISTANCE: Final = 4
_LONG_WORD: Final = 16


class Balancer:
    """Balances blocks one after the other; what one leaves over the next one makes good.

    Args:
        word: The values of n rows.
        num_topics: Topics, which follow one another row by row.
        num_groups: Groups of all families together.
    """

    def __init__(self, word: Sequence[str], num_topics: int, num_groups: int) -> None:
        self._word, self._num_topics = word, num_topics
        self._pairs = _pairs(word)
        self._ahead = [[0] * num_groups for _ in Counter(word)]

    def balance(self, places: Sequence[int], groups: Sequence[Sequence[int]]) -> list[int]:
        """The places of a block's rows, some of them changed.

        Args:
            places: (T * n,) Each n in turn and each topic's n have every place once.
            groups: (T * n, families) The group of each row, of each family; no two families share a number.
        """
        block = _Block(self._word, self._num_topics, list(places), groups, self._ahead)
        for _ in range(_NUM_PASSES):
            if not sum(block.improve(one, other) for one, other in self._pairs):
                break
        self._ahead = block.at_end
        return block.places


class _Block:
    """The places of one block, and by how much each group is ahead of its share of each value, in n-ths of a row.

    That is known at the block's end and in its middle, as a plan may end anywhere.
    """

    def __init__(
        self,
        word: Sequence[str],
        num_topics: int,
        places: list[int],
        groups: Sequence[Sequence[int]],
        ahead: Sequence[Sequence[int]],
    ) -> None:
        self.places = places
        self._word, self._num_topics, self._groups = word, num_topics, groups
        shares = Counter(word)
        self._values = [list(shares).index(value) for value in word]
        self._shares = list(shares.values())
        self._middle = len(word) // 2 * num_topics
        self.at_end = [list(of_value) for of_value in ahead]
        self._at_middle = [list(of_value) for of_value in ahead]
        for row, place in enumerate(places):
            for value, share in enumerate(self._shares):
                amount = len(word) * (value == self._values[place]) - share
                for group in groups[row]:
                    self.at_end[value][group] += amount
                    if row < self._middle:
                        self._at_middle[value][group] += amount
        limit = len(word) * (1 if len(shares) == 2 else 2) - 1  # noqa: PLR2004 - three values: see `deals`
        self._run_limit = limit
        self._topic_limit = max(limit, *(self._unevenness(places[topic::num_topics]) for topic in range(num_topics)))

    def improve(self, one: int, other: int) -> int:
        """Turn each path of two places that is better turned; how many there were."""
        return sum(self._turn_if_better(path, one, other) for path in self._paths(one, other))

    def _paths(self, one: int, other: int) -> Iterator[list[int]]:
        """The closed paths of two places, as the rows on them."""
        size, num_topics = len(self._word), self._num_topics
        rows = [row for row, place in enumerate(self.places) if place in {one, other}]
        of_run, of_topic = [0] * num_topics, [0] * num_topics  # sums of two rows each
        for row in rows:
            of_run[row // size] += row
            of_topic[row % num_topics] += row
        left = dict.fromkeys(rows)
        while left:
            row, path = next(iter(left)), list[int]()
            while row in left:
                beside = of_run[row // size] - row
                del left[row], left[beside]
                path += (row, beside)
                row = of_topic[beside % num_topics] - beside
            yield path

    def _turn_if_better(self, path: Sequence[int], one: int, other: int) -> bool:
        at_end, at_middle = Counter[int](), Counter[int]()
        for row in path:
            sign = 1 if self.places[row] == other else -1  # of rows that get the value of the one
            for group in self._groups[row]:
                at_end[group] += sign
                if row < self._middle:
                    at_middle[group] += sign
        gains, loses = self._values[one], self._values[other]
        if self._cost(gains, loses, at_end, at_middle) >= 0:
            return False
        self._turn(path, one, other)
        if not all(self._is_even(row) for row in path):
            self._turn(path, one, other)
            return False
        size = len(self._word)
        for ahead, change in ((self.at_end, at_end), (self._at_middle, at_middle)):
            for group, amount in change.items():
                ahead[gains][group] += size * amount
                ahead[loses][group] -= size * amount
        return True

    def _cost(self, gains: int, loses: int, at_end: Counter[int], at_middle: Counter[int]) -> int:
        """By how much the sum of squares grows, over twice a word's length."""
        size, cost = len(self._word), 0
        for ahead, change in ((self.at_end, at_end), (self._at_middle, at_middle)):
            more, less = ahead[gains], ahead[loses]
            for group, amount in change.items():
                cost += amount * (more[group] - less[group] + size * amount)
        return cost

    def _turn(self, path: Sequence[int], one: int, other: int) -> None:
        for row in path:
            self.places[row] = one + other - self.places[row]

    def _is_even(self, row: int) -> bool:
        """Whether the row's run and its topic keep to their shares at every length."""
        size = len(self._word)
        if size == len(self._shares):  # each value once: in any order
            return True
        first = row // size * size
        run, topic = self.places[first : first + size], self.places[row % self._num_topics :: self._num_topics]
        return self._unevenness(run) <= self._run_limit and self._unevenness(topic) <= self._topic_limit

    def _unevenness(self, places: Sequence[int]) -> int:
        """By how much a value is ahead or behind at most, in n-ths of a row."""
        owed, most = [0] * len(self._shares), 0
        for place in places:
            owed = [amount + share for amount, share in zip(owed, self._shares, strict=True)]
            owed[self._values[place]] -= len(self._word)
            most = max(most, *map(abs, owed))
        return most


def _pairs(word: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of places near one another that have two values."""
    distance = min(len(word) // 2, _MAX_DISTANCE) if len(word) <= _LONG_WORD else 1
    pairs = {
        tuple(sorted((place, (place + apart) % len(word))))
        for place in range(len(word))
        for apart in range(1, distance + 1)
    }
    return [(one, other) for one, other in sorted(pairs) if word[one] != word[other]]
