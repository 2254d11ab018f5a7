"""What the first rows of a plan cover: counts of values and of pairs, openings, and tables of them. Pure."""

from collections import Counter
from dataclasses import dataclass
from typing import Final

from rich.console import Group
from rich.markup import escape
from rich.table import Table

from nanosft.generate.planning.plan import Plan, plan_row

_NUM_SHOWN: Final = 10
DIMENSIONS: Final = ("topic", "persona", "dynamic", "style")
PAIRS: Final = (
    ("topic", "persona"), ("topic", "dynamic"), ("topic", "style"), ("persona", "dynamic"), ("persona", "style"),
    ("dynamic", "style"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Coverage:
    """What the first `num_rows` rows of a plan cover.

    Attributes:
        marginals: Rows of each value of each dimension; every value is a key.
        pairs: Fewest and most rows over all pairs of values of two dimensions.
        num_distinct_openings: Distinct first messages.
        most_common_opening: The first message that opens most rows, and how many.
        first_messages: The first messages of the first rows.
        num_messages: Over all conversations.
    """

    num_rows: int
    marginals: dict[str, dict[str, int]]
    pairs: dict[str, tuple[int, int]]
    num_distinct_openings: int
    most_common_opening: tuple[str, int]
    first_messages: tuple[str, ...]
    num_messages: int

    @property
    def distinct_share(self) -> float:
        """Distinct first messages over rows; 1 for no rows."""
        return self.num_distinct_openings / self.num_rows if self.num_rows else 1.0


def cover(plan: Plan, num_rows: int) -> Coverage:
    """Count what the plan's first rows cover."""
    ids = {
        "topic": [topic.id for topic in plan.topics],
        "persona": [persona.id for persona in plan.personas],
        "dynamic": [dynamic.id for dynamic in plan.dynamics],
        "style": [style.id for style in plan.styles],
    }
    values: Counter[tuple[str, str]] = Counter()
    pairs: Counter[tuple[str, str, str, str]] = Counter()
    openings: Counter[str] = Counter()
    first_messages: list[str] = []
    num_messages = 0
    for number in range(num_rows):
        row = plan_row(plan, number)
        value = {"topic": row.topic.id, "persona": row.persona.id, "dynamic": row.dynamic.id, "style": row.style.id}
        values.update(value.items())
        pairs.update((left, value[left], right, value[right]) for left, right in PAIRS)
        openings[row.first_message] += 1
        num_messages += row.num_messages
        if number < _NUM_SHOWN:
            first_messages.append(row.first_message)
    return Coverage(
        num_rows=num_rows,
        marginals={name: {item: values[name, item] for item in ids[name]} for name in DIMENSIONS},
        pairs={f"{left} x {right}": _extremes(pairs, ids, left, right) for left, right in PAIRS},
        num_distinct_openings=len(openings),
        most_common_opening=openings.most_common(1)[0] if openings else ("", 0),
        first_messages=tuple(first_messages),
        num_messages=num_messages,
    )


def render_coverage(coverage: Coverage) -> Group:
    """The coverage as tables for a terminal."""
    balance = Table(title=f"Plan of {coverage.num_rows:,} rows", title_justify="left")
    for heading in ("", "values", "fewest rows", "most rows"):
        balance.add_column(heading, justify="left" if not heading else "right")
    for name, counts in coverage.marginals.items():
        balance.add_row(name, str(len(counts)), str(min(counts.values())), str(max(counts.values())))
    for name, (fewest, most) in coverage.pairs.items():
        left, right = name.split(" x ")
        num_pairs = len(coverage.marginals[left]) * len(coverage.marginals[right])
        balance.add_row(name, f"{num_pairs:,}", str(fewest), str(most))
    openings = Table(title="First messages", title_justify="left", show_header=False)
    text, count = coverage.most_common_opening
    openings.add_row("distinct", f"{coverage.num_distinct_openings:,} ({coverage.distinct_share:.1%} of the rows)")
    openings.add_row("most common", escape(f"{text} ({count})"))
    for number, message in enumerate(coverage.first_messages):
        openings.add_row(f"row {number}", escape(message))
    return Group(balance, openings)


def _extremes(
    pairs: Counter[tuple[str, str, str, str]], ids: dict[str, list[str]], left: str, right: str
) -> tuple[int, int]:
    counts = [pairs[left, first, right, second] for first in ids[left] for second in ids[right]]
    return min(counts), max(counts)
