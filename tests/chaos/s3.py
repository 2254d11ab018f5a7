"""An S3 in memory, behind botocore's own sender: signing, retries and parsing are botocore's, only the wire is not.

It does what nanosft asks of an endpoint: conditional puts, ranges, `If-Match`, listings by pages, multipart uploads.
The contract suites run against real servers; here thousands of runs are made in minutes.
"""

import hashlib
import io
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest
from botocore import awsrequest, httpsession
from botocore.exceptions import ConnectionClosedError, EndpointConnectionError, ReadTimeoutError
from urllib3.exceptions import ProtocolError

from tests.chaos.faults import current

URL: Final = "http://s3.chaos"
_PAGE: Final = 5
_NAMESPACE: Final = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
_NOW: Final = datetime(2026, 11, 28, tzinfo=UTC)


@dataclass
class _Object:
    body: bytes
    metadata: dict[str, str]
    etag: str


@dataclass
class Answer:
    """What goes back."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class _Body(io.BytesIO):
    """A body as botocore reads it; one that is cut breaks where it ends."""

    def __init__(self, data: bytes, *, is_cut: bool) -> None:
        super().__init__(data)
        self._is_cut = is_cut

    def read(self, size: int | None = -1, /, *_: Any, **__: Any) -> bytes:
        data = super().read(size)
        if self._is_cut and not data:
            raise ProtocolError("connection broken: incomplete read")
        return data

    def stream(self, amount: int = 1 << 16, **_: Any) -> Iterator[bytes]:
        while data := self.read(amount):
            yield data


class MemoryS3:
    """All buckets of one endpoint."""

    def __init__(self) -> None:
        self.objects: dict[str, _Object] = {}
        self._uploads: dict[str, tuple[str, dict[int, bytes]]] = {}
        self._num_uploads = 0
        self._lock = threading.Lock()

    def send(self, request: Any) -> awsrequest.AWSResponse:
        """What botocore's sender does."""
        parts = urlsplit(request.url)
        call = f"{request.method} {unquote(parts.path)}{'?' + parts.query.split('=')[0] if parts.query else ''}"
        process = current()
        kind = process.take(call)
        if kind in ("500", "503"):
            return _respond(request, _error(int(kind), "InternalError" if kind == "500" else "SlowDown"))
        if kind == "time-out":
            raise ReadTimeoutError(endpoint_url=request.url)
        if kind == "stays away":
            raise EndpointConnectionError(endpoint_url=request.url)
        if kind == "connection lost":
            raise ConnectionClosedError(endpoint_url=request.url)
        with self._lock:
            answer = self._answer(request, parts.path, parse_qs(parts.query, keep_blank_values=True))
        if kind == "kill after":
            process.die()
        if kind == "answer lost":
            raise ConnectionClosedError(endpoint_url=request.url)
        is_cut = kind == "body cut" and request.method == "GET"
        if kind == "body damaged" and request.method == "GET" and answer.body:
            middle = len(answer.body) // 2
            changed = answer.body[:middle] + bytes([answer.body[middle] ^ 1]) + answer.body[middle + 1 :]
            answer = Answer(answer.status, changed, answer.headers)
        return _respond(request, answer, is_cut=is_cut)

    def _answer(self, request: Any, path: str, query: dict[str, list[str]]) -> Answer:
        key = unquote(path).removeprefix("/")
        body = request.body.read() if hasattr(request.body, "read") else request.body or b""
        body = body.encode() if isinstance(body, str) else bytes(body)
        headers = {name.lower(): _text(value) for name, value in request.headers.items()}
        if "uploads" in query or "uploadId" in query:
            return self._multipart(request.method, key, query, body)
        if request.method in ("PUT", "DELETE"):
            return self._put(key, body, headers) if request.method == "PUT" else self._delete(key)
        if "/" not in key.rstrip("/") or "list-type" in query:
            return self._list(key.partition("/")[0], query)
        found = self.objects.get(key)
        if found is None:
            return _error(404, "NoSuchKey", has_body=request.method != "HEAD")
        if headers.get("if-match", found.etag) != found.etag:
            return _error(412, "PreconditionFailed")
        return _read(found, headers.get("range"), is_head=request.method == "HEAD")

    def _put(self, key: str, body: bytes, headers: dict[str, str]) -> Answer:
        if headers.get("if-none-match") == "*" and key in self.objects:
            return _error(412, "PreconditionFailed")
        metadata = {name: value for name, value in headers.items() if name.startswith("x-amz-meta-")}
        etag = f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'
        self.objects[key] = _Object(body, metadata, etag)
        return Answer(headers={"ETag": etag})

    def _delete(self, key: str) -> Answer:
        self.objects.pop(key, None)
        return Answer(204)

    def _multipart(self, method: str, key: str, query: dict[str, list[str]], body: bytes) -> Answer:
        number = query.get("uploadId", [""])[0]
        if method == "GET":
            return _xml("<ListMultipartUploadsResult/>")
        if method == "POST" and "uploads" in query:
            self._num_uploads += 1
            self._uploads[str(self._num_uploads)] = key, {}
            return _xml(f"<InitiateMultipartUploadResult><UploadId>{self._num_uploads}</UploadId>"
                        "</InitiateMultipartUploadResult>")  # fmt: skip
        if number not in self._uploads:
            return _error(404, "NoSuchUpload")
        if method == "PUT":
            self._uploads[number][1][int(query["partNumber"][0])] = body
            return Answer(headers={"ETag": f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'})
        _, parts = self._uploads.pop(number)
        if method == "DELETE":
            return Answer(204)
        whole = b"".join(parts[part] for part in sorted(parts))
        etag = f'"{hashlib.md5(whole, usedforsecurity=False).hexdigest()}-{len(parts)}"'
        self.objects[key] = _Object(whole, {}, etag)
        return _xml(f"<CompleteMultipartUploadResult><ETag>{escape(etag)}</ETag></CompleteMultipartUploadResult>")

    def _list(self, bucket: str, query: dict[str, list[str]]) -> Answer:
        prefix, after = query.get("prefix", [""])[0], query.get("continuation-token", [""])[0]
        delimiter = query.get("delimiter", [""])[0]
        keys, names = [], set()
        for full in sorted(self.objects):
            key = full.removeprefix(f"{bucket}/")
            if not full.startswith(f"{bucket}/") or not key.startswith(prefix) or key <= after:
                continue
            rest = key.removeprefix(prefix)
            if delimiter and delimiter in rest:
                names.add(prefix + rest.partition(delimiter)[0] + delimiter)
            else:
                keys.append(key)
        page, has_more = keys[:_PAGE], len(keys) > _PAGE
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.objects[f'{bucket}/{key}'].body)}</Size>"
            f"<ETag>{escape(self.objects[f'{bucket}/{key}'].etag)}</ETag>"
            f"<LastModified>{_NOW.isoformat()}</LastModified></Contents>"
            for key in page
        )
        common = "".join(f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in sorted(names))
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if has_more else ""
        truncated = f"<IsTruncated>{'true' if has_more else 'false'}</IsTruncated>"
        return _xml(f"<ListBucketResult {_NAMESPACE}>{truncated}{token}{contents}{common}</ListBucketResult>")


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _read(found: _Object, span: str | None, *, is_head: bool) -> Answer:
    headers = {"ETag": found.etag, "Last-Modified": format_datetime(_NOW, usegmt=True), **found.metadata}
    body, status = found.body, 200
    if span and (match := re.fullmatch(r"bytes=(\d+)-(\d*)", span)):
        start = int(match[1])
        end = min(int(match[2] or len(body)), len(body) - 1)
        if start >= len(body):
            return _error(416, "InvalidRange")
        headers["Content-Range"] = f"bytes {start}-{end}/{len(body)}"
        body, status = body[start : end + 1], 206
    headers["Content-Length"] = str(len(body))
    return Answer(status, b"" if is_head else body, headers)


