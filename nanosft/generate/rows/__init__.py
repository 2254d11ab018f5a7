"""Rows in flight: asked for, checked, asked for again, under a budget.

`runner` keeps many rows going in one event loop; `row` is one row's way to a conversation; `checker` accepts or
rejects an answer; `judge` is the model that scores what was accepted; `lines` are what is put down of both.
`admission` lets no request be sent before what it may cost is reserved, for which `budget` has the `ledger` in the
store.
"""

from nanosft.generate.rows.admission import Cap, KindMeter
from nanosft.generate.rows.budget import Budget, Owed
from nanosft.generate.rows.checker import AnswerChecker, make_index
from nanosft.generate.rows.jobs import Job, RetryPolicy, iter_jobs
from nanosft.generate.rows.judge import AskJudge, Judge, JudgeBatches, WriteCase
from nanosft.generate.rows.known import filling
from nanosft.generate.rows.ledger import read_ledgers, split_budget
from nanosft.generate.rows.lines import held_answer
from nanosft.generate.rows.row import Ask, AskAgain, AwaitsScore, RowMaker
from nanosft.generate.rows.runner import MakeSome, Runner, ShardResult, Timing

__all__ = [
    "AnswerChecker",
    "Ask",
    "AskAgain",
    "AskJudge",
    "AwaitsScore",
    "Budget",
    "Cap",
    "Job",
    "Judge",
    "JudgeBatches",
    "KindMeter",
    "MakeSome",
    "Owed",
    "RetryPolicy",
    "RowMaker",
    "Runner",
    "ShardResult",
    "Timing",
    "WriteCase",
    "filling",
    "held_answer",
    "iter_jobs",
    "make_index",
    "read_ledgers",
    "split_budget",
]
