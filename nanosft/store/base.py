"""The one protocol of object storage that the rest of nanosft knows.

Keys are relative to a store's root and use `/`. Objects are immutable values: a write is all or nothing, and readers
see either the whole object or none.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from nanosft.errors import ConfigError, DataError

REPLACED: Final = "was replaced while it was being read, or since it was listed: run the same command again"
_CHUNK_BYTES: Final = 1 << 20


class MissingObjectError(DataError):
    """An object is not there."""


class NoConditionalPutError(ConfigError):
    """The endpoint or file system cannot put an object on condition that none is there."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a listing tells of an object; equal where key and size are.

    Attributes:
        key: Relative to the store's root.
        size_bytes: Its size.
        modified_s: When it was put, in seconds since 1970.
        etag: Another one for other bytes, where the store has such; of a local file, its size and time of change.
    """

    key: str
    size_bytes: int
    modified_s: float = field(default=0.0, compare=False)
    etag: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Directory:
    """What lies directly under a prefix.

    Attributes:
        objects: In key order; keys are relative to the store's root, as everywhere.
        names: The names of the prefixes one level down, sorted, without slashes.
    """

    objects: tuple[ObjectInfo, ...]
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Written:
    """What a finished write put: the size and SHA-256 (hex) of the bytes as they were sent."""

    key: str
    size_bytes: int
    sha256: str


class Writer(Protocol):
    """An object being written. Leaving its context normally commits it; leaving on an exception commits nothing."""

    def write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Append bytes; returns their number."""

    @property
    def written(self) -> Written:
        """What was put; only after a normal exit of the context."""


class Store(Protocol):
    """Objects under one root URI.

    Every method raises `StoreError` for what may pass (after the adapter's own retries), `ConfigError` for credentials,
    permissions and endpoints that cannot be right, `MissingObjectError` (a `DataError`) for an object that is not
    there, and `DataError` for one that is not what its checksum says. All name the URI.
    """

    @property
    def uri(self) -> str:
        """The root, without a trailing slash: `s3://bucket/prefix` or `file:///…`."""

    def uri_of(self, key: str) -> str:
        """The URI of one object, for messages and lineage."""

    def read(self, key: str) -> bytes:
        """The whole object."""

    def read_range(self, key: str, start: int, length: int, *, etag: str | None = None) -> bytes:
        """`length` (at least 1) bytes from offset `start`; fewer where the object ends before.

        With the `etag` that a listing has told, of that very object: a StoreError where another is there by now.
        """

    def open_read(self, key: str, *, etag: str | None = None) -> AbstractContextManager[BinaryIO]:
        """The object as a stream of bytes, never whole in memory. A broken connection is resumed by range.

        `etag` is as of `read_range`; that a local file has not been written to meanwhile is seen at its end.
        """

    def write(self, key: str, data: bytes) -> Written:
        """Put a whole object, replacing one that is there."""

    def write_file(self, key: str, path: Path) -> Written:
        """Put a local file, streamed."""

    def open_write(self, key: str) -> AbstractContextManager[Writer]:
        """Put an object as a stream of unknown length (multipart on S3)."""

    def write_if_absent(self, key: str, data: bytes) -> bool:
        """Put a whole object unless one is there; True if it was put, or equal bytes are there by our own retry.

        For objects that two processes may put and that must be the first one's. Objects whose keys are a process's
        own, or whose bytes are the same whoever puts them, need no condition.

        Raises:
            NoConditionalPutError: There is no such put here. What lies under the key now may be `data` or nothing.
        """

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Objects whose key starts with `prefix`, in key order (code points, as S3 sorts)."""

    def list_directory(self, prefix: str = "") -> Directory:
        """Objects directly under `prefix/` and the names one level down; one request on S3, however deep the tree."""

    def stat(self, key: str) -> ObjectInfo | None:
        """The object's size, or None when it is not there."""

    def exists(self, key: str) -> bool:
        """Whether the object is there."""

    def discard_unfinished(self, prefix: str = "") -> None:
        """Delete what killed writers have left of objects under a prefix; where it is local, what others write stays.

        On S3, where nothing tells a writer that is gone from one at work, it is done for objects directly under it
        alone, where no writer is at work now.
        """

    def hold(self, key: str) -> AbstractContextManager[bytes | None]:
        """An object's bytes, held as far as the store can while the context is open; None where it is not there."""

    def delete_unheld(self, key: str) -> bool:
        """Delete an object that no process holds; False where one does, or where the store cannot tell."""

    def delete(self, key: str) -> None:
        """Delete the object; no error when it is not there."""


def check_key(key: str, *, root: str) -> str:
    """The key itself, when it is one that every store can hold and that stays under the root.

    Raises:
        DataError: It is empty, absolute, or has an empty, `.` or `..` segment or a NUL.
    """
    if "\0" in key or any(segment in {"", ".", ".."} for segment in key.split("/")):
        raise DataError(f"{root}: {key!r} is no object key: it needs segments between single slashes, none '.' or '..'")
    return key


def check_folder(folder: str, *, root: str) -> str:
    """The folder that a listing is asked for, without slashes at its ends; empty for the root itself.

    Raises:
        DataError: It leaves the root.
    """
    stripped = folder.strip("/")
    return check_key(stripped, root=root) if stripped else ""


def read_chunks(path: Path) -> Iterator[bytes]:
    """A local file's bytes in chunks of 1 MiB, for an adapter to put.

    Raises:
        DataError: The file is not there or cannot be read.
    """
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk
    except OSError as exc:
        raise DataError(f"{path}: cannot be read: {exc.strerror}") from exc
