"""What the soak's figures and its verdicts are made of."""

import subprocess
import sys
import time

import pytest

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
        while not found.samples or found.samples[-1]["MiB"] < 60:
            time.sleep(0.05)
        pids = list_tree(process.pid)
        kill_tree(process)
    assert len(pids) == 2
    assert found.largest_mib >= 60
    assert found.samples[-1]["threads"] == 2
    assert found.samples[-1]["descriptors"] >= 6


def test_fewer_than_four_samples_are_no_course():
    with pytest.raises(ValueError, match="no quarters"):
        summarize([1.0, 2.0, 3.0])
