"""A few rows of a plan that differ as much as they can, to be looked at before the others are paid for. Pure."""

from typing import Final

from nanosft.generate.planning.plan import Plan, PlanRow, plan_row

_ROWS_TRIED: Final = 500


def choose_rows(plan: Plan, num: int, count: int) -> list[int]:
    """Numbers of `count` rows among the first 500 that show as many different values as they can; all of fewer.

    Greedily: each has the most values (topic, persona, dynamic, style) that none before it has, and of equals the
    first. A plan that grows beyond 500 rows keeps its choice.
    """
    values = {number: _values(plan_row(plan, number)) for number in range(min(num, _ROWS_TRIED))}
    chosen: list[int] = []
    seen: set[tuple[str, str]] = set()
    while values and len(chosen) < count:
        best = max(values, key=lambda number: (len(values[number] - seen), -number))
        seen |= values.pop(best)
        chosen.append(best)
    return sorted(chosen)


def _values(row: PlanRow) -> set[tuple[str, str]]:
    return {
        ("topic", row.topic.id),
        ("category", row.topic.category),
        ("persona", row.persona.id),
        ("dynamic", row.dynamic.id),
        ("style", row.style.id),
        ("length", str(row.num_messages)),
    }
