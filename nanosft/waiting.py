"""How OpenMP's threads wait for one another, and what else libraries read from the environment when torch is loaded."""

import os
import statistics
import time
from collections.abc import MutableMapping
from pathlib import Path
from typing import Final

_SPIN_ROUNDS: Final = 10_000
_BUSY_SHARE: Final = 0.25
_LOOKS: Final = 5
_LOOK_INTERVAL_S: Final = 0.004
_LOADAVG: Final = Path("/proc/loadavg")


def set_library_defaults(environ: MutableMapping[str, str]) -> None:
    """Set what the user has not set; it must happen before torch is loaded, and holds for child processes too.

    OpenMP's threads wait for one another between any two steps of a pass. On quiet cores they should spin a while,
    which costs nothing and saves a third of a step; on cores that others use too they should sleep at once: its own
    300,000 rounds made a small model's step 20 times as long there (14.5 s against 0.65 s, at a load of 7 on two
    cores). So the processes that want to run now decide, and on quiet cores the rounds are few enough to do little harm
    where others come later.
    """
    if not environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}:
        is_busy = count_running_others() > _BUSY_SHARE * (os.cpu_count() or 1)
        environ["GOMP_SPINCOUNT"] = "0" if is_busy else str(_SPIN_ROUNDS)
    # Batches of several lengths would leave holes between CUDA's blocks of fixed size.
    if not environ.keys() & {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"}:
        environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"


def count_running_others(path: Path = _LOADAVG) -> float:
    """Threads of the machine that run or want to, beside this one: the median of a few looks; 0 where nothing says it.

    The load average would still count a run that ended a minute ago.
    """
    counts = []
    for _ in range(_LOOKS):
        try:
            counts.append(int(path.read_text().split()[3].partition("/")[0]) - 1)
        except (OSError, ValueError, IndexError):
            return 0.0
        time.sleep(_LOOK_INTERVAL_S)
    return statistics.median(counts)
