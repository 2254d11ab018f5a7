"""Writing one S3 object as a stream of unknown length, in bounded memory.

What fits in one part is put in one request; more is a multipart upload whose parts are sent by threads while the next
one fills. An upload that is not completed is no object: killed or aborted, it leaves nothing that can be read.
"""

import base64
import hashlib
import logging
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from botocore import exceptions as boto

from nanosft.errors import NanosftError
from nanosft.store.base import Writer, Written
from nanosft.store.s3_client import error_code, num_retries, translated

if TYPE_CHECKING:
    from nanosft.store.s3_endpoint import Endpoint

_log = logging.getLogger("nanosft.store")

PART_BYTES: Final = 8 << 20
_PARTS_OF_ONE_SIZE: Final = 1000
_GROWTH: Final = 15
_MAX_IN_FLIGHT_BYTES: Final = 32 << 20
_NUM_THREADS: Final = 4


def part_bytes(number: int) -> int:
    """Size of part `number` (from 1): 8 MiB, and 120 MiB more after each 1,000 parts.

    10,000 parts, S3's most, then hold 5.2 TiB: more than its largest object of 5 TB. Objects up to 8 GiB have parts of
    one size, which some gateways (Cloudflare R2) ask for.
    """
    return PART_BYTES * (1 + _GROWTH * ((number - 1) // _PARTS_OF_ONE_SIZE))


class ObjectWriter:
    """Bytes on their way into one object."""

    def __init__(self, endpoint: "Endpoint", bucket: str, full_key: str, *, key: str, uri: str) -> None:
        self._endpoint, self._bucket, self._full_key = endpoint, bucket, full_key
        self._key, self._uri = key, uri
        self._buffer = bytearray()
        self._hash = hashlib.sha256()
        self._size_bytes = 0
        self._upload_id: str | None = None
        self._has_checksums = False
        self._num_parts = 0
        self._part_bytes = part_bytes(1)
        self._sent: list[Future[Any]] = []
        self._in_flight: deque[tuple[Future[Any], int]] = deque()
        self._threads: ThreadPoolExecutor | None = None
        self._written: Written | None = None

    def __enter__(self) -> Writer:
        return self

    def write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Append bytes; returns their number. Waits while more than 32 MiB are under way."""
        view = memoryview(data).cast("B")
        self._hash.update(view)
        self._size_bytes += len(view)
        rest = view
        while len(self._buffer) + len(rest) > self._part_bytes:
            taken = self._part_bytes - len(self._buffer)
            self._buffer += rest[:taken]
            rest = rest[taken:]
            self._send_part()
        self._buffer += rest
        return len(view)

    @property
    def written(self) -> Written:
        """What was put; only after a normal exit of the context."""
        assert self._written is not None, "nothing is put before the context ends normally"
        return self._written

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            self._abort()
            return
        try:
            self._commit()
        except BaseException:
            self._abort()
            raise
        self._written = Written(self._key, self._size_bytes, self._hash.hexdigest())

    def _commit(self) -> None:
        if self._upload_id is None:
            with translated(self._uri):
                self._endpoint.put(self._bucket, self._full_key, bytes(self._buffer), self._hash.digest())
            return
        self._send_part()
        with translated(self._uri):
            parts = [future.result() for future in self._sent]
            self._complete(parts)
        self._stop_threads()

    def _complete(self, parts: list[Any]) -> None:
        client = self._endpoint.client
        try:
            client.complete_multipart_upload(
                Bucket=self._bucket,
                Key=self._full_key,
                UploadId=self._upload_id or "",
                MultipartUpload={"Parts": parts},
            )
        except boto.ClientError as exc:
            # A retry of a request that had come through finds the upload gone; then the object must be ours.
            if error_code(exc) != "NoSuchUpload" or not num_retries(exc.response):
                raise
            found = client.head_object(Bucket=self._bucket, Key=self._full_key)
            is_ours = found["ContentLength"] == self._size_bytes and f"-{len(parts)}" in found.get("ETag", "")
            if not is_ours:
                raise

    def _send_part(self) -> None:
        body = bytes(self._buffer)
        self._buffer.clear()
        with translated(self._uri):
            if self._upload_id is None:
                self._upload_id, self._has_checksums = self._endpoint.create_upload(self._bucket, self._full_key)
                self._threads = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="nanosft-upload")
            while self._in_flight and sum(size for _, size in self._in_flight) + len(body) > _MAX_IN_FLIGHT_BYTES:
                self._in_flight.popleft()[0].result()
        assert self._threads is not None
        self._num_parts += 1
        future = self._threads.submit(self._upload_part, self._num_parts, body)
        self._sent.append(future)
        self._in_flight.append((future, len(body)))
        self._part_bytes = part_bytes(self._num_parts + 1)

    def _upload_part(self, number: int, body: bytes) -> dict[str, Any]:
        extra: dict[str, Any] = {}
        if self._has_checksums:
            extra["ChecksumSHA256"] = base64.b64encode(hashlib.sha256(body).digest()).decode()
        answer = self._endpoint.client.upload_part(
            Bucket=self._bucket,
            Key=self._full_key,
            UploadId=self._upload_id or "",
            PartNumber=number,
            Body=body,
            **extra,
        )
        part: dict[str, Any] = {"PartNumber": number, "ETag": answer["ETag"]}
        if "ChecksumSHA256" in answer:
            part["ChecksumSHA256"] = answer["ChecksumSHA256"]
        return part

    def _stop_threads(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
            self._threads = None

    def _abort(self) -> None:
        self._buffer.clear()
        self._stop_threads()
        if self._upload_id is None:
            return
        try:
            with translated(self._uri):
                self._endpoint.client.abort_multipart_upload(
                    Bucket=self._bucket, Key=self._full_key, UploadId=self._upload_id
                )
        except NanosftError as exc:  # the reason for the abort matters more; a lifecycle rule removes the parts
            _log.warning("%s: its unfinished upload could not be aborted: %s", self._uri, exc)
