"""What the soak's figures and its verdicts are made of."""

import subprocess
import sys
import time
from dataclasses import replace

import pytest

from tests.soak.pods import drive
from tests.soak.table import Stage, compare, render
from tests.soak.watch import kill_tree, list_tree, summarize, watching


def test_a_course_is_flat_up_to_five_percent_and_the_slack_above_its_second_quarter():
    course = summarize([10.0, 10.0, 400.0, 400.0, 410.0, 410.0, 440.0, 440.0])
    assert (course.first, course.second, course.last, course.largest) == (10.0, 400.0, 440.0, 440.0)
    assert course.is_flat("MiB")
    assert not course.is_flat("descriptors")
    grown = summarize([10.0, 10.0, 400.0, 400.0, 410.0, 410.0, 441.0, 441.0])
    assert not grown.is_flat("MiB")
    assert grown.is_flat("MiB", allowed=1.0)


def test_samples_count_memory_descriptors_and_threads_of_children_too():
    child = "import time; held = bytearray(60 << 20); time.sleep(60)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", parent]) as process, watching(process.pid, interval_s=0.05) as found:
        while found.largest_mib < 60 or not found.samples or found.samples[-1]["MiB"] < 60:
            time.sleep(0.05)
        last, pids = found.samples[-1], list_tree(process.pid)
        kill_tree(process)
    assert len(pids) == 2
    assert found.largest_mib >= 60
    assert last["threads"] == 2
    assert last["descriptors"] >= 6


def test_fewer_than_four_samples_are_no_course():
    with pytest.raises(ValueError, match="no quarters"):
        summarize([1.0, 2.0, 3.0])


def test_a_stage_is_compared_item_by_item_with_the_undisturbed_one():
    same = compare(Stage("generate", "rows", 0, 0), [1, 2, 3], [3, 2, 1])
    assert (same.asked, same.delivered, same.lost, same.duplicate, same.identical) == (3, 3, 0, 0, True)
    assert not same.faults
    other = compare(Stage("mix", "rows", 0, 0), [1, 2, 3], [1, 1, 2])
    assert (other.asked, other.delivered, other.lost, other.duplicate, other.identical) == (3, 2, 1, 1, False)
    assert other.faults == ["mix: 1 rows lost", "mix: 1 rows duplicate", "mix: not what the undisturbed stage made"]
    meant = compare(Stage("mix", "rows", 0, 0), [1, 1, 2], [1, 1, 2])  # a mixture repeats rows where its recipe says so
    assert not meant.faults


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"twice": 1}, "1 answers paid twice"),
        ({"unstated": 9, "may_be_unstated": 8}, "9 billed answers in no manifest; kills explain 8"),
        ({"unstated": -1}, "1 answers more in the manifest than were billed"),
        ({"identical": False}, "not what the undisturbed stage made"),
        ({"problems": ("exit code 1",)}, "exit code 1"),
    ],
)
def test_each_fault_of_a_stage_fails_the_soak(changes, fault):
    sound = Stage("generate", "rows", 5, 5, paid=6, bill_usd=0.5, twice=0, unstated=1, may_be_unstated=8)
    assert not sound.faults
    assert replace(sound, **changes).faults == [f"generate: {fault}"]


def test_the_table_has_a_line_a_stage_and_a_dash_where_nothing_is_paid():
    lines = render(
        [
            Stage("generate", "rows", 2000, 2000, paid=2300, bill_usd=1.4375, twice=0, unstated=3, stopped=2, killed=4),
            Stage("report", "pages", 1, 1, identical=False),
        ]
    ).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in (lines[0], *lines[2:])]
    first, second = (dict(zip(cells[0], line, strict=True)) for line in cells[1:])
    assert (first["asked"], first["paid"], first["bill"], first["unstated"]) == ("2,000", "2,300", "$1.4375", "3")
    assert (first["stopped"], first["killed"], first["identical"]) == ("2", "4", "yes")
    assert (second["paid"], second["bill"], second["paid twice"], second["identical"]) == ("-", "-", "-", "NO")


POD = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
print("up", flush=True)
time.sleep(0.5)
"""


def test_pods_are_stopped_and_killed_and_started_again_until_they_are_done(tmp_path):
    kills = []

    def count_started():
        return sum(path.stat().st_size > 0 for path in tmp_path.glob("*.log"))

    account = drive(
        [[sys.executable, "-c", POD]] * 2,
        env={},
        folder=tmp_path,
        blows=["SIGKILL", "SIGTERM"],
        reach_s=0.2,
        progress=count_started,
        on_kill=lambda: kills.append(1),
    )
    assert not account.problems
    assert (account.stopped, account.killed, account.resumed, len(kills)) == (1, 1, 2, 1)


def test_an_exit_code_that_no_contract_has_is_a_problem(tmp_path):
    account = drive([[sys.executable, "-c", "raise SystemExit('lost')"]], env={}, folder=tmp_path)
    assert account.problems == ["exit code 1 after nothing: lost"]
