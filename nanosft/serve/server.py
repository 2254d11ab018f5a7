"""From prompts to a response, whole or as a stream; what nobody listens to any more is not written on."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from nanosft.errors import ConfigError
from nanosft.nanochat import Request as TokenRequest
from nanosft.serve.answers import MODEL_FAILED, ApiError, Choice, Format, encode_event
from nanosft.serve.bodies import Body
from nanosft.serve.gate import json_response
from nanosft.serve.metrics import Metrics
from nanosft.serve.scheduler import Job, Piece, QueueFullError, Scheduler
from nanosft.settings.serve import ServeSettings

_BUSY: Final = ApiError(
    429, "the server is busy: as many answers wait as may wait; try again soon", "rate_limit_error", code="queue_full"
)
_STREAM_HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

T = TypeVar("T")
_Pieces = AsyncGenerator[tuple[int, Piece], None]


@dataclass
class Server:
    """What the routes stand on.

    Attributes:
        schedulers: By model name.
        settings: Limits and what is switched on.
        metrics: Told of tokens.
        draining: It answers what runs, and is about to end.
    """

    schedulers: Mapping[str, Scheduler]
    settings: ServeSettings
    metrics: Metrics
    draining: bool = False

    def find(self, name: str) -> Scheduler:
        """The scheduler of a model.

        Raises:
            ApiError: There is no such model.
        """
        if name not in self.schedulers:
            there = ", ".join(self.schedulers)
            raise ApiError(404, f"no model {name!r}; there are {there}", code="model_not_found", param="model")
        return self.schedulers[name]

    def make_choices(self, body: Body, prompts: Sequence[list[int]], *, default_tokens: int) -> list[Choice]:
        """The answers that a request asks for, `n` a prompt.

        Raises:
            ApiError: A prompt cannot be answered, or there is no such model.
        """
        scheduler = self.find(body.model)
        max_tokens = min(default_tokens if body.limit is None else body.limit, self.settings.max_tokens)
        num_logprobs = body.num_logprobs
        num_choices, most = len(prompts) * (body.n or 1), self.settings.max_batch + self.settings.max_queue
        if num_choices > most:  # it would never find the queue empty enough
            raise ApiError(
                400, f"{num_choices} answers at once: this server takes {most}; ask for fewer", param="prompt"
            )
        seed = secrets.randbits(62)
        choices = []
        for ids in prompts:
            for index in range(body.n or 1):
                sampling = body.sampling(seed=seed, index=index, num_logprobs=num_logprobs)
                request = TokenRequest(
                    ids, max_tokens, sampling, prompt_logprobs=body.echoes and num_logprobs is not None
                )
                try:
                    scheduler.check(request)
                except ConfigError as exc:
                    raise ApiError(400, str(exc), code="context_length_exceeded", param=body.prompt_key) from exc
                choices.append(Choice(Job(request, _drop, stop=body.stops, tools=self.settings.tools)))
        return choices

    async def pieces(self, model: str, choices: Sequence[Choice]) -> _Pieces:
        """Write the answers, and tell each piece with its answer's number; whoever stops listening stops them.

        Raises:
            ApiError: There is no room in the queue.
        """
        scheduler = self.schedulers[model]
        queue: asyncio.Queue[tuple[int, Piece]] = asyncio.Queue()
        numbers = {choice.job: index for index, choice in enumerate(choices)}
        jobs = list(numbers)
        for job in jobs:
            job.deliver = lambda job, piece: queue.put_nowait((numbers[job], piece))
        try:
            scheduler.submit(jobs)
        except QueueFullError as exc:
            raise _BUSY from exc
        running = len(jobs)
        try:
            while running:
                index, piece = await queue.get()
                running -= piece.finish_reason is not None
                yield index, piece
        finally:
            if running:
                scheduler.cancel(jobs)
            prompts = {id(job.request.ids): len(job.request.ids) for job in jobs}
            self.metrics.prompt_tokens.labels(model).inc(sum(prompts.values()))
            self.metrics.completion_tokens.labels(model).inc(sum(job.num_written for job in jobs))

    async def respond(self, request: Request, body: Body, form: Format) -> Response:
        """The whole response, or its stream."""
        pieces = self.pieces(body.model, form.choices)
        if body.stream:
            # The first piece is awaited before the headers go out, so that a full queue is a status of its own.
            first = await _until_gone(request, anext(pieces))
            usage = bool(body.stream_options and body.stream_options.include_usage)
            return StreamingResponse(
                _stream(form, first, pieces, usage=usage), media_type="text/event-stream", headers=_STREAM_HEADERS
            )
        await _until_gone(request, _collect(form, pieces))
        return json_response(form.whole())


async def _collect(form: Format, pieces: _Pieces) -> None:
    async with aclosing(pieces):
        async for index, piece in pieces:
            if piece.finish_reason == "error":
                raise MODEL_FAILED
            form.choices[index].take(piece)


async def _stream(form: Format, first: tuple[int, Piece], pieces: _Pieces, *, usage: bool) -> AsyncIterator[bytes]:
    begun: set[int] = set()
    try:
        async for index, piece in _chain(first, pieces):
            if piece.finish_reason == "error":
                yield encode_event(MODEL_FAILED.content)
                return
            if index not in begun:
                begun.add(index)
                if (event := form.first(index)) is not None:
                    yield event
            if (event := form.piece(index, piece)) is not None:
                yield event
        if usage:
            yield form.total()
        yield b"data: [DONE]\n\n"
    finally:
        await pieces.aclose()  # what runs for nobody stops


async def _chain(first: tuple[int, Piece], rest: AsyncIterator[tuple[int, Piece]]) -> AsyncIterator[tuple[int, Piece]]:
    yield first
    async for item in rest:
        yield item


async def _until_gone(request: Request, work: Awaitable[T]) -> T:
    """The outcome of `work`, which is cancelled where the client goes away first.

    Raises:
        ClientDisconnect: It did.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_wait_gone(request))
    try:
        await asyncio.wait([task, gone], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for future in (task, gone):
            future.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _wait_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _drop(_: Job, __: Piece) -> None:
    """Until somebody listens."""
