"""A store in an S3 bucket, of AWS or of anything that speaks S3 (MinIO, SeaweedFS, R2, Ceph …)."""

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from botocore.exceptions import ClientError

from nanosft.errors import NanosftError
from nanosft.store.base import Directory, MissingObjectError, ObjectInfo, Written, check_folder, check_key, read_chunks
from nanosft.store.s3_client import is_absent, translated
from nanosft.store.s3_endpoint import Endpoint, open_endpoint
from nanosft.store.s3_read import DamagedOnTheWayError, ObjectReader
from nanosft.store.s3_write import PART_BYTES, ObjectWriter

_CHUNK_BYTES: Final = 1 << 20
_log = logging.getLogger("nanosft.store")


class S3Store:
    """Objects under `s3://bucket/prefix`. The client is made by the first request.

    Args:
        bucket: The bucket's name.
        prefix: Without slashes at its ends; empty for the whole bucket.
    """

    def __init__(self, bucket: str, prefix: str) -> None:
        self._bucket = bucket
        self._root = f"{prefix}/" if prefix else ""
        self._endpoint: Endpoint | None = None
        self._pid = 0

    @property
    def uri(self) -> str:
        """`s3://bucket/prefix`."""
        return f"s3://{self._bucket}/{self._root}".rstrip("/")

    def uri_of(self, key: str) -> str:
        """`s3://bucket/prefix/key`."""
        return f"{self.uri}/{key}"

    def read(self, key: str) -> bytes:
        """The whole object, checked against the SHA-256 in its metadata; one request, more where it arrives damaged."""
        for is_last in (False, False, True):
            try:
                with self._reader(key) as reader:
                    return _read_all(reader)
            except DamagedOnTheWayError:
                if is_last:
                    raise
        raise AssertionError

    def read_range(self, key: str, start: int, length: int, *, etag: str | None = None) -> bytes:
        """`length` bytes from offset `start`; fewer where the object ends before. One request."""
        with self._reader(key, start=start, length=length, etag=etag) as reader:
            return _read_all(reader)

    @contextmanager
    def open_read(self, key: str, *, etag: str | None = None) -> Iterator[BinaryIO]:
        """The object as a stream; one request, and one more each time that a connection breaks."""
        with self._reader(key, etag=etag) as reader:
            yield cast("BinaryIO", BufferedReader(reader, _CHUNK_BYTES))

    def write(self, key: str, data: bytes) -> Written:
        """Put a whole object, replacing one that is there; one request up to 8 MiB."""
        if len(data) > PART_BYTES:
            with self.open_write(key) as writer:
                writer.write(data)
            return writer.written
        digest = hashlib.sha256(data).digest()
        with translated(self.uri_of(key)):
            self._open().put(self._bucket, self._full(key), data, digest)
        return Written(key, len(data), digest.hex())

    def write_file(self, key: str, path: Path) -> Written:
        """Put a local file, streamed."""
        with self.open_write(key) as writer:
            for chunk in read_chunks(path):
                writer.write(chunk)
        return writer.written

    def open_write(self, key: str) -> ObjectWriter:
        """Put an object as a stream of unknown length, in about 50 MiB of memory."""
        full_key = self._full(key)
        return ObjectWriter(self._open(), self._bucket, full_key, key=key, uri=self.uri_of(key))

    def write_if_absent(self, key: str, data: bytes) -> bool:
        """Put a whole object unless one is there; an error where the endpoint has no conditional put."""
        with translated(self.uri_of(key)):
            return self._open().put_if_absent(self._bucket, self._full(key), data)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Objects whose key starts with `prefix`, in key order; one request for each 1,000."""
        check_folder(prefix.rpartition("/")[0], root=self.uri)
        infos: list[ObjectInfo] = []
        for page in self._pages(prefix):
            infos += _infos(page, self._root)
        # Not every endpoint sorts as S3 does: SeaweedFS has a/b before a-b.
        yield from sorted(infos, key=lambda info: info.key)

    def list_directory(self, prefix: str = "") -> Directory:
        """Objects directly under `prefix/` and the names one level down."""
        folder = check_folder(prefix, root=self.uri)
        infos: list[ObjectInfo] = []
        names: set[str] = set()
        for page in self._pages(f"{folder}/" if folder else "", Delimiter="/"):
            infos += _infos(page, self._root)
            names |= {item["Prefix"].rstrip("/").rpartition("/")[2] for item in page.get("CommonPrefixes", [])}
        return Directory(tuple(sorted(infos, key=lambda info: info.key)), tuple(sorted(names)))

    def stat(self, key: str) -> ObjectInfo | None:
        """The object's size, or None when it is not there; one request."""
        full_key = self._full(key)
        with translated(self.uri_of(key)):
            try:
                answer = self._open().client.head_object(Bucket=self._bucket, Key=full_key)
            except ClientError as exc:
                if is_absent(exc):
                    return None
                raise
        return ObjectInfo(key, answer["ContentLength"], answer["LastModified"].timestamp(), answer.get("ETag"))

    def exists(self, key: str) -> bool:
        """Whether the object is there; one request."""
        return self.stat(key) is not None

    def discard_unfinished(self, prefix: str = "") -> None:
        """Abort the multipart uploads of writers that are gone, as far as the endpoint lists them and lets us.

        What it does not, a lifecycle rule removes: no run fails for it. One request for each upload and each 1,000.
        """
        folder = check_folder(prefix, root=self.uri)
        full_prefix = f"{self._root}{folder}/" if folder else self._root
        client = self._open().client
        try:
            with translated(self.uri_of(prefix)):
                pages = client.get_paginator("list_multipart_uploads").paginate(Bucket=self._bucket, Prefix=full_prefix)
                for upload in [upload for page in pages for upload in page.get("Uploads", [])]:
                    if "/" not in upload["Key"].removeprefix(full_prefix):
                        client.abort_multipart_upload(
                            Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                        )
        except NanosftError as exc:
            _log.warning("%s: unfinished uploads were not all looked for: %s", self.uri_of(prefix), exc)

    @contextmanager
    def hold(self, key: str) -> Iterator[bytes | None]:
        """The object's bytes, or None; nothing holds an object on S3. One request."""
        try:
            data = self.read(key)
        except MissingObjectError:
            yield None
            return
        yield data

    def delete_unheld(self, key: str) -> bool:  # noqa: ARG002 - S3 has no locks
        """Nothing tells whether a process that put an object is gone."""
        return False

    def delete(self, key: str) -> None:
        """Delete the object; no error when it is not there. One request."""
        full_key = self._full(key)
        with translated(self.uri_of(key)):
            self._open().client.delete_object(Bucket=self._bucket, Key=full_key)

    def _open(self) -> Endpoint:
        if self._endpoint is None or self._pid != os.getpid():
            self._endpoint, self._pid = open_endpoint(), os.getpid()
        return self._endpoint

    def _full(self, key: str) -> str:
        return self._root + check_key(key, root=self.uri)

    def _reader(self, key: str, *, start: int = 0, length: int | None = None, etag: str | None = None) -> ObjectReader:
        full_key = self._full(key)
        client = self._open().client
        return ObjectReader(
            client, self._bucket, full_key, uri=self.uri_of(key), start=start, length=length, etag=etag or ""
        )

    def _pages(self, prefix: str, **extra: Any) -> Iterator[Any]:
        paginator = self._open().client.get_paginator("list_objects_v2")
        with translated(self.uri_of(prefix)):
            yield from paginator.paginate(Bucket=self._bucket, Prefix=self._root + prefix, **extra)


def _infos(page: Any, root: str) -> list[ObjectInfo]:
    # Consoles mark an empty folder by an object whose key ends in a slash.
    return [
        ObjectInfo(item["Key"].removeprefix(root), item["Size"], item["LastModified"].timestamp(), item.get("ETag"))
        for item in page.get("Contents", [])
        if not item["Key"].endswith("/")
    ]


def _read_all(reader: ObjectReader) -> bytes:
    chunks = []
    while chunk := reader.read_chunk(_CHUNK_BYTES):
        chunks.append(chunk)
    return b"".join(chunks)
