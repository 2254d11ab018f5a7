import subprocess
import sys
from pathlib import Path

import pytest

from nanosft.memory import keep_freed_memory

_ALLOCATE = """
import resource
import numpy as np
from nanosft.memory import keep_freed_memory

if {kept}:
    assert keep_freed_memory(environ={{}})
for _ in range(3):
    np.ones(5_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(5_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.parametrize("own", ["MALLOC_TRIM_THRESHOLD_", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_what_the_user_has_set_of_the_allocator_stays(own):
    assert not keep_freed_memory(environ={own: ""})


def test_memory_that_was_freed_is_not_asked_of_the_kernel_again():
    kept, given_back = (
        int(subprocess.check_output([sys.executable, "-c", _ALLOCATE.format(kept=kept)], cwd=Path(__file__).parents[2]))
        for kept in (True, False)
    )
    assert kept < given_back / 10
