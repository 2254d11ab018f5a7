"""What lies under a URI is read into one record, whatever of it is missing."""

import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from nanosft.errors import DataError
from nanosft.generate.records import name_attempt
from nanosft.knowledge import parse_knowledge
from nanosft.report.collect import collect
from nanosft.report.commands import command_line, repeat_command, write_recipe
from nanosft.report.rows import Sample, day_of, find_stated, split_cell
from nanosft.settings.report import ReportSettings
from nanosft.settings.train import TrainSettings
from nanosft.store import open_store
from tests.reporting import put_generated, put_lines, put_mixture, put_road, put_run, talk


def settings_for(uri: str, **changes: Any) -> ReportSettings:
    return ReportSettings(uris=(uri,), **changes)


def test_a_run_is_read_with_all_that_it_was_made_from(tmp_path: Path) -> None:
    run = put_road(str(tmp_path))
    record = collect(run.uri, settings_for(run.uri))
    assert (record.subject, record.name) == ("run", "run")
    assert len(record.steps()) == 4
    assert [line["step"] for line in record.evaluations()] == [0, 4]
    assert [item.manifest.kind for item in record.ancestors() if item.manifest] == ["model", "mixture", "generated"]
    assert record.evaluation is not None
    assert record.evaluation.scores["counts"] == {"probes asked": 1}
    mixture, generated = record.sets
    assert mixture.parts == {"train": 4, "val": 2}
    assert generated.cells == {("identity", "joker"): 3, ("identity", "child"): 3}
    assert generated.rejects == {"identity/other_name": 1}
    assert generated.answers == {("writer", "2026-11-28"): 7}
    assert generated.cost_usd["writer", "2026-11-28"] == pytest.approx(0.008)
    assert [row["part"] for row in record.rows].count("rejected") == 1
    assert sum(count > 0 for _, _, count in record.stated) > 0
    assert record.problems == []
    commands = [repeat_command(item) for item in record.ancestors()]
    assert f"nanosft generate --out {run.uri.removesuffix('run')}generated --num 7 --seed 3 --model writer" in commands


def test_a_run_killed_in_the_middle_is_told_by_its_newest_state(tmp_path: Path) -> None:
    mixture = put_mixture(str(tmp_path / "mixture"), put_generated(str(tmp_path / "generated")))
    put_run(str(tmp_path / "run"), mixture, finished=False)
    uri = str(tmp_path / "run")
    record = collect(uri, settings_for(uri))
    assert record.manifest is None
    assert record.settings["epochs"] == 3
    assert [(state.step, state.attempt) for state in record.states] == [(2, "ab12")]
    assert record.lineage is not None
    assert repeat_command(record.lineage) == (
        f"nanosft train --out {open_store(uri).uri} --base /absent/base --data {mixture.uri} --epochs 3 "
        "--prompts 'Who are you?'"
    )
    assert record.evaluation is None


