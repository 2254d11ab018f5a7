"""One thread a model: answers join its batch as there is room, and come out as text.

The event loop submits and cancels; the thread steps the batch. What a step wrote goes back to the loop in one call.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from nanosft.nanochat import (
    Checkpoint,
    Engine,
    Request,
    Row,
    TextStream,
    TokenLogprob,
    ToolUse,
    Written,
    evaluate_expression,
)

_log = logging.getLogger("nanosft.serve")
_JOIN_TIMEOUT_S: Final = 5.0


class QueueFullError(Exception):
    """As many answers wait as may wait."""


@dataclass(slots=True)
class Piece:
    """What is new of an answer.

    Attributes:
        text: Certain to be part of the answer; may be empty.
        logprobs: Where they were asked for, one a token.
        end_logprob: That of the token which ended the turn, and has no text.
        finish_reason: Set on the last piece; "error" where the model failed.
    """

    text: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    end_logprob: TokenLogprob | None = None
    finish_reason: Literal["stop", "length", "error"] | None = None


@dataclass(eq=False)
class Job:
    """One answer that is asked for.

    Attributes:
        request: Prompt, length and sampling.
        deliver: Called on the event loop with each piece.
        stop: The answer ends before the first of these.
        tools: What the model puts in python tags is evaluated.
        row: Its place in the batch, once it has one.
    """

    request: Request
    deliver: Callable[["Job", Piece], None]
    stop: Sequence[str] = ()
    tools: bool = False
    row: Row | None = None
    text: TextStream | None = None
    tool: ToolUse | None = None
    submitted_s: float = field(default_factory=time.monotonic)
    started: bool = False
    cancelled: bool = False

    @property
    def num_written(self) -> int:
        """Tokens written so far, forced ones included."""
        return self.row.num_written if self.row else 0


class Scheduler:
    """Writes the answers of one model.

    Args:
        checkpoint: The model.
        max_batch: Answers written at a time.
        max_queue: Answers that wait; more are refused.
        prefill_tokens: Tokens of prompts read between two tokens of the others.
        on_first: Told the seconds that an answer's first token took.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        max_batch: int,
        max_queue: int,
        prefill_tokens: int,
        on_first: Callable[[float], None] = lambda _: None,
    ) -> None:
        self.checkpoint = checkpoint
        self.engine = Engine(checkpoint.model, checkpoint.tokenizer, context_len=checkpoint.context_len)
        self._prefill_tokens = prefill_tokens
        self._batch = self.engine.open_batch(prefill_tokens=prefill_tokens)
        self._max_batch, self._max_queue = max_batch, max_queue
        self._on_first = on_first
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._running: dict[Row, Job] = {}
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="nanosft-serve", daemon=True)

    def count_waiting(self) -> int:
        """Answers that wait for a place."""
        return len(self._waiting)

    def count_running(self) -> int:
        """Answers being written."""
        return len(self._running)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to work; pieces are delivered on `loop`."""
        self._loop = loop
        self._thread.start()

    def stop(self) -> None:
        """End the thread after its step; what was not finished ends as it is."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(_JOIN_TIMEOUT_S)

    def check(self, request: Request) -> None:
        """Refuse what cannot be answered.

        Raises:
            ConfigError: See `Batch.check`.
        """
        self._batch.check(request)

    def submit(self, jobs: Sequence[Job]) -> None:
        """Have answers written: all of them or none.

        Raises:
            QueueFullError: There is no room for them to wait.
        """
        with self._changed:
            free = max(0, self._max_batch - len(self._running))
            if len(self._waiting) + len(jobs) > self._max_queue + free:
                raise QueueFullError
            self._waiting.extend(jobs)
            self._changed.notify()

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Stop writing: nobody reads these any more."""
        with self._changed:
            for job in jobs:
                job.cancelled = True
            self._waiting = deque(job for job in self._waiting if not job.cancelled)
            self._changed.notify()

    def _work(self) -> None:
        while not self._stopping:
            try:
                self._admit()
                delivered = [
                    (self._running[written.row], self._take(self._running[written.row], written))
                    for written in self._batch.step()
                ]
            except Exception:  # noqa: BLE001 - whatever it was, it ends these answers and not the server
                _log.exception("the model failed; the answers that it was writing end here")
                delivered = [(job, Piece(finish_reason="error")) for job in self._running.values()]
                self._running.clear()
                self._batch = self.engine.open_batch(prefill_tokens=self._prefill_tokens)
            self._send(delivered)

    def _admit(self) -> None:
        """Wait for work, let those leave that nobody reads, and others join."""
        with self._changed:
            while not (self._waiting or self._running or self._stopping):
                self._changed.wait()
            for row in [row for row, job in self._running.items() if job.cancelled]:
                self._leave(row)
            while self._waiting and len(self._running) < self._max_batch:
                job = self._waiting.popleft()
                job.row = self._batch.add(job.request)
                job.text = TextStream(self.checkpoint.tokenizer, job.stop)
                job.tool = ToolUse(self.checkpoint.tokenizer, evaluate_expression) if job.tools else None
                self._running[job.row] = job

    def _leave(self, row: Row) -> None:
        self._batch.remove(row)
        self._running.pop(row, None)

    def _take(self, job: Job, written: Written) -> Piece:
        """A step's token as text; a stop string, a tool's output and the end of the answer are seen to."""
        assert job.text is not None
        row, piece = written.row, Piece()
        if not job.started:
            job.started = True
            self._on_first(time.monotonic() - job.submitted_s)
        if written.token is None:
            piece.end_logprob = written.logprob
        else:
            if written.logprob is not None:
                piece.logprobs.append(written.logprob)
            piece.text = job.text.feed(written.token)
            if job.tool and row.finish_reason is None and (ids := job.tool.read(written.token)):
                piece.text += "".join(map(job.text.feed, self._batch.force(row, ids)))
        if job.text.stopped:
            row.finish_reason = "stop"
        if row.finish_reason is not None:
            piece.finish_reason = row.finish_reason
            piece.text += job.text.finish()
            self._leave(row)
        return piece

    def _send(self, delivered: Sequence[tuple[Job, Piece]]) -> None:
        if delivered and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_deliver, delivered)


def _deliver(delivered: Sequence[tuple[Job, Piece]]) -> None:
    for job, piece in delivered:
        job.deliver(job, piece)
