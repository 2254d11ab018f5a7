import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import __main__ as chaos
from tests.chaos import table
from tests.chaos.points import Found
from tests.chaos.stages import WEIGHTS
from tests.chaos.table import Part
from tests.chaos.tasks import Task


def part_of(stage: str, *, number: int = 0) -> Part:
    found = Found(
        num_calls=9, possible=Counter({"kill before": 9, "500": 9}), chosen=Counter({"kill before": 2, "500": 3})
    )
    found.tried.update({"kill before": 4, "500": 3})
    return Part.of(Task(stage, "s3", is_real=False, number=number), found, 1.0)


def test_a_run_that_is_interrupted_says_what_was_tried_and_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def try_some(*_: Any) -> Iterator[Part]:
        yield part_of("mix")
        raise KeyboardInterrupt

    path = tmp_path / "found.json"
    monkeypatch.setattr(chaos, "_try_all", try_some)
    monkeypatch.setattr("sys.argv", ["chaos", "--stage", "mix", "--json", str(path)])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as caught:
        chaos.main()
    assert caught.value.code == 130
    told = capsys.readouterr().out
    assert "mix, s3" in told
    assert "INTERRUPTED: 1 of 4 parts" in told
    found = json.loads(path.read_text())
    assert (found["is_whole"], found["all"]["tried"]["kill before"]) == (False, 4)


def test_a_way_to_go_wrong_is_told_with_the_number_of_times_it_was_looked_for() -> None:
    parts = [part_of("mix"), part_of("train"), part_of("generate")]
    parts[1].found.add(WEIGHTS, "somewhere", "a hash")
    told = table.conclude(parts)
    assert told.startswith("rows lost 0 in 7; paid twice 0 in 7; manifests wrong 0 in 21; weights differing 1 in 7;")
    assert "6/27" in table.line(table.add(parts))
    assert "kill before 4 (2/9), 500 3 (3/9)" in parts[0].kinds()
