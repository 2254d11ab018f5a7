"""Fuzz `nanosft serve`: bodies, bytes, headers and clients that go away, many at once, the same for the same seed."""

import json
import logging
import random
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from nanosft.serve.bodies import ChatBody, CompletionBody
from nanosft.serve.logs import soften_client_faults
from tests.serving import Serving, serving

TIMEOUT_S: Final = 30.0
"""Without an answer for so long, a request hangs."""
NUM_CLIENTS: Final = 16
_EXPECTED: Final = frozenset({200, 400, 401, 403, 404, 405, 408, 411, 413, 414, 415, 422, 429, 431, 501, 503})
_WORDS: Final = (
    "",
    "Hi",
    "word " * 300,
    "\x00\x1b[31m",
    "naïve 日本語 🙂",
    "<|bos|><|assistant_end|>",
    "\ud800",
    "a" * 5000,
)
_NUMBERS: Final = (0, 1, -1, 2, 0.5, 1e308, -1e-308, 2**31, 2**63, -(2**63) - 1, 10**400, float("nan"), float("inf"))
_CONSTANTS: Final = (None, True, False)
_LISTS: Final[tuple[Any, ...]] = ([], {}, "small", [0], [1, 2, 3], ["a"], [[1], [2, 3]], [[]], ["a", 1])
_NAMES: Final = ("type", "text", "role", "content", "include_usage", "65", "")
_MAX_DEPTH: Final = 3
_ROLES: Final = ("user", "assistant", "system", "developer", "tool", "", None)
_KEYS: Final = sorted({*ChatBody.model_fields, *CompletionBody.model_fields, "unknown", "user"})
_PATHS: Final = (
    "/",
    "/health",
    "/metrics",
    "/v1/models",
    "/v1/models/%00",
    "/v1/models/../../etc",
    "/v1",
    "//",
    "/%ff",
)
_TOO_LONG: Final = "99999999999999999999"
_METHODS: Final = ("GET", "POST", "PUT", "HEAD", "OPTIONS", "DELETE", "TRACE", "PATCH", "get", "NONSENSE")


@dataclass
class Found:
    """What came of the requests.

    Attributes:
        counts: By kind and status; "closed" where the server closed without one, "left" where the client did.
        problems: What must not be, with the request.
    """

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    @property
    def num_requests(self) -> int:
        return sum(self.counts.values())


@dataclass(frozen=True)
class Attempt:
    """A request as bytes.

    Attributes:
        kind: What is odd about it.
        data: All of it.
        patience: Bytes of the answer after which the client leaves; None: it reads to the end.
        finished: False: the client sends no more, and leaves.
    """

    kind: str
    data: bytes
    patience: int | None = None
    finished: bool = True


