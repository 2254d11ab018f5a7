"""What is kept of a run in the store, so that nothing paid for is lost or bought twice.

`totals` says what is kept of each answer and sums it up; `parts` flushes lines and reads back what earlier runs
flushed; `finalize` puts the manifests of shards and of the data set.
"""

from nanosft.generate.records.finalize import (
    PlanRecord,
    check_same_plan,
    finalize_plan,
    find_plan,
    register_plan,
    shard_manifest,
)
from nanosft.generate.records.parts import Part, PartBuffer, PlanState, RowState, read_state
from nanosft.generate.records.totals import Tally, reject_record, row_meta, usd_of

__all__ = [
    "Part",
    "PartBuffer",
    "PlanRecord",
    "PlanState",
    "RowState",
    "Tally",
    "check_same_plan",
    "finalize_plan",
    "find_plan",
    "read_state",
    "register_plan",
    "reject_record",
    "row_meta",
    "shard_manifest",
    "usd_of",
]
