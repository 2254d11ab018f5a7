"""Tries every point of a run: what happens there, the same command again, and what must then hold."""

import io
import logging
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Literal

from nanosft.errors import NanosftError
from tests.chaos import stages
from tests.chaos.faults import HTTP_FAULTS, KILLS, LOCAL_FAULTS, Killed, Kind, Process, running, simulated_stores
from tests.chaos.s3 import memory_s3
from tests.chaos.stages import STAGES, Stage

Backend = Literal["local", "s3"]
BACKENDS: Final[tuple[Backend, ...]] = ("local", "s3")


@dataclass
class Found:
    """What was tried of one stage on one backend, and what went wrong.

    Attributes:
        num_calls: What the undisturbed run asks of its store.
        tried: How many points of each kind.
        wrong: How many of each way to go wrong.
        problems: Each, with its point.
    """

    num_calls: int = 0
    tried: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def add(self, way: str, where: str, what: object) -> None:
        """Note what went wrong."""
        self.wrong[way] += 1
        self.problems.append(f"{where}: {way}: {what}")


@contextmanager
def simulation(backend: Backend, folder: Path) -> Iterator[str]:
    """The URI under which everything lies, on a new store."""
    with ExitStack() as stack:
        stack.enter_context(stages.prepared(folder))
        stack.enter_context(simulated_stores())
        logging.disable(logging.CRITICAL)
        stack.callback(logging.disable, logging.NOTSET)
        stack.enter_context(redirect_stdout(io.StringIO()))
        stack.enter_context(redirect_stderr(io.StringIO()))
        if backend == "s3":
            stack.enter_context(memory_s3())
        root = "s3://chaos" if backend == "s3" else str(folder)
        stages.put_inputs(f"{root}/inputs")
        yield root


def explore(
    stage: Stage, backend: Backend, folder: Path, *, share: float = 1.0, seed: int = 0, kinds: tuple[Kind, ...] = ()
) -> Found:
    """Try all points of a stage, or a share of them that the seed chooses."""
    found, draw = Found(), random.Random(f"{stage.name} {backend} {seed}")
    with simulation(backend, folder) as root:
        explorer = _Explorer(stage, root, found)
        found.num_calls = len(explorer.first.calls)
        faults = LOCAL_FAULTS if backend == "local" else HTTP_FAULTS
        points = [(kind, point) for kind in kinds or (*KILLS, "twin", *faults) for point in range(found.num_calls)]
        chosen = draw.sample(range(len(points)), max(1, round(share * len(points))))
        for place in sorted(chosen):
            explorer.try_point(*points[place])
    return found


class _Explorer:
    """Runs one stage again and again, each time into a prefix of its own."""

    def __init__(self, stage: Stage, root: str, found: Found) -> None:
        self._stage, self._root, self._found = stage, root, found
        self._num_outs = 0
        self.first = Process()
        self._expected = []
        for variant in (0, 1):
            out = self._new_out()
            with running(self.first if variant == 0 else Process()):
                stage.run(self._inputs, out, variant)
            with running(Process()):
                self._expected.append(stage.digest(out))

    @property
    def _inputs(self) -> str:
        return f"{self._root}/inputs"

    def _new_out(self) -> str:
        self._num_outs += 1
        return f"{self._root}/out-{self._num_outs}/set"  # the last word may be the name of what is made

    def try_point(self, kind: Kind, point: int) -> None:
        """Let something happen at a point, and see that all is well afterwards."""
        if kind == "twin":
            for variant in (0, 1):
                self._try_twin(point, variant)
            return
        out = self._new_out()
        process = Process(kind, point)
        stages.asked.clear()
        self._run(process, out, 0)
        if not process.was_met:
            return
        self._found.tried[kind] += 1
        where = f"{self._stage.name} {self._root} {kind} at {point} ({process.calls[point]})"
        with running(Process()):
            flushed = stages.read_flushed(out)
            self._check_manifests(f"{where}, before the rerun", out)
        stages.asked.clear()
        again = self._run(Process(), out, 0)
        if again is not None:
            self._found.add("does not end well", where, again)
            return
        with running(Process()):
            self._check_manifests(where, out)
            if self._stage.digest(out) != self._expected[0]:
                self._found.add("another result", where, out)
            if self._stage.name == "generate":
                if twice := flushed.requests.intersection(stages.asked):
                    self._found.add("paid twice", where, sorted(twice))
                if lost := flushed.lines - stages.read_flushed(out).lines:
                    self._found.add("rows lost", where, len(lost))

    def _try_twin(self, point: int, variant: int) -> None:
        """Hold a process at a point, run another to its end, and let the first go on."""
        out = self._new_out()
        other: list[BaseException | None] = []

        def run_other() -> None:
            other.append(self._run(Process(), out, variant))

        process = Process("twin", point, twin=run_other)
        own = self._run(process, out, 0)
        if not process.was_met:
            return
        self._found.tried["twin"] += 1
        where = f"{self._stage.name} {self._root} twin {variant} at {point} ({process.calls[point]})"
        with running(Process()):
            self._check_manifests(where, out)
        errors = [own, *other]
        if all(error is not None for error in errors):
            self._found.add("neither ended well", where, errors)
            return
        may_both = self._stage.name in ("generate", "report")  # a plan may grow, a page be written anew
        if variant and not any(errors) and not may_both:
            self._found.add("two settings, both exit 0", where, errors)
        with running(Process()):
            allowed = [self._expected[0]] * (own is None) + [self._expected[variant]] * (other[0] is None)
            if self._stage.name == "generate" and not any(errors):
                allowed = [self._expected[variant]]  # the larger plan's, whoever ends last
            if self._stage.digest(out) not in allowed:
                self._found.add("another result", where, out)

    def _run(self, process: Process, out: str, variant: int) -> BaseException | None:
        """How it ended: None is well."""
        try:
            with running(process):
                partial(self._stage.run, self._inputs, out, variant)()
        except (NanosftError, Killed) as exc:
            return exc
        except Exception as exc:  # noqa: BLE001 - that no other comes out is what is tried
            self._found.add("a defect", f"{self._stage.name} {process.kind} at {process.point}", repr(exc))
            return exc
        return None

    def _check_manifests(self, where: str, out: str) -> None:
        for problem in stages.find_wrong_manifests(out):
            self._found.add("manifests wrong", where, problem)


def all_stages() -> list[Stage]:
    """In the order of the road."""
    return list(STAGES.values())
