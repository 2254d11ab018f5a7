"""What every request passes first: how many there are, whose they are, and where they think they go."""

import hmac
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nanosft.serve.answers import ApiError
from nanosft.serve.metrics import Metrics
from nanosft.settings.serve import ServeSettings

_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_KNOWN_ROUTES = frozenset({"/", "/health", "/metrics", "/v1/models", "/v1/chat/completions", "/v1/completions"})
_FULL = ApiError(503, "as many requests run as may run; try again soon", "server_error", code="too_many_requests")
_NO_KEY = ApiError(
    401, "this server needs a key: send Authorization: Bearer <key>", "authentication_error", code="invalid_api_key"
)
_WRONG_HOST = ApiError(
    403, "this server without a key answers to localhost alone: the Host header names another", "permission_error"
)


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A response of JSON."""
    return Response(orjson.dumps(content), status, headers, media_type="application/json")


class Gate:
    """Middleware that counts requests and refuses those that may not pass.

    Without a key, a server on loopback answers only to loopback's own names: a page of the web whose name was pointed
    at 127.0.0.1 would be of the same origin, and could talk to the model.
    """

    def __init__(self, app: ASGIApp, *, settings: ServeSettings, metrics: Metrics) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics
        self._num_running = 0
        key = settings.api_key
        self._key = key.get_secret_value().encode() if key else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        route = scope["path"] if scope["path"] in _KNOWN_ROUTES else "other"

        async def count(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.requests.labels(route, str(message["status"])).inc()
            await send(message)

        problem = self._find_problem(scope["path"], Headers(scope=scope))
        if problem is not None:
            headers = {"WWW-Authenticate": "Bearer"} if problem is _NO_KEY else {"Retry-After": "1"}
            await json_response(problem.content, problem.status, headers)(scope, receive, count)
            return
        self._num_running += 1
        try:
            await self._app(scope, receive, count)
        finally:
            self._num_running -= 1

    def _find_problem(self, path: str, headers: Headers) -> ApiError | None:
        if path == "/health":
            return None
        if self._key is None and self._settings.is_local and _host_name(headers.get("host", "")) not in _LOCAL_NAMES:
            return _WRONG_HOST
        if self._key is not None and (path.startswith("/v1/") or path == "/metrics"):
            scheme, _, key = headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(key.strip().encode(), self._key):
                return _NO_KEY
        return _FULL if self._num_running >= self._settings.max_connections else None


def _host_name(host: str) -> str:
    name = host.lower()
    return name if name.endswith("]") else name.rpartition(":")[0] or name
