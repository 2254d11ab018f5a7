"""A sink behind a thread and a bounded queue: whatever it does, a run goes on at its own speed."""

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, Protocol

_MAX_QUEUED: Final = 256
_CLOSE_TIMEOUT_S: Final = 10.0
_log = logging.getLogger(__name__)


class Sink(Protocol):
    """Something that takes the numbers of a step."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Take them."""

    def close(self) -> None:
        """Flush everything."""


class BackgroundSink:
    """A sink that is made, fed and closed in a thread of its own.

    Numbers that it does not take in time are dropped, oldest first. Its first error is told, the others are counted.

    Args:
        name: What the log calls it.
        make: Makes the sink, in the thread.
        close_timeout_s: How long `close` waits; the thread is left behind after that, and dies with the process.
    """

    def __init__(self, name: str, make: Callable[[], Sink], *, close_timeout_s: float = _CLOSE_TIMEOUT_S) -> None:
        self._name = name
        self._make = make
        self._close_timeout_s = close_timeout_s
        self._queue: queue.Queue[tuple[int, Mapping[str, float]] | None] = queue.Queue(_MAX_QUEUED)
        self._num_dropped = 0
        self._num_errors = 0
        self._thread = threading.Thread(target=self._run, name=f"nanosft-{name}", daemon=True)
        self._thread.start()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Queue the numbers; never waits."""
        self._put((step, values))

    def close(self) -> None:
        """Let the sink take what is queued and close it, within the time-out; tells what was lost."""
        self._put(None)
        self._thread.join(self._close_timeout_s)
        if self._thread.is_alive():
            _log.warning("%s: not done after %g s: left behind", self._name, self._close_timeout_s)
        if self._num_dropped or self._num_errors:
            _log.warning(
                "%s: %d records dropped, %d errors; the run and its metrics.jsonl are whole",
                self._name,
                self._num_dropped,
                self._num_errors,
            )

    def _put(self, item: tuple[int, Mapping[str, float]] | None) -> None:
        while True:
            try:
                self._queue.put_nowait(item)
            except queue.Full:
                with suppress(queue.Empty):
                    self._queue.get_nowait()
                    self._num_dropped += 1
            else:
                return

    def _run(self) -> None:
        sink: Sink | None = None
        try:
            sink = self._make()
        except Exception as exc:  # noqa: BLE001 - a tracker may raise anything, and must not matter
            self._count(exc)
        while (item := self._queue.get()) is not None:
            if sink is not None:
                self._attempt(sink.write, *item)
        if sink is not None:
            self._attempt(sink.close)

    def _attempt(self, work: Callable[..., None], *arguments: object) -> None:
        try:
            work(*arguments)
        except Exception as exc:  # noqa: BLE001 - as above
            self._count(exc)

    def _count(self, exc: Exception) -> None:
        self._num_errors += 1
        if self._num_errors == 1:
            _log.warning("%s: %s; training goes on", self._name, str(exc)[:200] or type(exc).__name__)
