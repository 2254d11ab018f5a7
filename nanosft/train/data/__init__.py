"""Conversations into a plan of packed rows. Free of torch: the processes that tokenise import it, and start fast.

`dataset` finds the objects and has them tokenised once, `tokens` renders them, `packing` puts them into rows, `plan`
deals rows to steps.
"""

from nanosft.train.data.dataset import CachedTokens, Data, prepare_data, read_data, split_objects
from nanosft.train.data.packing import IntArray, PackedRows, pack_in_order
from nanosft.train.data.plan import StepPlan, count_rows_per_step, plan_steps, split_rows
from nanosft.train.data.tokens import TokenSet

__all__ = [
    "CachedTokens",
    "Data",
    "IntArray",
    "PackedRows",
    "StepPlan",
    "TokenSet",
    "count_rows_per_step",
    "pack_in_order",
    "plan_steps",
    "prepare_data",
    "read_data",
    "split_objects",
    "split_rows",
]
