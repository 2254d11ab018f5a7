"""An HTTP proxy before an S3 server: it counts requests and makes the faults that networks and gateways make."""

import http.client
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

from tests.servers import LoopbackServer

_HOP_HEADERS = {"connection", "transfer-encoding", "keep-alive", "expect"}


@dataclass(frozen=True)
class Request:
    """What came in."""

    method: str
    path: str
    headers: dict[str, str]
    size_bytes: int

    @property
    def operation(self) -> str:
        """Method and the S3 sub-resource, such as `POST uploads` or `GET list-type`."""
        query = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
        kinds = [name for name in ("uploads", "partNumber", "uploadId", "list-type") if name in query]
        return " ".join([self.method, *kinds[:1]])


@dataclass
class Fault:
    """What to do with a request instead of passing it on unharmed. The fields combine.

    Attributes:
        status: Answer this without asking the server.
        error_code: S3 error code in that answer's body.
        drop_before: Close the connection without passing the request on.
        drop_after: Pass it on, and close the connection instead of answering: applied, but the client cannot know.
        cut_body_at: Send this many bytes of the answer's body, then close the connection.
        flip_body_at: Change the byte at this place of the answer's body.
        flip_request_at: Change the byte at this place of the request's body.
        drop_headers: Request headers not passed on (in lower case).
        path: Ask the server for this instead.
        before: Called before the request is passed on.
    """

    status: int | None = None
    error_code: str = "SlowDown"
    drop_before: bool = False
    drop_after: bool = False
    cut_body_at: int | None = None
    flip_body_at: int | None = None
    flip_request_at: int | None = None
    drop_headers: frozenset[str] = frozenset()
    path: str | None = None
    before: Callable[[], object] | None = None


@dataclass
class _Rule:
    matches: Callable[[Request], bool]
    fault: Fault
    times: int
    used: int = field(default=0)


class S3Proxy:
    """Runs in threads of the test; `url` is where to send requests."""

    def __init__(self, target: str) -> None:
        self.requests: list[Request] = []
        self._target = urlsplit(target)
        self._rules: list[_Rule] = []
        self._lock = threading.Lock()
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._server = LoopbackServer(Handler)
        self.url = self._server.url

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def inject(self, operation: str, fault: Fault, *, times: int = 1) -> None:
        """Treat the next `times` requests of an operation (`GET`, `PUT partNumber` …, see `Request`) with a fault."""
        self.inject_when(lambda request: request.operation == operation, fault, times=times)

    def inject_when(self, matches: Callable[[Request], bool], fault: Fault, *, times: int = 1) -> None:
        """Treat the next `times` requests that match with a fault."""
        with self._lock:
            self._rules.append(_Rule(matches, fault, times))

    def count(self) -> Counter[str]:
        """Requests by operation since the last call, which starts a new count."""
        with self._lock:
            found = Counter(request.operation for request in self.requests)
            self.requests.clear()
        return found

    def reset(self) -> None:
        """Forget all requests and faults."""
        with self._lock:
            self.requests.clear()
            self._rules.clear()

    def take(self, request: Request) -> Fault:
        """Note a request and tell its fault."""
        with self._lock:
            self.requests.append(request)
            for rule in self._rules:
                if rule.used < rule.times and rule.matches(request):
                    rule.used += 1
                    return rule.fault
        return Fault()

    def connect(self) -> http.client.HTTPConnection:
        """A new connection to the server behind."""
        return http.client.HTTPConnection(self._target.hostname or "", self._target.port, timeout=60)


class _Handler(BaseHTTPRequestHandler):
    owner: S3Proxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self._server_side: http.client.HTTPConnection | None = None

    def finish(self) -> None:
        super().finish()
        if self._server_side:
            self._server_side.close()

    def log_message(self, *_args: object) -> None:
        """Say nothing."""

    def _handle(self) -> None:
        body = self._read_body()
        headers = {name.lower(): value for name, value in self.headers.items()}
        fault = self.owner.take(Request(self.command, self.path, headers, len(body)))
        if fault.before:
            fault.before()
        if fault.drop_before:
            self.close_connection = True
            return
        if fault.status is not None:
            self._answer_error(fault.status, fault.error_code)
            return
        if fault.flip_request_at is not None:
            body = _flip(body, fault.flip_request_at)
        status, answer_headers, answer = self._pass_on(fault.path or self.path, body, fault.drop_headers)
        if fault.drop_after:
            self.close_connection = True
            return
        if fault.flip_body_at is not None:
            answer = _flip(answer, fault.flip_body_at)
        self.send_response_only(status)
        for name, value in answer_headers:
            if name.lower() not in _HOP_HEADERS:
                self.send_header(name, value)
        if not any(name.lower() == "content-length" for name, _ in answer_headers):
            self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer if fault.cut_body_at is None else answer[: fault.cut_body_at])
        self.close_connection = self.close_connection or fault.cut_body_at is not None

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle  # noqa: N815 - http.server asks for these names

    def _read_body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            chunks = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _pass_on(self, path: str, body: bytes, drop: frozenset[str]) -> tuple[int, list[tuple[str, str]], bytes]:
        if self._server_side is None:
            self._server_side = self.owner.connect()
        connection = self._server_side
        connection.putrequest(self.command, path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in _HOP_HEADERS | drop | {"content-length"}:
                connection.putheader(name, value)
        if body or self.command in {"PUT", "POST"}:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        return response.status, response.getheaders(), response.read()

    def _answer_error(self, status: int, code: str) -> None:
        body = f"<Error><Code>{code}</Code><Message>made by the test</Message></Error>".encode()
        if self.command == "HEAD":
            body = b""
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
