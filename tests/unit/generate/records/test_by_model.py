from nanosft.generate.records.judgements import HELD
from nanosft.generate.records.totals import Tally

TOKENS = {"prompt": 10, "cached": 0, "completion": 5}


def row(model, cost_usd=0.25, **meta):
    return {"model": model, "cost_usd": cost_usd, "tokens": TOKENS, **meta}


def reject(model, reason, cost_usd=0.5, **record):
    return row(model, cost_usd, reason=reason, **record)


def test_answers_and_costs_are_counted_by_the_model_that_the_plan_names():
    tally = Tally()
    tally.add_row(row("a"))
    tally.add_row(row("a-20260101", asked="a"))
    tally.add_row(row("b", 0.125))
    tally.add_reject(reject("b", "style/too_short"))
    tally.add_reject(reject("b", "never_received", None))
    assert tally.counts()["models"] == {
        "a": {
            "answers": {"accepted": 2, "refused": 0, "unknown": 0},
            "answered_by": {"a": 1, "a-20260101": 1},
            "cost_usd": 0.5,
            "rejects": {},
        },
        "b": {
            "answers": {"accepted": 1, "refused": 1, "unknown": 1},
            "answered_by": {"b": 3},
            "cost_usd": 0.625,
            "rejects": {"never_received": 1, "style/too_short": 1},
        },
    }


def test_an_answer_that_was_held_counts_once_as_its_models():
    """`answered_by` had each twice, where a judge scored in batches."""
    tally = Tally()
    for model in ("a", "b"):
        tally.add_reject(reject(model, "held", 0.25, kind=HELD))
    tally.add_row(row("a", 0.0))
    tally.add_reject(reject("b", "judge/low_score", 0.0))
    models = tally.counts()["models"]
    assert {name: found["answered_by"] for name, found in models.items()} == {"a": {"a": 1}, "b": {"b": 1}}
    assert {name: found["cost_usd"] for name, found in models.items()} == {"a": 0.25, "b": 0.25}


def test_one_model_that_answers_by_its_own_name_is_not_counted_apart():
    tally = Tally()
    tally.add_row(row("a"))
    assert "models" not in tally.counts()
    tally.add_row(row("other", asked="a"))
    assert tally.counts()["models"]["a"]["answered_by"] == {"a": 1, "other": 1}


def test_scores_are_told_by_model():
    tally = Tally()
    for model, score in (("a", 5), ("a", 3), ("b", 1)):
        judge = {"model": "j", "scores": {"faithful": score}, "reason": "", "cost_usd": 0.0, "tokens": TOKENS}
        tally.add_row(row(model, judge=judge))
    models = tally.counts()["models"]
    assert {name: found["scores"]["faithful"]["mean"] for name, found in models.items()} == {"a": 4.0, "b": 1.0}
