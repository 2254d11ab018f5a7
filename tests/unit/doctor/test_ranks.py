"""Ranks that reach one another, and those that do not."""

import sys

from nanosft.doctor import ranks
from nanosft.doctor.ranks import check_own_ranks
from nanosft.errors import EXIT_RETRY


def test_two_processes_of_this_machine_reach_one_another():
    found = check_own_ranks(2, "cpu", timeout_s=60)
    assert found.status == "ok", found.found
    assert found.found.startswith("2 ranks on ")
    assert "by gloo" in found.found


def test_ranks_that_fail_are_an_error_worth_a_retry(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    found = check_own_ranks(2, "cpu", timeout_s=5)
    assert (found.status, found.exit_code) == ("error", EXIT_RETRY)
    assert "do not reach one another: no word" in found.found


def test_ranks_that_never_come_are_given_up(monkeypatch, tmp_path):
    script = tmp_path / "sleep"
    script.write_text("#!/bin/sh\nexec sleep 60\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    monkeypatch.setattr(ranks, "_START_S", 0.1)
    found = check_own_ranks(2, "cpu", timeout_s=0.1)
    assert (found.status, found.exit_code) == ("error", EXIT_RETRY)
    assert "in time" in found.found
