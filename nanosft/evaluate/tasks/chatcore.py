"""ChatCORE, nanochat's score of a chat model: the mean over its tasks of accuracy, centred on chance. Pure.

nanochat has changed it, so its name says which: five tasks since July 2026 (commit 92d63d4), six before. A mean over
some of the tasks, or over problems that are not all, is called something else.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from nanosft.evaluate.statistics import Interval, bootstrap_centred

NAME: Final = "ChatCORE of five tasks (nanochat 92d63d4)"
BASELINES: Final = {"ARC-Easy": 0.25, "ARC-Challenge": 0.25, "MMLU": 0.25, "GSM8K": 0.0, "HumanEval": 0.0}
"""What chance reaches."""
NUM_PROBLEMS: Final = {"ARC-Easy": 2376, "ARC-Challenge": 1172, "MMLU": 14042, "GSM8K": 1319, "HumanEval": 164}
"""Of the test splits on the Hub: allenai/ai2_arc, cais/mmlu (all), openai/gsm8k (main), openai/openai_humaneval."""


def find_chatcore_task(name: str) -> str | None:
    """The task of ChatCORE that a file or directory of this name is; None: it is none of them."""
    plain = _plain(name)
    return next((task for task in BASELINES if _plain(task) == plain), None)


def summarize_chatcore(right: Mapping[str, Sequence[bool]], *, max_problems: int | None = None) -> dict[str, Interval]:
    """The score, under a name that says what it is a mean of; nothing where no task is one of ChatCORE's.

    Args:
        right: By task, whether each problem was solved.
        max_problems: The limit under which they were.
    """
    found = {task: right[task] for task in BASELINES if right.get(task)}
    if not found:
        return {}
    is_whole = len(found) == len(BASELINES)
    name = NAME if is_whole else f"{len(found)} of {len(BASELINES)} tasks, centred: {', '.join(found)}"
    if max_problems is not None:
        name += f", at most {max_problems} each"
    elif any(len(values) != NUM_PROBLEMS[task] for task, values in found.items()):
        name += ", not the Hub's whole splits"
    groups = [([float(value) for value in values], BASELINES[task]) for task, values in found.items()]
    return {name: bootstrap_centred(groups)}


def _plain(name: str) -> str:
    return "".join(char for char in name.lower() if char.isalnum())
