"""Rows in flight: asked for, checked, asked for again, under a budget.

`runner` keeps many rows going in one event loop; `row` is one row's way to a conversation; `checker` accepts or
rejects an answer; `judge` is the model that scores what was accepted; `budget` reserves money before it is spent.
"""

from nanosft.generate.rows.budget import Budget, read_ledgers, split_budget
from nanosft.generate.rows.checker import AnswerChecker, make_index
from nanosft.generate.rows.judge import AskJudge, Judge
from nanosft.generate.rows.row import Ask, Job, RetryPolicy, RowMaker
from nanosft.generate.rows.runner import Runner, ShardResult, Timing

__all__ = [
    "AnswerChecker",
    "Ask",
    "AskJudge",
    "Budget",
    "Job",
    "Judge",
    "RetryPolicy",
    "RowMaker",
    "Runner",
    "ShardResult",
    "Timing",
    "make_index",
    "read_ledgers",
    "split_budget",
]
