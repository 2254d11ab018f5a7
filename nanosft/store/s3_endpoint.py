"""What one S3 endpoint does, found out on first use, and puts that rest on it.

Not everything that speaks S3 does all of S3. What matters here:

- **Conditional put** (`If-None-Match: *`). AWS, MinIO, SeaweedFS and moto honour it; some gateways ignore it silently,
  others answer 501. The first write-if-absent tells: it puts its object and puts it again under the same condition,
  which only an endpoint that honours it refuses (412). Elsewhere a look, a put, a wait of `SETTLE_S` and a second
  look stand in for it: of writers that race, the one whose bytes stay says that it put them. That is safe as long as no
  writer takes longer than `SETTLE_S` from its first look to the end of its put, and the object is whole in any case.
- **Listing.** An endpoint whose listing lags behind its puts is waited for before each listing.
- **Checksums.** A SHA-256 goes with every put; where it is refused, puts go without. Reads check the SHA-256 that lies
  in the object's metadata, which every endpoint keeps.

One log line says what was found. AWS itself is known and not asked.
"""

import base64
import hashlib
import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from nanosft.errors import ConfigError
from nanosft.store.s3_client import error_code, http_status, is_absent, make_client, num_retries, one_line
from nanosft.store.s3_read import SHA256_METADATA

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_log = logging.getLogger("nanosft.store")

SETTLE_S: Final = 2.0
_MAX_CONFLICTS: Final = 6
_FIRST_WAIT_S: Final = 0.1
_MAX_LIST_LAG_S: Final = 10.0
_REFUSALS: Final = frozenset({"NotImplemented", "InvalidArgument", "InvalidRequest", "MethodNotAllowed", "501"})
_PRECONDITION_FAILED: Final = 412
_CONFLICT: Final = 409

Conditional = Literal["unknown", "honoured", "ignored", "refused"]

_endpoints: dict[tuple[object, ...], "Endpoint"] = {}
_lock = threading.Lock()


def open_endpoint() -> "Endpoint":
    """The endpoint that the present `AWS_…` variables name. Making a client takes 0.1 s, so stores share it.

    Raises:
        ConfigError: A variable or AWS's configuration file cannot be right.
    """
    # A forked child must not share its parent's connections, hence the process id.
    aws = sorted(item for item in os.environ.items() if item[0].startswith("AWS_") or item[0] == "HOME")
    identity = (os.getpid(), *aws)
    with _lock:
        if identity not in _endpoints:
            try:
                _endpoints[identity] = Endpoint(make_client())
            except (BotoCoreError, ValueError) as exc:
                raise ConfigError(f"the AWS settings cannot be right: {one_line(exc)}") from exc
        return _endpoints[identity]


