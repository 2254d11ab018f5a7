"""Evaluate: does a model know who it is, how does it carry itself, and what has it forgotten?

In the order in which data meets them: `probing` (what is asked, and how), `answering` (the one place that runs
models), `scoring` and `conduct` (what answers are worth), `second_opinion` (what a judge is asked, and says of them),
`forgetting` (bits per byte), `tasks` (of one's own, and nanochat's ChatCORE), `statistics`, `results` (what was found,
as it is kept), `kept` (the form of that), `keeping` (in the store), `report` (for people), `stage` (the order of
work).

    from nanosft.evaluate import EvalSettings, evaluate
    found = evaluate(EvalSettings(model="run", base="base"))
    found.figures["chat"]["identity"].mean
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from nanosft.evaluate.results import Evaluation
    from nanosft.evaluate.stage import evaluate
    from nanosft.evaluate.statistics import Interval
    from nanosft.settings.evaluate import EvalSettings

_HOMES: Final = {
    "EvalSettings": "nanosft.settings.evaluate",
    "Evaluation": "nanosft.evaluate.results",
    "Interval": "nanosft.evaluate.statistics",
    "evaluate": "nanosft.evaluate.stage",
}

__all__ = ["EvalSettings", "Evaluation", "Interval", "evaluate"]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)
