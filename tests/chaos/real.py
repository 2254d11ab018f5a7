"""The same runs as processes of the system: killed by SIGKILL at a call, two at once, and runs of several ranks.

They are forked from a server that has torch. S3 is moto's here, a server of its own.
"""

import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

import boto3
import pytest

from nanosft.errors import NanosftError
from nanosft.store import open_store
from tests import ranks
from tests.chaos import batches, stages
from tests.chaos.explore import Explorer, Place, silence
from tests.chaos.faults import KILLS, Killed, Kind, Process, running
from tests.chaos.local import simulated_stores
from tests.chaos.points import Backend, Found, count_points, draw_points
from tests.chaos.stages import STAGES, Stage
from tests.chaos.wire import counted_requests
from tests.servers import ACCESS_KEY, SECRET_KEY, run_moto
from tests.stub_batches import serve_batches

RANK_FAULTS: Final[tuple[Kind, ...]] = ("fails", "fails after", "stays away", "disk full", "read-only")
_ALONE_S: Final = 20.0
"""How long a process may go on where another of its run has failed: then whoever started them ends it."""
_LONGEST_S: Final = 240.0
_context = multiprocessing.get_context("forkserver")
_PRELOADED: Final = ["tests.chaos.real", *(f"nanosft.{name}.stage" for name in ("train", "evaluate", "mix", "export"))]


class EndedError(NanosftError):
    """A process of the system, or its ranks, have ended with exit codes of the contract."""

    def __init__(self, codes: Sequence[int | None]) -> None:
        super().__init__(f"exit codes {list(codes)}")
        self.is_passing = set(codes) == {os.EX_TEMPFAIL}


@dataclass(frozen=True)
class Task:
    """What one process of the system is to do.

    Attributes:
        stage: Name of its stage.
        inputs: URI of what it reads.
        out: URI of what it makes.
        variant: Which of two settings.
        folder: Where it may leave files.
        environ: Variables that the server of forks lacks.
        kind: What happens to it.
        point: At which call.
        notes: Where it notes the call that this happened to, and all its calls.
    """

    stage: str
    inputs: str
    out: str
    variant: int
    folder: str
    environ: dict[str, str]
    kind: Kind | None
    point: int | None
    notes: Path


@contextmanager
def real_place(backend: Backend, folder: Path) -> Iterator[Place]:
    """A new store that processes of the system share."""
    _context.set_forkserver_preload(_PRELOADED)
    forkserver.ensure_running()  # before temporary files lie in the folder
    with ExitStack() as stack:
        stack.enter_context(stages.prepared(folder))
        place = Place(str(folder), lambda uri: shutil.rmtree(uri, ignore_errors=True))
        if backend == "s3":
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.setenv("AWS_ENDPOINT_URL", stack.enter_context(run_moto(folder)))
            patch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            patch.setenv("AWS_REGION", "us-east-1")
            boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="chaos")
            place = Place("s3://chaos", _forget)
        stack.enter_context(silence())
        stages.put_inputs(f"{place.root}/inputs")
        yield place


