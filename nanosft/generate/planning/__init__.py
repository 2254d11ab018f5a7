"""The prompt plan: topic, persona, dynamic and first message of each row. Pure.

`dimensions` reads what a plan is made of (`dimensions.toml`), `openings` writes first messages, `lengths` has long
talks go on, `plan` deals them out by row, `deals` models and languages by their shares, which `balancing` evens out,
all by `draws` of the seed; `choice` picks a few rows that differ, and `coverage` counts what the first rows of a plan
cover.
"""

from nanosft.generate.planning.choice import choose_rows
from nanosft.generate.planning.coverage import cover, render_coverage
from nanosft.generate.planning.deals import DEALING
from nanosft.generate.planning.dimensions import Dimensions, Level, Move, Topic, read_dimensions, slots_of
from nanosft.generate.planning.lengths import LONG_TALK, TOKENS_PER_MESSAGE
from nanosft.generate.planning.openings import rewrite_message
from nanosft.generate.planning.plan import Plan, PlanRow, make_plan, plan_row

__all__ = [
    "DEALING",
    "LONG_TALK",
    "TOKENS_PER_MESSAGE",
    "Dimensions",
    "Level",
    "Move",
    "Plan",
    "PlanRow",
    "Topic",
    "choose_rows",
    "cover",
    "make_plan",
    "plan_row",
    "read_dimensions",
    "render_coverage",
    "rewrite_message",
    "slots_of",
]
