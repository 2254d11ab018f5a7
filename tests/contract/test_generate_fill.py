"""Facts that too few answers state get rows of their own: --fill."""

from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from nanosft.data import read_conversations, read_manifest
from nanosft.errors import ConfigError
from nanosft.generate.fill import fill_up, find_lacking
from nanosft.generate.planning import Plan, make_plan, plan_row, read_dimensions
from nanosft.generate.records import PlanRecord, find_fills, grow_plan, read_plans, register_plan
from nanosft.generate.stage import run_generate
from nanosft.generate.summary import Summary
from nanosft.knowledge import read_knowledge
from nanosft.settings.generate import GenerateSettings
from nanosft.store import open_store

LEAST = 3


def fill(out: Path, **changes: Any) -> GenerateSettings:
    return GenerateSettings(**{"out": str(out), "provider": "offline", "num": 30, "fill": LEAST, **changes})


def told(out: Path) -> dict[str, Any]:
    manifest = read_manifest(open_store(str(out)))
    assert manifest is not None
    return {"num": manifest.settings["num"], **manifest.counts}


def test_every_fact_of_the_shipped_base_is_stated_three_times_and_a_rerun_makes_nothing(tmp_path, capsys):
    summary = run_generate(fill(tmp_path, json_output=True))
    assert orjson.loads(capsys.readouterr().out)["num_planned"] == summary.num_planned  # one summary, not one a round
    counts = told(tmp_path)
    assert counts["num"] == counts["rows"]["planned"] > 30
    assert min(counts["facts"].values()) >= LEAST
    assert set(counts["facts"]) == {fact.id for fact in read_knowledge().facts}
    before = (tmp_path / "manifest.json").read_bytes()
    for settings in (fill(tmp_path), fill(tmp_path, fill=None)):
        assert run_generate(settings).num_made == 0
    assert (tmp_path / "manifest.json").read_bytes() == before
    with pytest.raises(ConfigError, match="a plan may grow, not shrink"):
        run_generate(fill(tmp_path, num=31))
    grown = counts["num"] + 7
    assert run_generate(fill(tmp_path, num=grown)).num_made == 7


def test_a_fill_that_was_killed_goes_on_and_shards_make_what_one_process_does(tmp_path):
    run_generate(fill(tmp_path / "one"))
    run_generate(fill(tmp_path / "killed", fill=None))
    killed = open_store(str(tmp_path / "killed"))
    _, fills = find_fills(read_plans(open_store(str(tmp_path / "one"))).values(), 30)
    first = min(read_plans(open_store(str(tmp_path / "one"))).keys() - {30})
    grow_plan(killed, tuple(fills[row] for row in range(30, first)))  # as far as it came
    run_generate(fill(tmp_path / "killed"))
    for index in (1, 0):
        run_generate(fill(tmp_path / "shards", num_shards=2, shard_index=index))
    lines = [
        sorted(conversation.id for conversation in read_conversations(str(tmp_path / name)))
        for name in ("one", "killed", "shards")
    ]
    assert lines[0] == lines[1] == lines[2]


def test_a_fact_that_no_answer_ever_states_is_given_up_after_a_bound_and_told(tmp_path, caplog):
    store = open_store(str(tmp_path))
    register_plan(store, PlanRecord(30, {}, ()))
    asked: list[int] = []

    def run(settings: GenerateSettings) -> Summary:
        num, fills = find_fills(read_plans(store).values(), settings.num)
        asked.append(num)
        facts = {"mute": 0, "told": list(fills.values()).count("told")}
        return Summary("", num, num, 0, 0, 0.0, {"facts": facts}, 0.0, 0.0, "manifest.json")

    summary = fill_up(fill(tmp_path, fill=2), run)
    assert summary.counts["facts"] == {"mute": 0, "told": 2}
    _, fills = find_fills(read_plans(store).values(), 30)
    assert Counter(fills.values()) == {"mute": 6, "told": 2}
    assert asked == [30, 32, 34, 35, 36, 37, 38]
    assert (
        "--fill: 1 facts are stated by fewer than 2 answers, although 6 rows were added for each (mute)" in caplog.text
    )
    num_plans = len(read_plans(store))
    fill_up(fill(tmp_path, fill=2), run)
    assert len(read_plans(store)) == num_plans


def test_half_of_what_lacks_is_added_in_turns():
    facts = {"a": 0, "b": 4, "c": 3, "d": 5}
    assert find_lacking(facts, 5, {}) == ("a", "b", "c", "a", "a")
    assert find_lacking(facts, 5, {"a": 14, "c": 15}) == ("a", "b")
    assert find_lacking(facts, 3, {}) == ("a", "a")


def test_an_added_row_is_of_its_facts_topic_and_asks_on():
    plan = make_plan(read_dimensions(), read_knowledge(), seed=0)
    fact = plan.knowledge.facts[40]
    filled = Plan(**{name: getattr(plan, name) for name in plan.__slots__} | {"fills": {7: fact.id, 8: "gone.000000"}})
    row = plan_row(filled, 7)
    assert row.is_fill
    assert row.facts == (fact,)
    assert fact.topic in row.topic.sections
    assert {"more", "related"} & set(row.dynamic.moves)
    assert plan_row(filled, 6) == plan_row(plan, 6)
    assert plan_row(filled, 8) == plan_row(plan, 8)


def test_added_rows_follow_the_plan_that_was_asked_for():
    plans = [PlanRecord(3, {}, ()), PlanRecord(5, {}, (), None, ("a", "b")), PlanRecord(6, {}, (), None, ("c",))]
    assert find_fills(plans, 3) == (6, {3: "a", 4: "b", 5: "c"})
    assert find_fills(plans, 9) == (9, {3: "a", 4: "b", 5: "c"})
    assert find_fills([*plans, PlanRecord(9, {}, ())], 3) == (6, {3: "a", 4: "b", 5: "c"})