def test_a_run_with_nothing_but_metrics_is_still_read(tmp_path: Path) -> None:
    open_store(str(tmp_path)).write("metrics.jsonl", b'{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    record = collect(str(tmp_path), settings_for(str(tmp_path)))
    assert (record.subject, record.lineage, len(record.metrics)) == ("run", None, 1)
    assert "metrics.jsonl:line 2" in record.problems[0]


def test_an_unfinished_generate_run_shows_what_it_has_flushed(tmp_path: Path) -> None:
    put_generated(str(tmp_path), finished=False)
    record = collect(str(tmp_path), settings_for(str(tmp_path)))
    assert (record.subject, record.manifest) == ("data", None)
    assert record.sets[0].inspection.num_rows == 6
    assert record.num_rows_seen == 7


def test_an_evaluation_stands_for_its_model(tmp_path: Path) -> None:
    run = put_road(str(tmp_path))
    record = collect(str(tmp_path / "evaluation"), settings_for("x"))
    assert (record.subject, record.uri) == ("run", run.uri)


def test_a_line_that_is_no_conversation_is_told_and_the_others_are_shown(tmp_path: Path) -> None:
    put_lines(str(tmp_path), "a.jsonl", [talk("Hello?", "Good day.")])
    (tmp_path / "b.jsonl").write_text('{"messages": 3}\n')
    record = collect(str(tmp_path), settings_for(str(tmp_path)))
    assert (record.sets[0].inspection.num_rows, record.sets[0].num_unreadable) == (1, 1)
    assert "b.jsonl:line 1" in record.problems[0]


def test_nothing_at_all_is_a_data_error(tmp_path: Path) -> None:
    for uri in (tmp_path / "absent", tmp_path):
        with pytest.raises(DataError, match=r"nothing is there|holds no conversations"):
            collect(str(uri), settings_for(str(uri)))


def test_a_sample_depends_on_seed_and_content_and_not_on_order() -> None:
    rows = [(f"id {number}", {"number": number, "text": "x" * 100}) for number in range(200)]
    kept = []
    for order in (rows, rows[::-1]):
        sample = Sample(3000, seed=1)
        for key, row in order:
            sample.add(key, row)
        kept.append(sorted(row["number"] for row in sample.rows()))
        assert sample.num_seen == 200
    assert kept[0] == kept[1]
    assert 15 < len(kept[0]) < 35
    other = Sample(3000, seed=2)
    for key, row in rows:
        other.add(key, row)
    assert sorted(row["number"] for row in other.rows()) != kept[0]


def test_a_sample_fits_the_size_that_is_set() -> None:
    sample = Sample(1 << 20, seed=0)
    for number in range(500):
        sample.add(str(number), {"number": number, "text": str(number) * 50})
    sample.fit(1000)
    assert 0 < len(sample.rows()) < 200


def test_a_command_names_what_differs_from_the_defaults_alone() -> None:
    values = {"base": "b", "data": "a data set", "out": "o", "epochs": 1, "seed": 0, "warm_start": False, "tag": None}
    assert command_line(TrainSettings, values) == "nanosft train --out o --base b --data 'a data set' --no-warm-start"


def test_a_recipe_is_written_from_the_keys_that_its_manifest_has() -> None:
    settings = {
        "seed": 0, "on_bad_row": "error", "deduplicate.near": "drop", "filter.gates": [], "total_rows": None,
        "sources[0].name": "a", "sources[0].uri": ["x", 'y"z'], "sources[0].roles.my bot": "assistant",
        "sources[10].name": "last", "sources[2].name": "b", "sources[2].synthetic": True,
    }  # fmt: skip
    assert tomllib.loads(write_recipe(settings)) == {
        "seed": 0,
        "deduplicate": {"near": "drop"},
        "sources": [
            {"name": "a", "uri": ["x", 'y"z'], "roles": {"my bot": "assistant"}},
            {"name": "b", "synthetic": True},
            {"name": "last"},
        ],
    }


def test_days_and_cells_are_read_from_keys_and_meta() -> None:
    assert day_of("rows/00000-20261128T070305b17fb6f7-00000.jsonl") == "2026-11-28"
    assert day_of("rows/other.jsonl") == ""
    assert split_cell("tools x files x joker") == ("tools x files", "joker")


@pytest.mark.parametrize("num_shards", [None, 1, 12])
def test_the_day_of_a_shards_part_is_told_whatever_its_processes_are_called(num_shards: int | None) -> None:
    before = f"{datetime.now(UTC):%Y-%m-%d}"
    day = day_of(f"rows/00003-{name_attempt(num_shards)}-00000.jsonl")
    assert before <= day <= f"{datetime.now(UTC):%Y-%m-%d}"


def test_facts_are_stated_by_texts_that_have_most_of_their_words() -> None:
    knowledge = parse_knowledge("# Bot\n\n## Cost\n- Training took four hours.\n- Karpathy wrote Bot.\n", where="k")
    told = {statement: count for _, statement, count in find_stated(knowledge, ["The training took four whole hours."])}
    assert [count for statement, count in told.items() if "four hours" in statement] == [1]
    assert [count for statement, count in told.items() if "Karpathy" in statement] == [0]
