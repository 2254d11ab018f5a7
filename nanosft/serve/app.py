"""The routes: what is asked where, and what an error looks like."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from nanosft.serve.answers import ApiError, Format
from nanosft.serve.bodies import ChatBody, CompletionBody
from nanosft.serve.gate import Gate, json_response
from nanosft.serve.page import load_page
from nanosft.serve.reading import encode_prompts, read_body, render_chat
from nanosft.serve.scheduler import Scheduler
from nanosft.serve.server import Server

_DEFAULT_COMPLETION_TOKENS: Final = 16


def make_app(server: Server) -> Starlette:
    """The application: API, page, health and metrics."""
    routes = _Routes(server)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        server.metrics.watch(server.schedulers)
        for scheduler in server.schedulers.values():
            scheduler.start(asyncio.get_running_loop())
        yield
        for scheduler in server.schedulers.values():
            scheduler.stop()

    app = Starlette(
        routes=[
            Route("/", routes.show_page),
            Route("/health", routes.tell_health),
            Route("/metrics", routes.tell_metrics),
            Route("/v1/models", routes.list_models),
            Route("/v1/models/{name:path}", routes.describe_model),
            Route("/v1/chat/completions", routes.chat, methods=["POST"]),
            Route("/v1/completions", routes.complete, methods=["POST"]),
        ],
        lifespan=lifespan,
        exception_handlers=_HANDLERS,
    )
    app.add_middleware(Gate, settings=server.settings, metrics=server.metrics)
    return app


class _Routes:
    """What answers each path."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._page, self._policy = load_page()

    async def show_page(self, _: Request) -> Response:
        headers = {
            "Content-Security-Policy": self._policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-cache",
        }
        return Response(self._page, media_type="text/html", headers=headers)

    async def tell_health(self, _: Request) -> Response:
        draining = self._server.draining
        return json_response({"status": "draining" if draining else "ok"}, 503 if draining else 200)

    async def tell_metrics(self, _: Request) -> Response:
        return Response(self._server.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def list_models(self, _: Request) -> Response:
        models = [_describe(name, scheduler) for name, scheduler in self._server.schedulers.items()]
        return json_response({"object": "list", "data": models})

    async def describe_model(self, request: Request) -> Response:
        name = request.path_params["name"]
        return json_response(_describe(name, self._server.find(name)))

    async def chat(self, request: Request) -> Response:
        settings = self._server.settings
        body = await read_body(request, ChatBody, settings.max_body_bytes)
        tokenizer = self._server.find(body.model).checkpoint.tokenizer
        ids = await asyncio.to_thread(render_chat, tokenizer, body)
        choices = self._server.make_choices(body, [ids], default_tokens=settings.max_tokens)
        form = Format("chat", body.model, tokenizer, choices, want_logprobs=bool(body.logprobs))
        return await self._server.respond(request, body, form)

    async def complete(self, request: Request) -> Response:
        body = await read_body(request, CompletionBody, self._server.settings.max_body_bytes)
        tokenizer = self._server.find(body.model).checkpoint.tokenizer
        prompts, texts = await asyncio.to_thread(encode_prompts, tokenizer, body)
        choices = self._server.make_choices(body, prompts, default_tokens=_DEFAULT_COMPLETION_TOKENS)
        if body.echoes:
            for index, choice in enumerate(choices):
                choice.prompt = texts[index // (body.n or 1)]
        want_logprobs = body.num_logprobs is not None
        form = Format("text", body.model, tokenizer, choices, want_logprobs=want_logprobs, echo=body.echoes)
        return await self._server.respond(request, body, form)


def _describe(name: str, scheduler: Scheduler) -> dict[str, Any]:
    checkpoint = scheduler.checkpoint
    about = {"tag": checkpoint.tag, "step": checkpoint.step, "source": checkpoint.source}
    context = {"context_length": checkpoint.context_len, "generation": checkpoint.generation.name}
    return {"id": name, "object": "model", "created": 0, "owned_by": "nanosft", **context, **about}


async def _say_error(_: Request, exc: Exception) -> Response:
    assert isinstance(exc, ApiError)
    headers = {"Retry-After": "1"} if exc.status in {429, 503} else {}
    return json_response(exc.content, exc.status, headers)


async def _say_http_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    return json_response(
        ApiError(exc.status_code, f"{request.method} {request.url.path}: {exc.detail}").content, exc.status_code
    )


async def _say_gone(_: Request, __: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it; logs and metrics do


async def _say_defect(_: Request, exc: Exception) -> Response:
    return json_response(ApiError(500, f"defect of the server: {type(exc).__name__}", "server_error").content, 500)


_HANDLERS: Mapping[Any, Any] = {
    ApiError: _say_error,
    HTTPException: _say_http_error,
    ClientDisconnect: _say_gone,
    Exception: _say_defect,
}
