"""Processes that work in parallel, and what becomes of a run whose process is killed."""

import os
import signal

import pytest

from nanosft.errors import StoreError
from nanosft.parallel import Workers


def keep_nothing(_number: int) -> None:
    """A set-up."""


def get_pid() -> int:
    return os.getpid()


def repeat(number: int) -> int:
    return number


def test_a_worker_killed_between_two_tasks_is_a_store_error_and_no_defect():
    """mix ended with exit code 1 when the process died before the next task was handed to it."""
    with Workers(2, keep_nothing) as workers:
        first, _ = workers.each(get_pid)
        os.kill(first, signal.SIGKILL)
        for _ in range(2):  # the first may meet the death at a result, the second one where it hands a task over
            with pytest.raises(StoreError, match="a worker process was killed"):
                workers.each(get_pid)
        with pytest.raises(StoreError, match="a worker process was killed"):
            list(workers.map(repeat, [(1,), (2,)]))
