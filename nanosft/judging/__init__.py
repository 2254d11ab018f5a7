"""Asks a chat API to judge what evaluate and audit want to know.

It stands above the stages, as the demo does: the client is generate's, `verdicts` are asked for evaluate, and `scores`
for audit; `asking` does both under one bill.
"""

from nanosft.judging.scores import make_scorer
from nanosft.judging.verdicts import make_judge

__all__ = ["make_judge", "make_scorer"]