def explore_real(
    stage: Stage,
    backend: Backend,
    folder: Path,
    *,
    share: float = 1.0,
    seed: int = 0,
    num_kills: int = 4,
    num_pairs: int = 2,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Found:
    """Kill some processes at calls that the seed chooses, and start two at once.

    Args:
        stage: Whose runs are disturbed.
        backend: What they store in.
        folder: Where everything may be left.
        share: Of all points of a run of several ranks, which is tried here alone.
        seed: Chooses the points.
        num_kills: Points of a run of one process.
        num_pairs: How often two are started at once; every second time the second one has other settings.
        on_progress: Told how many of how many were tried.
    """
    found, draw = Found(), random.Random(f"real {stage.name} {backend} {seed}")
    with real_place(backend, folder) as place:
        explorer = RealExplorer(stage, place, found, draw, folder)
        kinds: Sequence[Kind] = KILLS
        if stage.num_ranks > 1 and backend == "local":
            kinds = (*KILLS, *RANK_FAULTS)
        points = draw_points(explorer.calls, dict.fromkeys(kinds, 1.0), draw)
        found.possible += count_points(explorer.calls, kinds)
        num = max(1, round(share * len(points))) if stage.num_ranks > 1 else min(num_kills, len(points))
        points = draw.sample(points, num)
        found.chosen += Counter(kind for kind, _ in points)
        for number, point in enumerate(points):
            explorer.try_point(*point)
            on_progress(number + 1, len(points) + num_pairs)
        for number in range(num_pairs):
            explorer.try_pair(number % 2)
            on_progress(len(points) + number + 1, len(points) + num_pairs)
    return found


class RealExplorer(Explorer):
    """Runs one stage in processes of the system; the calls of all ranks of a run are counted as one row."""

    def __init__(self, stage: Stage, place: Place, found: Found, draw: random.Random, folder: Path) -> None:
        self._folder, self._num_starts = folder, 0
        self._services: dict[str, tuple[ExitStack, str]] = {}
        self._num_calls_of_rank = [0] * stage.num_ranks
        super().__init__(stage, place, found, draw)

    def run(self, process: Process, out: str, variant: int) -> BaseException | None:
        """How the process, or the ranks of the run, ended."""
        return self._wait(process, *self._start(process, out, variant))

    def try_pair(self, variant: int) -> None:
        """Start two at once, of which the second may have other settings; then the first command again."""
        out = self.new_out()
        first, second = Process(), Process()
        started = [self._start(first, out, 0), self._start(second, out, variant)]
        own, other = (self._wait(process, *item) for process, item in zip((first, second), started, strict=True))
        if own is not None and isinstance(other, EndedError) and other.is_passing:
            other = self.run(Process(), out, variant)  # as it was told to be, once nobody else is at work
        self.found.tried["at once"] += 1
        where = f"{self.stage.name} {out} two at once, settings {variant}"
        self.check_two(where, out, variant, own, other)
        if not variant and (error := self.run(Process(), out, 0)) is not None:
            self.found.add("does not end well", where, error)
        self.forget(out)

    def forget(self, out: str) -> None:
        """Delete a prefix that is done with, and end its service."""
        super().forget(out)
        if out in self._services:
            self._services.pop(out)[0].close()

    def _environ(self, out: str) -> dict[str, str]:
        """Variables of the processes of an output; its batch service, where it has one, answers on loopback."""
        environ = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        if not self.stage.name.startswith("batch "):
            return environ
        if out not in self._services:
            stack, stub = ExitStack(), batches.service_of(self.stage.name.removeprefix("batch "), out)
            self._services[out] = stack, stack.enter_context(serve_batches(stub))
        return {**environ, batches.URL_VARIABLE: self._services[out][1]}

    def _start(self, process: Process, out: str, variant: int) -> tuple[list[BaseProcess], list[Path]]:
        self._num_starts += 1
        victim, point = self._find_rank(process.point)
        size, port = self.stage.num_ranks, ranks.find_free_port()
        children, notes = list[BaseProcess](), list[Path]()
        for rank in range(size):
            notes.append(self._folder / f"notes-{self._num_starts}-{rank}")
            group = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size,
                     "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port} if size > 1 else {}  # fmt: skip
            task = Task(
                self.stage.name,
                self.inputs,
                out,
                variant,
                str(self._folder),
                self._environ(out) | {name: str(value) for name, value in group.items()},
                process.kind if rank == victim else None,
                point,
                notes[-1],
            )
            child = _context.Process(target=_do, args=(task,))
            child.start()
            children.append(child)
        return children, notes

    def _find_rank(self, point: int | None) -> tuple[int, int | None]:
        """The rank that a call of the run is one of, and its number there."""
        if point is None:
            return 0, None
        for rank, num in enumerate(self._num_calls_of_rank):
            if point < num:
                return rank, point
            point -= num
        return 0, None

    def _wait(self, process: Process, children: list[BaseProcess], notes: list[Path]) -> BaseException | None:
        ends_s = time.monotonic() + _LONGEST_S
        while any(child.is_alive() for child in children) and time.monotonic() < ends_s:
            time.sleep(0.02)
            if any(child.exitcode for child in children):
                ends_s = min(ends_s, time.monotonic() + _ALONE_S)
        codes = [child.exitcode for child in children]
        ranks.kill(children)
        told = [path.read_text().split("\n") if path.exists() else [""] for path in notes]
        process.met = next((lines[0] for lines in told if lines[0]), "")
        process.calls = [call for lines in told for call in lines[1:]]
        if not any(codes) and None not in codes:
            self._num_calls_of_rank = [len(lines) - 1 for lines in told]
            return None
        if process.kind in KILLS and process.met and -signal.SIGKILL in codes:
            return Killed()
        if 1 in codes or (len(codes) == 1 and codes[0] is None):
            self.found.add("a defect", f"{self.stage.name} {process.kind} at {process.point}", f"exit codes {codes}")
        return EndedError(codes)


def _do(task: Task) -> None:
    """In a process of its own: run a stage, and exit as the command line would."""
    os.environ |= task.environ
    process = Process(task.kind, task.point, is_real=True)

    def note() -> None:
        task.notes.write_text("\n".join([process.met, *process.calls]))

    process.on_met = note
    with stages.prepared(Path(task.folder)), simulated_stores(sleeps=True), counted_requests(), silence():
        try:
            with running(process):
                STAGES[task.stage].run(task.inputs, task.out, task.variant)
        except NanosftError as exc:
            sys.exit(exc.exit_code)
        finally:
            note()


def _forget(uri: str) -> None:
    store = open_store(uri)
    for info in list(store.list()):
        store.delete(info.key)
