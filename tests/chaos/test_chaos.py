"""A part of `make chaos`, the same each time: kills, twins and faults at some of the calls of each command."""

from pathlib import Path

import pytest

from tests.chaos.explore import explore
from tests.chaos.points import Backend
from tests.chaos.real import explore_real
from tests.chaos.stages import STAGES

SHARES = {"generate": 0.015, "generate judged": 0.01, "mix": 0.015, "train": 0.002, "export data": 0.03}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a dead process closes no files
@pytest.mark.parametrize("backend", ["local", "s3"])
@pytest.mark.parametrize("stage", SHARES)
def test_a_kill_or_a_fault_at_any_call_loses_nothing_and_is_mended_by_the_same_command(
    stage: str, backend: Backend, tmp_path: Path
) -> None:
    found = explore(STAGES[stage], backend, tmp_path, share=SHARES[stage] / (1 if backend == "local" else 2), seed=1)
    assert found.tried.total() > 0
    assert found.problems == []


def test_a_process_of_the_system_that_is_killed_at_a_call_is_mended_by_the_same_command(tmp_path: Path) -> None:
    found = explore_real(STAGES["export data"], "local", tmp_path, num_kills=1, num_pairs=1)
    assert found.tried["kill before"] + found.tried["kill after"] > 0
    assert found.tried["at once"] == 1
    assert found.problems == []
