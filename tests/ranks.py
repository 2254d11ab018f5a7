"""Ranks of `nanosft train` or `eval` as processes of their own, started fast: forked from a server that has torch."""

import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["nanosft.train.stage", "nanosft.evaluate.stage"])


def start_ranks(
    settings: dict[str, Any], size: int, *, log: Path, command: Literal["train", "eval"] = "train"
) -> list[BaseProcess]:
    """Start all ranks of a run; each exits with the code that the command line would give."""
    port = find_free_port()
    environ = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}  # the server has others
    ranks: list[BaseProcess] = [
        _context.Process(target=_run_rank, args=(command, settings, rank, size, port, str(log), environ))
        for rank in range(size)
    ]
    for rank in ranks:
        rank.start()
    return ranks


def run_ranks(
    settings: dict[str, Any],
    size: int,
    *,
    log: Path,
    timeout_s: float = 120.0,
    command: Literal["train", "eval"] = "train",
) -> list[int | None]:
    """Run to the end; the exit codes in order of rank."""
    return wait_for(start_ranks(settings, size, log=log, command=command), timeout_s=timeout_s)


def wait_for(ranks: Sequence[BaseProcess], *, timeout_s: float = 120.0) -> list[int | None]:
    """Exit codes in order of rank; what does not end in time is killed, and its code is None."""
    deadline_s = time.monotonic() + timeout_s
    for rank in ranks:
        rank.join(max(0.0, deadline_s - time.monotonic()))
    codes = [rank.exitcode for rank in ranks]
    kill(ranks)
    return codes


def kill(ranks: Sequence[BaseProcess]) -> None:
    """kill -9."""
    for rank in ranks:
        if rank.is_alive() and rank.pid is not None:
            os.kill(rank.pid, signal.SIGKILL)
    for rank in ranks:
        rank.join()


def find_free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _run_rank(
    command: str, settings: dict[str, Any], rank: int, size: int, port: int, log: str, environ: dict[str, str]
) -> None:
    stream = Path(log).open("a", buffering=1)  # noqa: SIM115 - the process's own
    os.dup2(stream.fileno(), 1)
    os.dup2(stream.fileno(), 2)
    os.environ |= environ | {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    import torch  # noqa: PLC0415 - imported already, by the server

    torch.set_num_threads(1)
    from nanosft.cli import train  # noqa: PLC0415
    from nanosft.errors import Interrupted, NanosftError  # noqa: PLC0415
    from nanosft.evaluate.stage import run_eval  # noqa: PLC0415
    from nanosft.progress import configure_logging  # noqa: PLC0415
    from nanosft.settings.evaluate import EvalSettings  # noqa: PLC0415
    from nanosft.settings.train import TrainSettings  # noqa: PLC0415

    configure_logging()
    try:
        if command == "eval":
            run_eval(EvalSettings(**settings))
        else:
            train(TrainSettings(**settings))
    except Interrupted as exc:
        stream.write(f"interrupted: {exc}\n")
        sys.exit(128 + exc.signum)
    except NanosftError as exc:
        stream.write(f"error: {exc}\n")
        sys.exit(exc.exit_code)
