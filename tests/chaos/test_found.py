"""What `make chaos` has found: a test each."""

import random
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from nanosft.data import read_manifest
from nanosft.errors import StoreError
from nanosft.store import open_store
from nanosft.store.base import MissingObjectError
from tests.chaos import batches
from tests.chaos.explore import Explorer, explore, simulation
from tests.chaos.faults import Killed, Kind, Process, running
from tests.chaos.local import simulated_stores
from tests.chaos.points import Found
from tests.chaos.s3 import memory_s3
from tests.chaos.stages import STAGES, prepared, put_inputs
from tests.chaos.wire import Answer


def test_a_twin_does_not_wait_for_the_lock_of_the_process_that_is_held(tmp_path: Path) -> None:
    """Both had one endpoint, whose first conditional put is made under its lock: two parts of a run waited for ever."""
    with simulation("s3", tmp_path) as place:
        explorer = Explorer(STAGES["audit"], place, Found(), random.Random(0))
        first_put = next(number for number, call in enumerate(explorer.calls) if call.startswith("PUT "))
        for point in (first_put - 1, first_put, first_put + 1):
            explorer.try_point("twin", point)
    assert explorer.found.tried["twin"] > 3
    assert explorer.found.problems == []


@pytest.mark.parametrize("kind", ["body cut", "body short"])
def test_an_error_whose_body_breaks_is_asked_for_again(kind: Kind) -> None:
    """A 404 that broke in its body ended a run with 75: botocore does not repeat what it reads after its retries."""
    process = Process(kind, 0)
    with simulated_stores(), memory_s3(), running(process), pytest.raises(MissingObjectError):
        open_store("s3://chaos/set").read("manifest.json")
    assert (process.met, len(process.calls)) == ("GET /chaos/set/manifest.json", 2)


def test_a_plan_that_a_listing_does_not_show_yet_may_pass(tmp_path: Path) -> None:
    """A listing that lagged behind the plan's record ended the run with KeyError, as a defect."""
    inputs, undisturbed = str(tmp_path / "inputs"), Process()
    with prepared(tmp_path), simulated_stores():
        put_inputs(inputs)
        with running(undisturbed):
            STAGES["generate"].run(inputs, str(tmp_path / "first"), 0)
        process = Process("stale listing", undisturbed.calls.index("write_if_absent plan/00000008.json"))
        with running(process), pytest.raises(StoreError, match="not yet in a listing: run the same command again"):
            STAGES["generate"].run(inputs, str(tmp_path / "set"), 0)


def test_a_listing_whose_date_is_damaged_may_pass() -> None:
    """The ValueError of botocore's parser ended a run as a defect."""
    with simulated_stores(), memory_s3() as server:
        store = open_store("s3://chaos/set")
        store.write("x", b"1")
        listing = server._answer

        def damage(*arguments: Any, **how: Any) -> Answer:
            answer = listing(*arguments, **how)
            answer.body = answer.body.replace(b"+00:00</LastModified>", b"+00;00</LastModified>")
            return answer

        with mock.patch.object(server, "_answer", damage), pytest.raises(StoreError, match="cannot be read"):
            list(store.list())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_batch_whose_answers_two_processes_have_put_is_billed_once(tmp_path: Path) -> None:
    """A process held before it put its rows came after its twin's: the manifest stated the batch's cost twice."""
    found = explore(STAGES["batch openrouter"], "local", tmp_path, points=[("twin", 60)])
    assert found.tried["twin"] > 0
    assert found.problems == []


class _Killed(Process):
    """Killed at the first call whose name holds some words."""

    def __init__(self, words: str, kind: Kind) -> None:
        super().__init__()
        self._words, self._kind = words, kind

    def take(self, call: str) -> Kind | None:
        super().take(call)
        if self._words not in call:
            return None
        if self._kind == "kill before":
            self.die()
        return self._kind


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_answer_that_a_killed_process_never_had_is_in_nobodys_bill(tmp_path: Path) -> None:
    """Told as another result: an answer asked for alone was billed, and the process that was to get it killed."""
    stage, out = STAGES["batch gone"], "s3://chaos/out/set"
    with simulation("s3", tmp_path) as place:
        for process in (_Killed(".sent.json", "kill before"), _Killed("/chat/completions", "kill after")):
            with running(process), pytest.raises(Killed):
                stage.run(f"{place.root}/inputs", out, 0)
        with running(Process()):
            stage.run(f"{place.root}/inputs", out, 0)
        view = place.view(out)
        manifest = read_manifest(open_store(view))
        assert manifest is not None
        assert batches.is_bill_stated(view, manifest)

        with mock.patch.object(batches.service_of("gone", view), "num_alone", 99):
            assert not batches.is_bill_stated(view, manifest)
        batches.forget(view)
