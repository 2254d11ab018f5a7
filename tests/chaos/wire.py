"""The wire between botocore and an S3: how requests are named, and answers made and spoiled."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from botocore import awsrequest, httpsession
from botocore.exceptions import ConnectionClosedError
from urllib3.exceptions import HTTPError, IncompleteRead, ProtocolError

from tests.chaos.faults import Kind, current


@dataclass
class Answer:
    """What goes back."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class _Body(io.BytesIO):
    """A body as botocore reads it; one that is cut breaks where it ends, as urllib3 tells it."""

    def __init__(self, data: bytes, failure: HTTPError | None) -> None:
        super().__init__(data)
        self._failure = failure

    def read(self, size: int | None = -1, /, *_: Any, **__: Any) -> bytes:
        data = super().read(size)
        if self._failure is not None and not data:
            raise self._failure
        return data

    def stream(self, amount: int = 1 << 16, **_: Any) -> Iterator[bytes]:
        while data := self.read(amount):
            yield data


def name_request(request: Any) -> str:
    """What a request is called: method, path, and the first word of what else it says."""
    parts = urlsplit(request.url)
    return f"{request.method} {unquote(parts.path)}{'?' + parts.query.split('=')[0] if parts.query else ''}"


def xml(text: str, status: int = 200) -> Answer:
    return Answer(status, f'<?xml version="1.0" encoding="UTF-8"?>{text}'.encode(), {"Content-Type": "application/xml"})


def refuse(status: int, code: str, *, has_body: bool = True) -> Answer:
    return xml(f"<Error><Code>{code}</Code><Message>{code}</Message></Error>", status) if has_body else Answer(status)


def send_back(request: Any, answer: Answer, kind: Kind | None) -> awsrequest.AWSResponse:
    """The answer, whose body something may happen to."""
    body = answer.body
    if kind == "body damaged" and body:
        middle = len(body) // 2
        answer.body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
    if kind == "body short" and body:
        return respond(request, answer, body[:-1], IncompleteRead(len(body) - 1, 1))
    if kind == "body cut":
        return respond(request, answer, body[: len(body) // 2], ProtocolError("broken", ConnectionResetError()))
    return respond(request, answer)


def respond(
    request: Any, answer: Answer, body: bytes | None = None, failure: HTTPError | None = None
) -> awsrequest.AWSResponse:
    """The answer as botocore gets it; of its body a part, after which something fails."""
    headers: Any = awsrequest.HeadersDict({"Content-Length": str(len(answer.body)), **answer.headers})
    raw = _Body(answer.body if body is None else body, failure)
    response = awsrequest.AWSResponse(request.url, answer.status, headers, raw)
    if not request.stream_output:
        try:
            response.content  # noqa: B018 - read now, as the sender does
        except HTTPError as exc:
            raise ConnectionClosedError(endpoint_url=request.url, error=exc) from exc
    return response


@contextmanager
def counted_requests() -> Iterator[None]:
    """Every request to a real endpoint counts as a call of the process that runs, which may be killed there."""
    send = httpsession.URLLib3Session.send

    def count_and_send(session: Any, request: Any) -> Any:
        kind = current().take(name_request(request))
        answer = send(session, request)
        if kind == "kill after":
            current().die()
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpsession.URLLib3Session, "send", count_and_send)
        yield
