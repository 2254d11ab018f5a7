"""An S3 in memory, behind botocore's own sender: signing, retries and parsing are botocore's, only the wire is not.

It does what nanosft asks of an endpoint: conditional puts, ranges, `If-Match`, listings by pages, multipart uploads.
The contract suites run against real servers; here thousands of runs are made in minutes.
"""

import hashlib
import json
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest
from botocore import awsrequest, httpsession
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import ConnectionClosedError, EndpointConnectionError, ReadTimeoutError

from nanosft.store import s3_endpoint
from tests.chaos.faults import KEY_LIVES_S, Kind, current
from tests.chaos.wire import Answer, name_request, refuse, respond, send_back, xml

URL: Final = "http://s3.chaos"
_KEYS_PATH: Final = "/keys"
_REFUSALS: Final[dict[Kind | None, tuple[int, str]]] = {
    "500": (500, "InternalError"),
    "503": (503, "SlowDown"),
    "bucket gone": (404, "NoSuchBucket"),
    "key refused": (400, "ExpiredToken"),
    "clock back": (403, "RequestTimeTooSkewed"),
    "clock ahead": (403, "RequestTimeTooSkewed"),
}
_PAGE: Final = 5
_NAMESPACE: Final = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
_NOW: Final = datetime(2026, 11, 28, tzinfo=UTC)


@dataclass
class _Object:
    body: bytes
    metadata: dict[str, str]
    etag: str


