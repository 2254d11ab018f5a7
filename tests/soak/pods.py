"""Commands as a cluster runs them: stopped and killed at seeded moments, and started again until all are done."""

import os
import random
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from tests.soak.watch import ROOT, kill_tree, list_tree

Blow = Literal["SIGTERM", "SIGKILL", "SIGKILL to one process"]
_POLL_S: Final = 0.05
_MOST_STARTS: Final = 80
_TIMEOUT_S: Final = 1_800.0
_WORTH_A_RETRY: Final = frozenset({75, 138})
_CODES: Final[dict[Blow, frozenset[int]]] = {
    "SIGTERM": frozenset({143, -signal.SIGTERM}),
    "SIGKILL": frozenset({-signal.SIGKILL}),
    "SIGKILL to one process": _WORTH_A_RETRY,
}
"""Exit codes that a process may end with after a blow, beside 0: it may just have been done.

SIGTERM may meet a process that has not come to catching it, and ends by it: a shell and a cluster say 143 too. Had it
anything to save by then, the counts of its stage would show it.
"""


@dataclass
class Account:
    """How the processes of a stage went.

    Attributes:
        stopped: Of them got SIGTERM.
        killed: Got SIGKILL, all their processes or one.
        resumed: Were started again.
        problems: Exit codes that no contract has.
        elapsed_s: From the first start to the last end.
    """

    stopped: int = 0
    killed: int = 0
    resumed: int = 0
    problems: list[str] = field(default_factory=list)
    elapsed_s: float = 0.0


@dataclass
class _Pod:
    number: int
    process: "subprocess.Popen[bytes]"
    log: Path
    blow: Blow | None = None


def drive(
    commands: Sequence[Sequence[str]],
    *,
    env: Mapping[str, str],
    folder: Path,
    blows: Sequence[Blow] = (),
    reach_s: float = 0.0,
    progress: Callable[[], int] | None = None,
    draw: random.Random | None = None,
    on_kill: Callable[[], object] = lambda: None,
    at_a_time: int = 2,
) -> Account:
    """Run commands to their ends, whatever happens to them on the way.

    Args:
        commands: Each is one pod's; a pod that was ended is put at the end of the line.
        env: Variables beside those of this process.
        folder: For what they print.
        blows: What happens to one of those that run, one after the other.
        reach_s: The next blow comes up to so many seconds after the first progress since the one before.
        progress: Grows as they get on; without it a blow comes whether or not they do.
        draw: The moments, and who is hit.
        on_kill: Called when a process has been killed.
        at_a_time: Pods that run at once.
    """
    draw = draw or random.Random(0)
    account, waiting, left = Account(), deque(range(len(commands))), deque(blows)
    pods: list[_Pod] = []
    num_starts = 0
    started_s = time.monotonic()
    at_blow = progress() if progress else 0
    due_s: float | None = None
    try:
        while (waiting or pods) and not account.problems:
            while waiting and len(pods) < at_a_time:
                number = waiting.popleft()
                log = folder / f"{num_starts}.log"
                pods.append(_Pod(number, _start(commands[number], env, log), log))
                num_starts += 1
            now_s = time.monotonic()
            if num_starts > _MOST_STARTS or now_s - started_s > _TIMEOUT_S:
                account.problems.append(f"not done after {num_starts} starts and {now_s - started_s:.0f} s")
            if left and due_s is None and (progress is None or progress() > at_blow):
                due_s = now_s + draw.uniform(0, reach_s)
            unhurt = [pod for pod in pods if pod.blow is None and pod.process.poll() is None]
            if left and due_s is not None and now_s >= due_s and unhurt:
                _strike(draw.choice(unhurt), left.popleft(), account, draw)
                due_s, at_blow = None, progress() if progress else 0
            for pod in [pod for pod in pods if pod.process.poll() is not None]:
                pods.remove(pod)
                if not _is_done(pod, account):
                    waiting.append(pod.number)
                    account.resumed += 1
                if pod.process.returncode == -signal.SIGKILL:
                    on_kill()
            time.sleep(_POLL_S)
    finally:
        for pod in pods:
            kill_tree(pod.process)
    account.elapsed_s = time.monotonic() - started_s
    return account


def _start(command: Sequence[str], env: Mapping[str, str], log: Path) -> "subprocess.Popen[bytes]":
    with log.open("wb") as output:
        return subprocess.Popen(command, stdout=output, stderr=output, cwd=ROOT, env={**os.environ, **env})


def _strike(pod: _Pod, blow: Blow, account: Account, draw: random.Random) -> None:
    if blow == "SIGKILL to one process":
        others = list_tree(pod.process.pid)[1:]
        blow = blow if others else "SIGKILL"
        if others:
            with suppress(ProcessLookupError):
                os.kill(draw.choice(others), signal.SIGKILL)
    pod.blow = blow
    if blow == "SIGTERM":
        account.stopped += 1
        pod.process.send_signal(signal.SIGTERM)
        return
    account.killed += 1
    if blow == "SIGKILL":
        kill_tree(pod.process)


def _is_done(pod: _Pod, account: Account) -> bool:
    """Whether a pod that has ended is done; a code that it may not end with is a problem."""
    code = pod.process.returncode
    if code == 0:
        return True
    allowed = _WORTH_A_RETRY if pod.blow is None else _CODES[pod.blow] | _WORTH_A_RETRY
    if code not in allowed:
        text = pod.log.read_text(errors="replace").strip()[-600:]
        account.problems.append(f"exit code {code} after {pod.blow or 'nothing'}: {text}")
    return False