class Endpoint:
    """A client and what is known of the other side. Methods raise botocore's errors; keys are whole ones."""

    def __init__(self, client: "S3Client") -> None:
        self.client = client
        self.list_lag_s = 0.0
        host = urlsplit(client.meta.endpoint_url).hostname or ""
        self._is_aws = host.endswith((".amazonaws.com", ".amazonaws.com.cn"))
        self._conditional: Conditional = "honoured" if self._is_aws else "unknown"
        self._checksums: bool | None = True if self._is_aws else None
        self._lock = threading.Lock()
        if self._is_aws:
            _log.info("%s: AWS: conditional put, listing and checksums are honoured", client.meta.endpoint_url)

    @property
    def conditional(self) -> Conditional:
        """What the endpoint does with `If-None-Match: *`; "unknown" before the first write-if-absent."""
        return self._conditional

    def put(self, bucket: str, key: str, body: bytes, digest: bytes, *, if_absent: bool = False) -> Any:
        """Put a whole object in one request; `digest` is the SHA-256 of its bytes."""
        parameters: dict[str, Any] = {
            "Bucket": bucket,
            "Key": key,
            "Body": body,
            "Metadata": {SHA256_METADATA: digest.hex()},
        }
        if if_absent:
            parameters["IfNoneMatch"] = "*"
        if self._checksums is False:
            return self.client.put_object(**parameters)
        try:
            answer = self.client.put_object(**parameters, ChecksumSHA256=base64.b64encode(digest).decode())
        except ClientError as exc:
            if self._checksums or error_code(exc) not in _REFUSALS:
                raise
            answer = self.client.put_object(**parameters)
            self._refuse_checksums(exc)
            return answer
        self._checksums = True
        return answer

    def create_upload(self, bucket: str, key: str) -> tuple[str, bool]:
        """Start a multipart upload: its id, and whether its parts carry a SHA-256."""
        if self._checksums is not False:
            try:
                answer = self.client.create_multipart_upload(Bucket=bucket, Key=key, ChecksumAlgorithm="SHA256")
            except ClientError as exc:
                if self._checksums or error_code(exc) not in _REFUSALS:
                    raise
                self._refuse_checksums(exc)
            else:
                return answer["UploadId"], True
        return self.client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"], False

    def put_if_absent(self, bucket: str, key: str, body: bytes) -> bool:
        """Put a whole object unless one is there; True if it was put, or equal bytes are there by our own retry."""
        digest = hashlib.sha256(body).digest()
        with self._lock:  # of racing threads one finds out, and the others know
            if self._conditional == "unknown":
                return self._probe(bucket, key, body, digest)
        if self._conditional == "honoured":
            return self._put_on_condition(bucket, key, body, digest)
        return self._put_and_settle(bucket, key, body, digest)

    def _put_on_condition(self, bucket: str, key: str, body: bytes, digest: bytes) -> bool:
        num_conflicts = 0
        while True:
            try:
                self.put(bucket, key, body, digest, if_absent=True)
            except ClientError as exc:
                if http_status(exc) == _PRECONDITION_FAILED:
                    repeated = num_conflicts or num_retries(exc.response)
                    return bool(repeated) and self._stored_digest(bucket, key) == digest
                # 409: a put of the same key is under way, and may fail. S3 asks to try again.
                if http_status(exc) != _CONFLICT or num_conflicts == _MAX_CONFLICTS:
                    raise
                time.sleep(_FIRST_WAIT_S * 2**num_conflicts)
                num_conflicts += 1
            else:
                return True

    def _put_and_settle(self, bucket: str, key: str, body: bytes, digest: bytes) -> bool:
        if self._stored_digest(bucket, key) is not None:
            return False
        self.put(bucket, key, body, digest)
        time.sleep(SETTLE_S)
        return self._stored_digest(bucket, key) == digest

    def _probe(self, bucket: str, key: str, body: bytes, digest: bytes) -> bool:
        if self._head(bucket, key) is not None:
            return False  # and nothing is known yet: an endpoint that ignores the condition must not overwrite it
        try:
            if not self._put_on_condition(bucket, key, body, digest):
                self._learn("honoured", bucket, key)
                return False
            self.put(bucket, key, body, digest, if_absent=True)
        except ClientError as exc:
            if http_status(exc) == _PRECONDITION_FAILED:
                self._learn("honoured", bucket, key)
                return True
            if error_code(exc) not in _REFUSALS:
                raise
            is_put = self._put_and_settle(bucket, key, body, digest)
            self._learn("refused", bucket, key)
            return is_put
        self._learn("ignored", bucket, key)
        time.sleep(SETTLE_S)
        return self._stored_digest(bucket, key) == digest

    def _learn(self, conditional: Conditional, bucket: str, key: str) -> None:
        self._conditional = conditional
        listing = self._measure_list_lag(bucket, key)
        fallback = "" if conditional == "honoured" else f" (instead: look, put, wait {SETTLE_S:g} s, look again)"
        _log.info(
            "%s: conditional put %s%s; %s; SHA-256 of puts %s",
            self.client.meta.endpoint_url,
            conditional,
            fallback,
            listing,
            "sent" if self._checksums else "refused",
        )

    def _measure_list_lag(self, bucket: str, key: str) -> str:
        start_s = time.monotonic()
        try:
            while not self._is_listed(bucket, key):
                waited_s = time.monotonic() - start_s
                self.list_lag_s = 2 * waited_s
                if waited_s > _MAX_LIST_LAG_S:
                    return f"a listing did not show a new object for {waited_s:.0f} s: each listing waits twice that"
                time.sleep(_FIRST_WAIT_S)
        except ClientError as exc:  # a role that may not list
            return f"listing not tried ({error_code(exc)})"
        if not self.list_lag_s:
            return "listing shows a new object at once"
        return f"listing lags: each waits {self.list_lag_s:.1f} s"

    def _is_listed(self, bucket: str, key: str) -> bool:
        answer = self.client.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=10)
        return any(item.get("Key") == key for item in answer.get("Contents", []))

    def _head(self, bucket: str, key: str) -> Any:
        try:
            return self.client.head_object(Bucket=bucket, Key=key)
        except ClientError as exc:
            if is_absent(exc):
                return None
            raise

    def _stored_digest(self, bucket: str, key: str) -> bytes | None:
        """SHA-256 of the object that is there: from its metadata, or else of its bytes; None when there is none."""
        head = self._head(bucket, key)
        if head is None:
            return None
        if noted := head.get("Metadata", {}).get(SHA256_METADATA):
            return bytes.fromhex(noted)
        answer = self.client.get_object(Bucket=bucket, Key=key)
        digest = hashlib.sha256()
        for chunk in answer["Body"].iter_chunks(1 << 20):
            digest.update(chunk)
        return digest.digest()

    def _refuse_checksums(self, exc: ClientError) -> None:
        self._checksums = False
        _log.info("%s: refuses checksums (%s): puts go without", self.client.meta.endpoint_url, error_code(exc))
