"""Reading one S3 object as a stream that outlives broken connections.

A connection that breaks, or a body that ends early, is resumed by a ranged GET from the next byte on, with `If-Match`
on the ETag of the first answer: what is read is one version of the object, never a mixture of two.
"""

import contextlib
import hashlib
import io
import logging
import re
import time
from typing import TYPE_CHECKING, Any, Final

from botocore import exceptions as boto
from urllib3.exceptions import HTTPError

from nanosft.errors import DataError, NanosftError, StoreError
from nanosft.store.base import REPLACED
from nanosft.store.s3_client import error_code, http_status, to_error

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client

_log = logging.getLogger("nanosft.store")

SHA256_METADATA: Final = "nanosft-sha256"
"""User metadata of objects put in one request: their SHA-256 (hex), which every endpoint gives back."""

_MD5_ETAG: Final = re.compile(r'"([0-9a-f]{32})"')
"""Of an object put in one request: its MD5, unless a key of the endpoint's encrypts it."""
_BLOCK_BYTES: Final = 1 << 20
_MAX_RESUMES: Final = 6
"""Without a single byte between them."""
_FIRST_WAIT_S: Final = 0.1
_BROKEN: Final = (boto.HTTPClientError, boto.IncompleteReadError, boto.ConnectionError, HTTPError, OSError)


class DamagedOnTheWayError(StoreError):
    """What was read is not what the object is."""


class ObjectReader(io.RawIOBase):
    """One version of one object, from `start` to its end or for `length` bytes.

    The first request is sent at once, so an object that is not there, or not of the `etag` that is asked for, is an
    error here and not at the first read.
    """

    def __init__(
        self,
        client: "S3Client",
        bucket: str,
        key: str,
        *,
        uri: str,
        start: int = 0,
        length: int | None = None,
        etag: str = "",
    ) -> None:
        super().__init__()
        self._client, self._bucket, self._key, self._uri = client, bucket, key, uri
        self._is_range = start > 0 or length is not None
        self._next = start
        self._end: int | None = None if length is None else start + length
        self._etag = etag
        self._num_resumes = 0
        self._hash = hashlib.sha256()
        self._expected: str | None = None
        self._is_ours = True
        self._body: StreamingBody | None = None
        try:
            answer = self._get(self._is_range)
        except boto.ClientError as exc:
            if error_code(exc) != "InvalidRange":
                raise self._to_error(exc) from exc
            self._end = self._next  # the object ends before `start`
            return
        except (boto.BotoCoreError, HTTPError) as exc:
            raise to_error(exc, uri) from exc
        self._etag = answer.get("ETag", "")
        self._end = self._next + answer["ContentLength"]
        if not self._is_range:
            self._expected = answer.get("Metadata", {}).get(SHA256_METADATA)
            if self._expected is None and (match := _MD5_ETAG.fullmatch(self._etag)):
                self._expected, self._is_ours = match[1], False
                self._hash = hashlib.md5(usedforsecurity=False)

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """Fill the buffer as far as the connection has bytes; 0 at the object's end."""
        view = memoryview(buffer).cast("B")
        chunk = self.read_chunk(len(view))
        view[: len(chunk)] = chunk
        return len(chunk)

    def read_chunk(self, max_bytes: int) -> bytes:
        """Up to `max_bytes`; empty at the object's end only.

        Raises:
            StoreError: The connection breaks again and again, or the object was replaced meanwhile.
            DataError: At the end, when the bytes are not what the object's checksum says, twice.
        """
        assert self._end is not None
        while self._next < self._end:
            try:
                chunk = self._stream().read(min(max_bytes, self._end - self._next))
            except boto.FlexibleChecksumError as exc:
                raise to_error(exc, self._uri) from exc
            except _BROKEN as exc:
                self._wait_to_resume(exc)
                continue
            if not chunk:
                self._wait_to_resume(None)
                continue
            self._next += len(chunk)
            self._num_resumes = 0
            if self._expected:
                self._hash.update(chunk)
            return chunk
        if self._expected and self._hash.hexdigest() != self._expected:
            self._look_once_more()
        self._expected = None
        return b""

    def close(self) -> None:
        """Give the connection back."""
        if self._body is not None:
            self._body.close()
            self._body = None
        super().close()

    def _look_once_more(self) -> None:
        """Tell an object that is damaged from one that was damaged on its way here, by reading it again."""
        found, expected = self._hash.hexdigest(), self._expected
        again = hashlib.new(self._hash.name, usedforsecurity=False)
        try:
            body = self._client.get_object(Bucket=self._bucket, Key=self._key)["Body"]
            with contextlib.closing(body):
                for block in body.iter_chunks(_BLOCK_BYTES):
                    again.update(block)
        except (boto.ClientError, boto.BotoCoreError, HTTPError, OSError) as exc:
            raise StoreError(f"{self._uri}: was damaged on its way, and could not be read again: {exc}") from exc
        if again.hexdigest() != found:
            raise DamagedOnTheWayError(f"{self._uri}: was damaged on its way: run the same command again")
        if self._is_ours:
            raise DataError(
                f"{self._uri}: SHA-256 is {found}, was {expected} when it was put: the object is damaged, make it again"
            )
        # Others' objects: the ETag is no MD5 where a key encrypts them, so equal bytes twice are what is there.

    def _get(self, ranged: bool) -> Any:  # noqa: FBT001 - one caller says it by name of a field
        conditions: dict[str, Any] = {"IfMatch": self._etag} if self._etag else {}
        if ranged:
            conditions["Range"] = f"bytes={self._next}-" + ("" if self._end is None else str(self._end - 1))
        answer = self._ask(conditions)
        if ranged and "ContentRange" not in answer:
            answer["Body"].close()
            raise StoreError(f"{self._uri}: the endpoint ignored a Range header, which nanosft needs")
        self._body = answer["Body"]
        return answer

    def _ask(self, conditions: dict[str, Any]) -> Any:
        """GET, again where the body of an error breaks: botocore reads that one after its own retries."""
        for number in range(_MAX_RESUMES):
            try:
                return self._client.get_object(Bucket=self._bucket, Key=self._key, **conditions)
            except HTTPError as exc:
                _log.warning("%s: the body of an error broke (%s): asking again", self._uri, exc)
                time.sleep(_FIRST_WAIT_S * 2**number)
        return self._client.get_object(Bucket=self._bucket, Key=self._key, **conditions)

    def _stream(self) -> "StreamingBody":
        if self._body is None:
            try:
                self._get(ranged=True)
            except boto.ClientError as exc:
                raise self._to_error(exc) from exc
            except (boto.BotoCoreError, HTTPError) as exc:
                raise to_error(exc, self._uri) from exc
        assert self._body is not None
        return self._body

    def _to_error(self, exc: boto.ClientError) -> NanosftError:
        if http_status(exc) == 412:  # noqa: PLR2004 - precondition failed
            return StoreError(f"{self._uri}: {REPLACED}")
        return to_error(exc, self._uri)

    def _wait_to_resume(self, exc: Exception | None) -> None:
        reason = str(exc) if exc else "the body ended early"
        if self._body is not None:
            self._body.close()
            self._body = None
        if self._num_resumes == _MAX_RESUMES or not self._etag:
            raise StoreError(
                f"{self._uri}: broke at byte {self._next} of {self._end} {self._num_resumes + 1} times: {reason}: "
                "try again later"
            ) from exc
        _log.warning("%s: broke at byte %d of %s (%s): resuming", self._uri, self._next, self._end, reason)
        time.sleep(_FIRST_WAIT_S * 2**self._num_resumes)
        self._num_resumes += 1