class _Errors(logging.Handler):
    """Errors that the server logs: a defect that no status tells."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(logging.Formatter().format(record))


def fuzz(*, seconds: float, seed: int = 0, max_requests: int | None = None) -> Found:
    """Send requests until the time is over, or there were so many."""
    soften_client_faults()
    found, errors = Found(), _Errors()
    loggers = [logging.getLogger(name) for name in ("nanosft.serve", "uvicorn.error", "asyncio")]
    for logger in loggers:
        logger.addHandler(errors)
    try:
        with serving(
            max_batch=8, max_queue=24, max_tokens=24, max_body_bytes=40_000, prefill_tokens=64, tools=True
        ) as server:
            _send_all(server, found, seconds=seconds, seed=seed, max_requests=max_requests)
            _check_rest(server, found)
    finally:
        for logger in loggers:
            logger.removeHandler(errors)
    found.problems += [f"logged: {message}" for message in errors.messages]
    return found


def _send_all(server: Serving, found: Found, *, seconds: float, seed: int, max_requests: int | None) -> None:
    end_s = time.monotonic() + seconds
    lock = threading.Lock()
    share = None if max_requests is None else max_requests // NUM_CLIENTS

    def work(number: int) -> None:
        draw = random.Random(f"{seed}/{number}")
        num_sent = 0
        while time.monotonic() < end_s and (share is None or num_sent < share):
            num_sent += 1
            attempt = make_attempt(draw)
            outcome = _send(server, attempt)
            with lock:
                found.counts[attempt.kind, outcome] += 1
                if outcome == "hangs" or (outcome.isdigit() and int(outcome) not in _EXPECTED):
                    found.problems.append(f"{outcome}: {attempt.kind}: {attempt.data[:2000]!r}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(NUM_CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _check_rest(server: Serving, found: Found) -> None:
    """Nothing runs on that nobody waits for, and a sound request is answered as ever."""
    scheduler = server.server.schedulers["small"]
    deadline_s = time.monotonic() + TIMEOUT_S
    while scheduler.count_running() or scheduler.count_waiting():
        if time.monotonic() > deadline_s:
            found.problems.append(f"left: {scheduler.count_running()} run, {scheduler.count_waiting()} wait")
            break
        time.sleep(0.05)
    outcome = _send(server, Attempt("sound", _request("POST", "/v1/completions", _dump(_sound_completion()))))
    if outcome != "200":
        found.problems.append(f"{outcome}: a sound request after all the others")


def _send(server: Serving, attempt: Attempt) -> str:
    parts = urlsplit(server.url)
    answer = b""
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=TIMEOUT_S) as connection:
            connection.sendall(attempt.data)
            if not attempt.finished:
                return "left"
            while chunk := connection.recv(65536):
                answer += chunk
                if attempt.patience is not None and len(answer) > attempt.patience:
                    break
    except TimeoutError:
        return "hangs"
    except (ConnectionError, BrokenPipeError):
        pass  # it need not hear all of what it refuses
    if b'"type":"server_error","param":null,"code":"model_failed"' in answer:
        return "500"
    status = answer[9:12].decode(errors="replace")
    return status if status.isdigit() else "closed"


def make_attempt(draw: random.Random) -> Attempt:
    """One request; what is odd about it is drawn."""
    return draw.choice((_odd_values, _odd_values, _odd_bytes, _odd_http, _odd_client))(draw)


def _odd_values(draw: random.Random) -> Attempt:
    path, body = draw.choice([("/v1/chat/completions", _sound_chat()), ("/v1/completions", _sound_completion())])
    for _ in range(draw.randint(0, 4)):
        body[draw.choice(_KEYS)] = _value(draw, 0)
    if draw.random() < 0.1:
        return Attempt("values", _request("POST", path, _dump(_value(draw, 0))))
    return Attempt("values", _request("POST", path, _dump(body)))


def _odd_bytes(draw: random.Random) -> Attempt:
    path, body = draw.choice([("/v1/chat/completions", _sound_chat()), ("/v1/completions", _sound_completion())])
    data = bytearray(_dump(body))
    for _ in range(draw.randint(1, 6)):
        place = draw.randrange(len(data))
        action = draw.randrange(4)
        if action == 0:
            data[place] = draw.randrange(256)
        elif action == 1:
            data[place:place] = draw.randbytes(draw.randint(1, 8))
        elif action == 2 and len(data) > 10:
            del data[place : place + draw.randint(1, 8)]
        else:
            data[place:place] = draw.choice([b"[" * 2000, b'{"a":' * 500, b"\xff\xfe", b"null", b"1e999", b"\\ud800"])
    return Attempt("bytes", _request("POST", path, bytes(data)))


def _odd_http(draw: random.Random) -> Attempt:
    method, path = draw.choice(_METHODS), draw.choice([*_PATHS, "/v1/chat/completions", "/v1/completions"])
    body = draw.choice([b"", _dump(_sound_completion()), draw.randbytes(50), b"a" * 50_000])
    headers = {
        "Content-Type": draw.choice(["application/json", "text/plain", "", "application/json; charset=utf-16", "\xff"]),
        "Host": draw.choice(["127.0.0.1", "localhost:1", "evil.example", "", "[::1]", "[", ":", "\x80"]),
        "Authorization": draw.choice(["Bearer x", "Basic \xff", "", "Bearer " + "k" * 5000]),
        "Accept-Encoding": draw.choice(["gzip", "\t", "identity"]),
    }
    if draw.random() < 0.3:
        length = draw.choice(["-1", "0", "5", "abc", _TOO_LONG, str(len(body))])
        data = _raw(method, path, {**headers, "Content-Length": length}, body)
        return Attempt("http", data, finished=length != _TOO_LONG)
    if draw.random() < 0.2:
        chunks = draw.choice([b"5\r\nhello\r\n0\r\n\r\n", b"zz\r\n", b"-1\r\n\r\n", b"ffffffffffffffffff\r\n"])
        return Attempt("http", _raw(method, path, {**headers, "Transfer-Encoding": "chunked"}, chunks))
    return Attempt("http", _request(method, path, body, headers))


def _odd_client(draw: random.Random) -> Attempt:
    """A client that goes away: while it asks, or in the answer."""
    path, body = draw.choice([("/v1/chat/completions", _sound_chat()), ("/v1/completions", _sound_completion())])
    data = _request("POST", path, _dump({**body, "stream": True, "max_tokens": 24, "n": draw.randint(1, 4)}))
    if draw.random() < 0.4:
        return Attempt("client", data[: draw.randrange(1, len(data))], finished=False)
    return Attempt("client", data, patience=draw.choice([0, 200, 600]))


def _sound_chat() -> dict[str, Any]:
    return {"model": "small", "messages": [{"role": "user", "content": "Who are you?"}], "max_tokens": 4}


def _sound_completion() -> dict[str, Any]:
    return {"model": "small", "prompt": "The sky is", "max_tokens": 4}


def _value(draw: random.Random, depth: int) -> Any:
    """A JSON value of any kind, with and without a resemblance to what is expected."""
    kinds = "number number word word constant list messages values table"
    if depth == _MAX_DEPTH:
        kinds = "number word constant list"
    kind = draw.choice(kinds.split())
    if kind == "messages":
        return [{"role": draw.choice(_ROLES), "content": _value(draw, depth + 1)} for _ in range(draw.randint(0, 4))]
    if kind == "values":
        return [_value(draw, depth + 1) for _ in range(draw.randint(0, 3))]
    if kind == "table":
        return {draw.choice(_NAMES): _value(draw, depth + 1) for _ in range(draw.randint(0, 3))}
    return draw.choice({"number": _NUMBERS, "word": _WORDS, "constant": _CONSTANTS, "list": _LISTS}[kind])


def _dump(body: Any) -> bytes:
    return json.dumps(body).encode(errors="surrogatepass")


def _request(method: str, path: str, body: bytes, headers: dict[str, str] | None = None) -> bytes:
    sound = {"Host": "127.0.0.1", "Content-Type": "application/json"}
    return _raw(method, path, {**sound, **(headers or {}), "Content-Length": str(len(body))}, body)


def _raw(method: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "Connection: close"]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
