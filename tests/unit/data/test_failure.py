"""The failure marker of a stage: who writes it, who takes it away, what a waiter makes of it."""

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from nanosft.data import FAILURE_KEY, JobProcess, read_failure
from nanosft.errors import EXIT_SIGTERM, CreditError, DataError, StoreError
from nanosft.store import open_store


def _process(out: Path, command: str = "mix", **environ: str) -> JobProcess:
    process = JobProcess.find([command], {"JOB_MARKS_FAILURE": "true", "NANOSFT_OUT": str(out), **environ})
    assert process is not None
    return process


@pytest.mark.parametrize(
    "environ",
    [
        {"NANOSFT_OUT": "out"},
        {"NANOSFT_OUT": "out", "JOB_MARKS_FAILURE": "false"},
        {"JOB_MARKS_FAILURE": "true"},
        {"JOB_MARKS_FAILURE": "true", "NANOSFT_OUT": "out", "RANK": "1"},
    ],
)
def test_only_the_first_rank_of_a_job_that_says_so_marks(environ: dict[str, str]) -> None:
    assert JobProcess.find(["mix"], environ) is None


def test_other_commands_mark_nothing() -> None:
    environ = {"JOB_MARKS_FAILURE": "true", "NANOSFT_OUT": "out"}
    assert [JobProcess.find(words, environ) for words in (["chat"], ["launch", "train"], [])] == [None] * 3


def test_permanent_codes_are_marked_and_others_on_the_last_try_alone(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    again = _process(tmp_path, JOB_BACKOFF_LIMIT="2", JOB_FAILURE_COUNT="1")
    again.mark(StoreError.exit_code, "error: no answer")
    assert read_failure(store) is None
    last = _process(tmp_path, JOB_BACKOFF_LIMIT="2", JOB_FAILURE_COUNT="2")
    for code in (0, 130, EXIT_SIGTERM):
        last.mark(code, "")
    assert read_failure(store) is None
    last.mark(StoreError.exit_code, "error: no answer")
    found = read_failure(store)
    assert found is not None
    assert (found.command, found.exit_code, found.message) == ("mix", 75, "error: no answer")
    assert isinstance(found.to_error("where"), DataError), "whoever waits need not try again"
    again.mark(CreditError.exit_code, "error: no credit")
    found = read_failure(store)
    assert found is not None
    assert isinstance(found.to_error("where"), CreditError)


def test_a_shards_start_leaves_the_marker_of_another_shard(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    shards = [_process(tmp_path, "generate", JOB_COMPLETION_INDEX=str(n), NANOSFT_NUM_SHARDS="3") for n in range(3)]
    shards[2].mark(4, "error: no credit")
    shards[0].clear()
    assert read_failure(store) is not None
    fewer = _process(tmp_path, "generate", JOB_COMPLETION_INDEX="0", NANOSFT_NUM_SHARDS="2")
    fewer.clear()
    assert read_failure(store) is None, "there is no shard 2 any more that could take it away"
    shards[1].mark(4, "error: no credit")
    shards[1].clear()
    assert read_failure(store) is None


def test_what_is_no_marker_is_none(tmp_path: Path) -> None:
    (tmp_path / FAILURE_KEY).write_text('{"exit_code": "many"}')
    assert read_failure(open_store(str(tmp_path))) is None


def test_a_store_that_cannot_be_opened_is_the_commands_to_complain_of() -> None:
    process = JobProcess("mix", out="gs://bucket/x")
    process.clear()
    process.mark(2, "error: …")


def test_the_command_line_marks_its_error_and_takes_it_away_again(tmp_path: Path) -> None:
    environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path), "JOB_MARKS_FAILURE": "true"}
    environ |= {"NANOSFT_OUT": str(tmp_path), "NANOSFT_URI": str(tmp_path / "upstream"), "NANOSFT_TIMEOUT_S": "many"}
    command = [sys.executable, "-m", "nanosft", "wait"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    marked = orjson.loads((tmp_path / FAILURE_KEY).read_bytes())
    assert (done.returncode, marked["command"], marked["exit_code"]) == (2, "wait", 2)
    assert marked["message"] in done.stderr
    done = subprocess.run(
        command, env=environ | {"NANOSFT_TIMEOUT_S": "0"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 75
    assert not (tmp_path / FAILURE_KEY).exists()