class MemoryS3:
    """All buckets of one endpoint."""

    def __init__(self) -> None:
        self.objects: dict[str, _Object] = {}
        self._uploads: dict[str, tuple[str, dict[int, bytes]]] = {}
        self._num_uploads = 0
        self._num_keys = 0
        self._key_ends: dict[str, datetime] = {}
        self._last: str | None = None
        self._lock = threading.Lock()

    def send(self, request: Any) -> awsrequest.AWSResponse:
        """What botocore's sender does."""
        parts = urlsplit(request.url)
        process = current()
        if parts.path == _KEYS_PATH:
            return respond(request, self._give_key(process.age_s))
        kind = process.take(name_request(request))
        if kind in _REFUSALS:
            return respond(request, refuse(*_REFUSALS[kind], has_body=request.method != "HEAD"))
        if kind == "time-out":
            raise ReadTimeoutError(endpoint_url=request.url)
        if kind == "stays away":
            raise EndpointConnectionError(endpoint_url=request.url)
        if kind == "connection lost":
            raise ConnectionClosedError(endpoint_url=request.url)
        with self._lock:
            query = parse_qs(parts.query, keep_blank_values=True)
            answer = self._answer(request, parts.path, query, is_stale=kind == "stale listing")
        if kind == "kill after":
            process.die()
        if kind == "answer lost":
            raise ConnectionClosedError(endpoint_url=request.url)
        if kind == "key expires":
            process.age_s = KEY_LIVES_S  # before the next request is signed
        return send_back(request, answer, kind)

    def forget(self, uri: str) -> None:
        """Delete all objects whose URI begins with something."""
        for key in self._find(uri):
            del self.objects[key]

    def view(self, uri: str, folder: Path) -> str:
        """A directory with what lies under a URI now; the one before is gone."""
        shutil.rmtree(folder, ignore_errors=True)
        for key in self._find(f"{uri}/"):
            path = folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.objects[key].body)
        return str(folder / uri.removeprefix("s3://"))

    def _find(self, uri: str) -> list[str]:
        return [key for key in self.objects if key.startswith(uri.removeprefix("s3://"))]

    def _give_key(self, age_s: float) -> Answer:
        """A new key, which lives for an hour, as a container's endpoint gives it."""
        self._num_keys += 1
        ends = datetime.now(UTC) + timedelta(seconds=age_s + KEY_LIVES_S)
        self._key_ends[f"key-{self._num_keys}"] = ends
        names = {"AccessKeyId": f"key-{self._num_keys}", "SecretAccessKey": "chaos", "Token": "chaos"}
        return Answer(body=json.dumps({**names, "Expiration": ends.isoformat()}).encode())

    def _answer(self, request: Any, path: str, query: dict[str, list[str]], *, is_stale: bool) -> Answer:
        key = unquote(path).removeprefix("/")
        body = request.body.read() if hasattr(request.body, "read") else request.body or b""
        body = body.encode() if isinstance(body, str) else bytes(body)
        headers = {name.lower(): _text(value) for name, value in request.headers.items()}
        key_used = headers["authorization"].partition("Credential=")[2].partition("/")[0]
        if self._key_ends[key_used] <= datetime.now(UTC) + timedelta(seconds=current().age_s):
            return refuse(400, "ExpiredToken", has_body=request.method != "HEAD")
        if "uploads" in query or "uploadId" in query:
            return self._multipart(request.method, key, query, body)
        if request.method in ("PUT", "DELETE"):
            return self._put(key, body, headers) if request.method == "PUT" else self._delete(key)
        if "/" not in key.rstrip("/") or "list-type" in query:
            objects = self.objects
            if is_stale and self._last is not None:
                objects = {name: item for name, item in objects.items() if name != self._last}
            return _list(objects, key.partition("/")[0], query)
        return _read(self.objects.get(key), headers, is_head=request.method == "HEAD")

    def _put(self, key: str, body: bytes, headers: dict[str, str]) -> Answer:
        if headers.get("if-none-match") == "*" and key in self.objects:
            return refuse(412, "PreconditionFailed")
        metadata = {name: value for name, value in headers.items() if name.startswith("x-amz-meta-")}
        etag = f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'
        self.objects[key], self._last = _Object(body, metadata, etag), key
        return Answer(headers={"ETag": etag})

    def _delete(self, key: str) -> Answer:
        self.objects.pop(key, None)
        return Answer(204)

    def _multipart(self, method: str, key: str, query: dict[str, list[str]], body: bytes) -> Answer:
        number = query.get("uploadId", [""])[0]
        if method == "GET":
            return xml("<ListMultipartUploadsResult/>")
        if method == "POST" and "uploads" in query:
            self._num_uploads += 1
            self._uploads[str(self._num_uploads)] = key, {}
            return xml(f"<InitiateMultipartUploadResult><UploadId>{self._num_uploads}</UploadId>"
                        "</InitiateMultipartUploadResult>")  # fmt: skip
        if number not in self._uploads:
            return refuse(404, "NoSuchUpload")
        if method == "PUT":
            self._uploads[number][1][int(query["partNumber"][0])] = body
            return Answer(headers={"ETag": f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'})
        _, parts = self._uploads.pop(number)
        if method == "DELETE":
            return Answer(204)
        whole = b"".join(parts[part] for part in sorted(parts))
        etag = f'"{hashlib.md5(whole, usedforsecurity=False).hexdigest()}-{len(parts)}"'
        self.objects[key], self._last = _Object(whole, {}, etag), key
        return xml(f"<CompleteMultipartUploadResult><ETag>{escape(etag)}</ETag></CompleteMultipartUploadResult>")


def _list(objects: dict[str, _Object], bucket: str, query: dict[str, list[str]]) -> Answer:
    prefix, after = query.get("prefix", [""])[0], query.get("continuation-token", [""])[0]
    delimiter = query.get("delimiter", [""])[0]
    keys, names = [], set()
    for full in sorted(objects):
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
        f"<Contents><Key>{escape(key)}</Key><Size>{len(objects[f'{bucket}/{key}'].body)}</Size>"
        f"<ETag>{escape(objects[f'{bucket}/{key}'].etag)}</ETag>"
        f"<LastModified>{_NOW.isoformat()}</LastModified></Contents>"
        for key in page
    )
    common = "".join(f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in sorted(names))
    token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if has_more else ""
    truncated = f"<IsTruncated>{'true' if has_more else 'false'}</IsTruncated>"
    return xml(f"<ListBucketResult {_NAMESPACE}>{truncated}{token}{contents}{common}</ListBucketResult>")


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _read(found: _Object | None, asked: dict[str, str], *, is_head: bool) -> Answer:
    if found is None:
        return refuse(404, "NoSuchKey", has_body=not is_head)
    if asked.get("if-match", found.etag) != found.etag:
        return refuse(412, "PreconditionFailed")
    span = asked.get("range")
    headers = {"ETag": found.etag, "Last-Modified": format_datetime(_NOW, usegmt=True), **found.metadata}
    body, status = found.body, 200
    if span and (match := re.fullmatch(r"bytes=(\d+)-(\d*)", span)):
        start = int(match[1])
        end = min(int(match[2] or len(body)), len(body) - 1)
        if start >= len(body):
            return refuse(416, "InvalidRange")
        headers["Content-Range"] = f"bytes {start}-{end}/{len(body)}"
        body, status = body[start : end + 1], 206
    headers["Content-Length"] = str(len(body))
    return Answer(status, b"" if is_head else body, headers)


def begin_process() -> None:
    """What a process has found out about the other side, the next one does not know; nor do they wait for one lock."""
    for identity, endpoint in s3_endpoint._endpoints.items():
        s3_endpoint._endpoints[identity] = s3_endpoint.Endpoint(endpoint.client)


@contextmanager
def memory_s3() -> Iterator[MemoryS3]:
    """The `AWS_…` variables name an S3 in memory; every request counts as a call of the process that runs.

    Its keys come from where a container's come from, and live for an hour.
    """

    def seconds_left(credentials: Any) -> float:
        now = datetime.now(UTC) + timedelta(seconds=current().age_s)
        return float((credentials._expiry_time - now).total_seconds())

    server = MemoryS3()
    s3_endpoint._endpoints.clear()  # with clients whose keys are another server's
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
            patch.delenv(name, raising=False)
        for name, value in {
            "AWS_ENDPOINT_URL": URL,
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://127.0.0.1{_KEYS_PATH}",
            "AWS_REGION": "us-east-1",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            patch.setenv(name, value)
        patch.setattr(RefreshableCredentials, "_seconds_remaining", seconds_left)
        patch.setattr(httpsession.URLLib3Session, "send", lambda _self, request: server.send(request))
        yield server
