"""What is kept of a run in the store, so that nothing paid for is lost or bought twice.

`totals` says what is kept of each answer and sums it up, `judgements` the same of a judge's, in `money` that adds up
exactly; `parts` flushes lines and reads back what earlier runs flushed, of one row as its `row_state`, and `repeats`
knows what two processes have both put; `plans` are the records of a plan as it grows; `finalize` puts the manifests of
shards and of the data set.
"""

from nanosft.generate.records.attempts import attempt_of, is_of_another_shard, name_attempt
from nanosft.generate.records.by_model import ASKED_KEY
from nanosft.generate.records.finalize import finalize_plan, lacks_shards, shard_manifest
from nanosft.generate.records.history import RowHistory, read_history
from nanosft.generate.records.judgements import KIND_KEY, JudgeTally, judge_meta, judgement_record
from nanosft.generate.records.money import pico_of, split_cost, usd_of
from nanosft.generate.records.parts import (
    Part,
    PartBuffer,
    PlanState,
    read_records,
    read_state,
)
from nanosft.generate.records.plans import (
    PlanRecord,
    check_same_plan,
    find_fills,
    find_plan,
    grow_plan,
    read_plans,
    register_plan,
)
from nanosft.generate.records.row_state import RowState, digest_answer
from nanosft.generate.records.totals import BATCH_KEY, HELD_COST_KEY, Tally, held_record, reject_record, row_meta

__all__ = [
    "ASKED_KEY",
    "BATCH_KEY",
    "HELD_COST_KEY",
    "KIND_KEY",
    "JudgeTally",
    "Part",
    "PartBuffer",
    "PlanRecord",
    "PlanState",
    "RowHistory",
    "RowState",
    "Tally",
    "attempt_of",
    "check_same_plan",
    "digest_answer",
    "finalize_plan",
    "find_fills",
    "find_plan",
    "grow_plan",
    "held_record",
    "is_of_another_shard",
    "judge_meta",
    "judgement_record",
    "lacks_shards",
    "name_attempt",
    "pico_of",
    "read_history",
    "read_plans",
    "read_records",
    "read_state",
    "register_plan",
    "reject_record",
    "row_meta",
    "shard_manifest",
    "split_cost",
    "usd_of",
]
