"""Where much is forgotten the report says what lessened it in runs that were made."""

from nanosft.evaluate.report import advise
from nanosft.evaluate.results import CHANGE, Evaluation
from nanosft.evaluate.statistics import Interval


def make_evaluation(low: float, mean: float, high: float) -> Evaluation:
    return Evaluation({"base": {}, "chat": {}}, {CHANGE: {"bits per byte: plain text": Interval(mean, low, high, 9)}})


def test_much_forgetting_is_met_with_advice_and_little_is_not():
    advice = advise(make_evaluation(1.9, 2.1, 2.3))
    assert advice.startswith("Much is forgotten: plain text costs 2.10 bits per byte more than before (1.90 to 2.30).")
    assert "--init-lr-frac" in advice
    assert advise(make_evaluation(0.1, 0.5, 0.9)) == ""
    assert advise(Evaluation({"model": {}})) == ""
