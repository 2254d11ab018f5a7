"""What a few rows have gone through: every answer that was paid for, in the order in which it came."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from nanosft.generate.records.judgements import HELD, JUDGEMENT, KIND_KEY, judge_pico
from nanosft.generate.records.money import pico_of
from nanosft.generate.records.parts import REJECTS, ROWS, read_part
from nanosft.store import Store


@dataclass
class RowHistory:
    """One row of the plan, as the parts tell it.

    Attributes:
        accepted: Its line; None where there is none.
        records: What stands of it among the rejects: rejected answers, answers that are held, a judge's alone.
    """

    accepted: dict[str, Any] | None = None
    records: list[dict[str, Any]] = field(default_factory=list)

    @property
    def rejects(self) -> list[dict[str, Any]]:
        """Its rejected answers."""
        return [record for record in self.records if record.get(KIND_KEY) not in {HELD, JUDGEMENT}]

    @property
    def is_given_up(self) -> bool:
        """Whether it is given up."""
        return self.accepted is None and any(record["given_up"] for record in self.records)

    @property
    def writer_pico(self) -> int:
        """What its writer is known to have cost, in picodollars."""
        meta = self.accepted["meta"] if self.accepted is not None else {}
        return sum(pico_of(record.get("cost_usd")) for record in (meta, *self.records))

    @property
    def judge_pico(self) -> int:
        """What its judge is known to have cost, in picodollars."""
        meta = self.accepted["meta"] if self.accepted is not None else {}
        return sum(judge_pico(record.get("judge")) for record in (meta, *self.records))


def read_history(store: Store, rows: Collection[int]) -> dict[int, RowHistory]:
    """The histories of rows, by row number; reads all parts, one in memory at a time.

    Raises:
        DataError: A part holds a line that nanosft did not write.
    """
    found = {row: RowHistory() for row in rows}
    for info in store.list(REJECTS):
        for _, record in read_part(store, info.key).records:
            if record["row"] in found:
                found[record["row"]].records.append(record)
    for info in store.list(ROWS):
        for _, record in read_part(store, info.key).records:
            row = found.get(record["meta"]["row"])
            if row is not None and row.accepted is None:  # the first counts, as when the data set is put together
                row.accepted = record
    return found
