"""Tries every point of a run: what happens there, the same command again, and what must then hold."""

import gc
import io
import logging
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import pytest

from nanosft.errors import NanosftError
from nanosft.generate.planning import dimensions
from nanosft.knowledge import facts
from tests.chaos import batches, chat, stages
from tests.chaos.checks import Flushed, find_wrong_manifests, read_flushed
from tests.chaos.faults import (
    KILLS,
    PASSED_OVER,
    Killed,
    Kind,
    Process,
    running,
)
from tests.chaos.local import simulated_stores
from tests.chaos.points import Backend, Found, count_points, draw_points, kinds_of
from tests.chaos.s3 import begin_process, memory_s3
from tests.chaos.stages import Stage

_KILLED_AGAIN: Final = 0.3
"""Of the processes that follow a killed one, those that are killed as well, at any call."""


@dataclass(frozen=True)
class Place:
    """Where the runs of an exploration find and leave everything.

    Attributes:
        root: The URI.
        forget: Deletes all that lies under a URI.
        view: The directory in which what lies under a URI can be looked at now.
    """

    root: str
    forget: Callable[[str], None]
    view: Callable[[str], str] = str


@contextmanager
def simulation(backend: Backend, folder: Path) -> Iterator[Place]:
    """A new store, and processes that are simulated."""
    with ExitStack() as stack:
        stack.enter_context(stages.prepared(folder))
        stack.enter_context(simulated_stores())
        stack.enter_context(silence())
        stack.enter_context(_parsed_once())
        place = Place(str(folder), lambda uri: shutil.rmtree(uri, ignore_errors=True))
        if backend == "s3":
            server = stack.enter_context(memory_s3())
            place = Place("s3://chaos", server.forget, lambda uri: server.view(uri, folder / "view"))
        stages.put_inputs(f"{place.root}/inputs")
        yield place


