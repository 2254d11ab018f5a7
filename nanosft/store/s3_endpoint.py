"""One S3 endpoint: its client, and puts that rest on what it does.

Not everything that speaks S3 does all of S3:

- **Checksums.** A SHA-256 goes with every put; where it is refused, puts go without. Reads check the SHA-256 that lies
  in the object's metadata, which every endpoint keeps.
- **Conditional put** (`If-None-Match: *`). AWS, MinIO, SeaweedFS and moto honour it; some gateways ignore it silently,
  others refuse it. The first write-if-absent of a process tells: it puts its object and puts it again under the same
  condition, which only an endpoint that honours it answers with 412. Elsewhere a write-if-absent is an error: nothing
  stands in for it, and its callers do without or refuse (`Store.write_if_absent`).

What an endpoint lacks is logged once, after it has answered a request that was signed. AWS itself is known and not
asked. A listing must show an object from the answer to its put on, as AWS's does.
"""

import base64
import hashlib
import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from nanosft.errors import ConfigError
from nanosft.store.base import NoConditionalPutError
from nanosft.store.s3_client import error_code, http_status, is_absent, make_client, num_retries, one_line
from nanosft.store.s3_read import SHA256_METADATA

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_log = logging.getLogger("nanosft.store")

_MAX_CONFLICTS: Final = 6
_FIRST_WAIT_S: Final = 0.1
_REFUSALS: Final = frozenset({"NotImplemented", "InvalidArgument", "InvalidRequest", "MethodNotAllowed", "501"})
_PRECONDITION_FAILED: Final = 412
_CONFLICT: Final = 409

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
        host = urlsplit(client.meta.endpoint_url).hostname or ""
        is_aws = host.endswith((".amazonaws.com", ".amazonaws.com.cn"))
        self._has_conditions: bool | None = True if is_aws else None
        self._has_checksums: bool | None = True if is_aws else None
        self._lock = threading.Lock()

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
        if self._has_checksums is False:
            return self.client.put_object(**parameters)
        try:
            answer = self.client.put_object(**parameters, ChecksumSHA256=base64.b64encode(digest).decode())
        except ClientError as exc:
            if self._has_checksums or error_code(exc) not in _REFUSALS:
                raise
            answer = self.client.put_object(**parameters)
            self._refuse_checksums(exc)
            return answer
        self._has_checksums = True
        return answer

    def create_upload(self, bucket: str, key: str) -> tuple[str, bool]:
        """Start a multipart upload: its id, and whether its parts carry a SHA-256."""
        refusal = None
        if self._has_checksums is not False:
            try:
                answer = self.client.create_multipart_upload(Bucket=bucket, Key=key, ChecksumAlgorithm="SHA256")
            except ClientError as exc:
                if self._has_checksums or error_code(exc) not in _REFUSALS:
                    raise
                refusal = exc
            else:
                return answer["UploadId"], True
        answer = self.client.create_multipart_upload(Bucket=bucket, Key=key)
        if refusal is not None:
            self._refuse_checksums(refusal)
        return answer["UploadId"], False

    def put_if_absent(self, bucket: str, key: str, body: bytes) -> bool:
        """Put a whole object unless one is there; True if it was put, or equal bytes are there by our own retry.

        Raises:
            NoConditionalPutError: The endpoint does not honour the condition.
        """
        digest = hashlib.sha256(body).digest()
        with self._lock:  # of racing threads one finds out, and the others know
            if self._has_conditions is None:
                return self._put_and_find_out(bucket, key, body, digest)
        if not self._has_conditions:
            raise _no_conditional_put(bucket, key)
        return self._put_on_condition(bucket, key, body, digest)

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

    def _put_and_find_out(self, bucket: str, key: str, body: bytes, digest: bytes) -> bool:
        if self._stored_digest(bucket, key) is not None:
            return False  # and nothing is known yet: an endpoint that ignores the condition would replace it
        try:
            if self._put_on_condition(bucket, key, body, digest):
                self.put(bucket, key, body, digest, if_absent=True)
                self._has_conditions = False
        except ClientError as exc:
            if http_status(exc) == _PRECONDITION_FAILED:
                self._has_conditions = True
                return True
            if error_code(exc) not in _REFUSALS:
                raise
            self._has_conditions = False
        if self._has_conditions is False:
            _log.warning(
                "%s: does not honour If-None-Match: of two writers of one object the last one wins, and a budget is "
                "refused",
                self.client.meta.endpoint_url,
            )
            raise _no_conditional_put(bucket, key)
        self._has_conditions = True  # it has just refused to replace another writer's object
        return False

    def _stored_digest(self, bucket: str, key: str) -> bytes | None:
        """SHA-256 of the object that is there: from its metadata, or else of its bytes; None when there is none."""
        try:
            head = self.client.head_object(Bucket=bucket, Key=key)
        except ClientError as exc:
            if is_absent(exc):
                return None
            raise
        if noted := head.get("Metadata", {}).get(SHA256_METADATA):
            return bytes.fromhex(noted)
        answer = self.client.get_object(Bucket=bucket, Key=key)
        digest = hashlib.sha256()
        for chunk in answer["Body"].iter_chunks(1 << 20):
            digest.update(chunk)
        return digest.digest()

    def _refuse_checksums(self, exc: ClientError) -> None:
        self._has_checksums = False
        _log.info("%s: refuses checksums (%s): puts go without", self.client.meta.endpoint_url, error_code(exc))


def _no_conditional_put(bucket: str, key: str) -> NoConditionalPutError:
    return NoConditionalPutError(
        f"s3://{bucket}/{key}: the endpoint does not honour If-None-Match, which tells the first of two writers"
    )