def _xml(text: str, status: int = 200) -> Answer:
    return Answer(status, f'<?xml version="1.0" encoding="UTF-8"?>{text}'.encode(), {"Content-Type": "application/xml"})


def _error(status: int, code: str, *, has_body: bool = True) -> Answer:
    return _xml(f"<Error><Code>{code}</Code><Message>{code}</Message></Error>", status) if has_body else Answer(status)


def _respond(request: Any, answer: Answer, *, is_cut: bool = False) -> awsrequest.AWSResponse:
    headers: Any = awsrequest.HeadersDict({"Content-Length": str(len(answer.body)), **answer.headers})
    body = answer.body[: len(answer.body) // 2] if is_cut else answer.body
    response = awsrequest.AWSResponse(request.url, answer.status, headers, _Body(body, is_cut=is_cut))
    if not request.stream_output:
        try:
            response.content  # noqa: B018 - read now, as the sender does
        except ProtocolError as exc:
            raise ConnectionClosedError(endpoint_url=request.url, error=exc) from exc
    return response


@contextmanager
def memory_s3() -> Iterator[MemoryS3]:
    """The `AWS_…` variables name an S3 in memory; every request counts as a call of the process that runs."""
    server = MemoryS3()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": URL,
            "AWS_ACCESS_KEY_ID": "chaos",
            "AWS_SECRET_ACCESS_KEY": "chaos",
            "AWS_REGION": "us-east-1",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            patch.setenv(name, value)
        patch.setattr(httpsession.URLLib3Session, "send", lambda _self, request: server.send(request))
        yield server