@contextmanager
def _parsed_once() -> Iterator[None]:
    """Each run reads its knowledge base and dimensions; to parse them was a third of a batch run's time."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((facts, "parse_knowledge"), (dimensions, "parse_dimensions")):
            patch.setattr(module, name, lru_cache(getattr(module, name)))
        yield


@contextmanager
def silence() -> Iterator[None]:
    """Nothing is logged or printed."""
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)


def explore(
    stage: Stage,
    backend: Backend,
    folder: Path,
    *,
    share: float = 1.0,
    kill_share: float | None = None,
    seed: int = 0,
    kinds: Sequence[Kind] = (),
    points: Sequence[tuple[Kind, int]] = (),
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Found:
    """Try all points of a stage, or a share of them that the seed chooses, or the points that are given.

    Args:
        stage: Whose runs are disturbed.
        backend: What they store in.
        folder: Where everything may be left.
        share: Of all points.
        kill_share: Of the points where the process is killed, where that is another one.
        seed: Chooses them, and when a successor is killed too.
        kinds: What may happen; all, unless some are given.
        points: What happens at which call.
        on_progress: Told how many points of how many were tried.
    """
    found, draw = Found(), random.Random(f"{stage.name} {backend} {seed}")
    with simulation(backend, folder) as place:
        explorer = Explorer(stage, place, found, draw)
        if not points:
            shares = dict.fromkeys(kinds_of(backend), share)
            if kill_share is not None:
                shares |= dict.fromkeys(KILLS, kill_share)
            chosen = {kind: share for kind, share in shares.items() if not kinds or kind in kinds}
            points = draw_points(explorer.calls, chosen, draw)
            found.possible += count_points(explorer.calls, kinds_of(backend))
        found.chosen += Counter(kind for kind, _ in points)
        for number, point in enumerate(points):
            explorer.try_point(*point)
            on_progress(number + 1, len(points))
        del explorer
    gc.collect()  # files of processes that died are closed, and warned of, here, not in the test that comes next
    return found


class Explorer:
    """Runs one stage again and again, each time into a prefix of its own."""

    def __init__(self, stage: Stage, place: Place, found: Found, draw: random.Random) -> None:
        self.stage, self.found = stage, found
        self._place, self._draw = place, draw
        self._num_outs = 0
        first = Process()
        self.expected = []
        for variant in (0, 1):
            out = self.new_out()
            error = self.run(first if variant == 0 else Process(), out, variant)
            assert error is None, f"an undisturbed run of {stage.name} ended with {error!r}"
            with running(Process()):
                self.expected.append(stage.digest(place.view(out)))
            self.forget(out)
        self.calls = first.calls
        found.num_calls = len(first.calls)

    @property
    def inputs(self) -> str:
        """Where the runs find what they read."""
        return f"{self._place.root}/inputs"

    def new_out(self) -> str:
        """A prefix that no run has used."""
        self._num_outs += 1
        return f"{self._place.root}/out-{self._num_outs}/set"  # the last word may be the name of what is made

    def forget(self, out: str) -> None:
        """Delete a prefix that is done with."""
        self._place.forget(out.rpartition("/")[0] + "/")
        batches.forget(out)

    def try_point(self, kind: Kind, point: int) -> None:
        """Let something happen at a point, and see that all is well afterwards."""
        if kind == "twin":
            for variant in (0, 1):
                out = self.new_out()
                self._try_twin(point, variant, out)
                self.forget(out)
            return
        out = self.new_out()
        self._disturb(kind, point, out)
        self.forget(out)

    def _disturb(self, kind: Kind, point: int, out: str) -> None:
        process = Process(kind, point)
        chat.forget_asked()
        error = self.run(process, out, 0)
        if not process.met:
            return
        self.found.tried[kind] += 1
        where = f"{self.stage.name} {self._place.root} {kind} at {point} ({process.met})"
        if error is not None and kind in PASSED_OVER:
            self.found.add("not passed over", where, error)
        flushed = self._look(f"{where}, before the rerun", out)
        if kind in KILLS and self._draw.random() < _KILLED_AGAIN:
            again = Process(self._draw.choice(KILLS), self._draw.randrange(self.found.num_calls))
            chat.forget_asked()
            self.run(again, out, 0)
            if again.met:
                self.found.tried[kind] += 1
                where = f"{where}, then {again.kind} at {again.point} ({again.met})"
                self._check_money(where, out, flushed)
                flushed = self._look(f"{where}, before the last run", out)
        chat.forget_asked()
        error = self.run(Process(), out, 0)
        if error is not None:
            self.found.add("does not end well", where, error)
            return
        self._look(where, out)
        self._check_result(where, out, [self.expected[0]])
        self._check_money(where, out, flushed)

    def _look(self, where: str, out: str) -> Flushed:
        """Add what a manifest names and is not there; what is saved now."""
        view = self._place.view(out)
        with running(Process()):
            for problem in find_wrong_manifests(view):
                self.found.add("manifests wrong", where, problem)
            return read_flushed(view)

    def _check_result(self, where: str, out: str, allowed: list[object]) -> None:
        with running(Process()):
            if self.stage.digest(self._place.view(out)) not in allowed:
                self.found.add(self.stage.differs, where, out)

    def _check_money(self, where: str, out: str, flushed: Flushed) -> None:
        """Nothing that was saved before the last start is lost or was asked for again."""
        if self.stage.find_paid_twice is None:
            return
        if twice := self.stage.find_paid_twice(out, flushed):
            self.found.add("paid twice", where, twice)
        with running(Process()):
            if lost := flushed.lines - read_flushed(self._place.view(out)).lines:
                self.found.add("rows lost", where, len(lost))

    def _try_twin(self, point: int, variant: int, out: str) -> None:
        """Hold a process at a point, run another to its end, and let the first go on."""
        other: list[BaseException | None] = []

        def run_other() -> None:
            other.append(self.run(Process(), out, variant))

        process = Process("twin", point, twin=run_other)
        own = self.run(process, out, 0)
        if not process.met:
            return
        self.found.tried["twin"] += 1
        where = f"{self.stage.name} {self._place.root} twin {variant} at {point} ({process.met})"
        self.check_two(where, out, variant, own, other[0])

    def check_two(
        self, where: str, out: str, variant: int, own: BaseException | None, other: BaseException | None
    ) -> None:
        """What must hold after two processes of one prefix, of which the second may have other settings."""
        self._look(where, out)
        errors = [own, other]
        if all(error is not None for error in errors):
            self.found.add("neither ended well", where, errors)
            return
        if variant and not any(errors) and not self.stage.may_grow:
            self.found.add("two settings, both exit 0", where, errors)
        allowed = [self.expected[0]] * (own is None) + [self.expected[variant]] * (other is None)
        if self.stage.find_paid_twice is not None and not any(errors):
            allowed = [self.expected[variant]]  # the larger plan's, whoever ends last
        self._check_result(where, out, allowed)

    def run(self, process: Process, out: str, variant: int) -> BaseException | None:
        """How it ended: None is well."""
        begin_process()
        try:
            with running(process):
                self.stage.run(self.inputs, out, variant)
        except (NanosftError, Killed) as exc:
            return exc
        except Exception as exc:  # noqa: BLE001 - that no other comes out is what is tried
            self.found.add("a defect", f"{self.stage.name} {process.kind} at {process.point}", repr(exc))
            return exc
        return None
