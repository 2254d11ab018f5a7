"""Conversations into a plan of packed rows. Free of torch: the processes that tokenise import it, and start fast.

`dataset` finds the objects and has them tokenised once, `tokens` renders them, `plan` packs them into rows and deals
the rows to steps.
"""

from nanosft.train.data.dataset import CachedTokens, Data, find_origins, prepare_data, read_data, split_objects
from nanosft.train.data.plan import StepPlan, count_rows_per_step, plan_steps, split_rows
from nanosft.train.data.tokens import TokenSet

__all__ = [
    "CachedTokens",
    "Data",
    "StepPlan",
    "TokenSet",
    "count_rows_per_step",
    "find_origins",
    "plan_steps",
    "prepare_data",
    "read_data",
    "split_objects",
    "split_rows",
]
