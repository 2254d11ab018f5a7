"""`nanosft wait`: time passes when it sleeps, and a directory is its store."""

from collections.abc import Callable
from pathlib import Path

import pytest

from nanosft.data import JobProcess
from nanosft.errors import ConfigError, DataError, StoreError
from nanosft.settings.run import WaitSettings
from nanosft.store.local import LocalStore
from nanosft.wait import run_wait


class Time:
    """A clock that moves when someone sleeps, and calls `at` moments on its way."""

    def __init__(self, **at: Callable[[], object]) -> None:
        self.now_s = 100.0
        self.sleeps: list[float] = []
        self._at = {100.0 + float(key.removeprefix("s")): action for key, action in at.items()}

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now_s += seconds
        for moment in [moment for moment in self._at if moment <= self.now_s]:
            self._at.pop(moment)()


def _wait(uri: Path | str, time: Time, *, timeout_s: float = 60, interval_s: float = 10) -> None:
    settings = WaitSettings(uri=str(uri), timeout_s=timeout_s, interval_s=interval_s)
    run_wait(settings, clock=time.clock, sleep=time.sleep)


def test_a_finished_set_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    time = Time()
    _wait(tmp_path, time, timeout_s=0)
    assert time.sleeps == []


def test_it_returns_soon_after_the_manifest_is_put(tmp_path: Path) -> None:
    time = Time(s25=lambda: (tmp_path / "manifest.json").write_text("{}"))
    _wait(tmp_path, time)
    assert time.sleeps == [10, 10, 10]


def test_parts_without_a_manifest_are_not_enough(tmp_path: Path) -> None:
    (tmp_path / "train-00000.jsonl").write_text("{}\n")
    with pytest.raises(StoreError, match=r"manifest\.json: waited 60 s: it is not there") as caught:
        _wait(tmp_path, Time())
    assert caught.value.exit_code == 75


def test_the_last_pause_ends_with_the_timeout(tmp_path: Path) -> None:
    time = Time()
    with pytest.raises(StoreError):
        _wait(tmp_path, time, timeout_s=25)
    assert time.sleeps == [10, 10, 5]


@pytest.mark.parametrize("name", ["data.jsonl", "data.jsonl.gz", "data.jsonl.zst"])
def test_one_object_is_waited_for_itself(tmp_path: Path, name: str) -> None:
    time = Time(s5=lambda: (tmp_path / name).write_bytes(b""))
    _wait(tmp_path / name, time)
    assert time.sleeps == [10]


def test_the_manifests_own_uri_means_its_prefix(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    _wait(tmp_path / "manifest.json", Time(), timeout_s=0)


def test_a_store_that_does_not_answer_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    time = Time()

    def exists(*_: object) -> bool:
        if len(time.sleeps) < 2:
            raise StoreError("down")
        return True

    monkeypatch.setattr(LocalStore, "exists", exists)
    _wait(tmp_path, time)
    assert time.sleeps == [10, 10]


def test_what_the_store_said_last_is_in_the_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exists(*_: object) -> bool:
        raise StoreError("s3://b: no answer")

    monkeypatch.setattr(LocalStore, "exists", exists)
    with pytest.raises(StoreError, match="no answer"):
        _wait(tmp_path, Time())


def test_what_cannot_be_right_is_not_waited_for() -> None:
    with pytest.raises(ConfigError, match="names no bucket"):
        _wait("s3://", Time())


def _mark(out: Path, exit_code: int) -> None:
    JobProcess("mix", str(out), is_last_try=True).mark(exit_code, "error: no such source")


def test_a_stage_that_ends_for_good_ends_the_wait_with_its_code(tmp_path: Path) -> None:
    """generate had failed for good, mix waited for twelve hours a try, and sft held GPUs for eighteen."""
    time = Time(s25=lambda: _mark(tmp_path, 2))
    with pytest.raises(ConfigError, match=r"failure\.json: mix has ended for good with exit code 2: error: no such"):
        _wait(tmp_path, time)
    assert time.sleeps == [10, 10, 10]


def test_a_failure_of_an_earlier_start_may_be_taken_away(tmp_path: Path) -> None:
    _mark(tmp_path, 2)
    time = Time(s25=(tmp_path / "failure.json").unlink, s45=lambda: (tmp_path / "manifest.json").write_text("{}"))
    _wait(tmp_path, time)
    assert sum(time.sleeps) == 50


def test_a_failure_that_stays_is_one(tmp_path: Path) -> None:
    _mark(tmp_path, 75)
    time = Time()
    with pytest.raises(DataError, match="exit code 75"):
        _wait(tmp_path, time, timeout_s=3600)
    assert sum(time.sleeps) == 300


def test_a_look_tells_of_the_failure_too(tmp_path: Path) -> None:
    _mark(tmp_path, 4)
    with pytest.raises(StoreError, match="mix failed with exit code 4, and may have been started again"):
        _wait(tmp_path, Time(), timeout_s=0)


def test_what_is_finished_has_not_failed(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    _mark(tmp_path, 3)
    _wait(tmp_path, Time())
