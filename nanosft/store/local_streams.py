"""A local file on its way in or out, with the errors of every store in place of the system's."""

import errno
import hashlib
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Final

from nanosft.errors import ConfigError, DataError, NanosftError, StoreError
from nanosft.store.base import REPLACED, MissingObjectError, Writer, Written
from nanosft.store.local_files import open_temporary, sync_directory

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

ABSENT: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR})
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_FORBIDDEN: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_WRONG_PATH: Final = frozenset({errno.ENAMETOOLONG, errno.ELOOP})


def check_regular(path: Path, uri: str) -> None:
    """Refuse what has no end, or waits for a writer for ever.

    Raises:
        DataError: It is a device, a pipe or a socket.
    """
    with translated(uri):
        mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # a directory has an error of its own
        raise DataError(f"{uri}: is a device, a pipe or a socket: copy what it gives into a file")


def etag_of(found: os.stat_result) -> str:
    """What other bytes have another one of: not the inode, which some file systems make up anew each time."""
    return f"{found.st_size:x}-{found.st_mtime_ns:x}"


def check_same(file: io.FileIO | BinaryIO, etag: str | None, uri: str) -> None:
    """Raise StoreError where the open file is not the one that was listed, or was written to since."""
    if etag is not None and etag_of(os.fstat(file.fileno())) != etag:
        raise StoreError(f"{uri}: {REPLACED}")


@contextmanager
def translated(uri: str) -> Iterator[None]:
    """Whatever the system refuses in the block is an error of the store, with the object's URI."""
    try:
        yield
    except OSError as exc:
        raise to_error(exc, uri) from exc


class LocalReader(io.FileIO):
    """A file whose errors are ours at every read, as those of a network file system come."""

    def __init__(self, path: Path, uri: str, etag: str | None) -> None:
        self._uri, self._etag = uri, etag
        with translated(uri):
            check_regular(path, uri)
            super().__init__(path)
        try:
            check_same(self, etag, uri)
        except StoreError:
            self.close()
            raise

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """See `io.RawIOBase`."""
        with translated(self._uri):
            num_bytes = super().readinto(buffer)
            if not num_bytes:
                check_same(self, self._etag, self._uri)
            return num_bytes

    def readall(self) -> bytes:
        """See `io.RawIOBase`."""
        with translated(self._uri):
            data = super().readall()
            check_same(self, self._etag, self._uri)
            return data


class LocalWriter:
    """Bytes on their way into one file."""

    def __init__(self, target: Path, key: str, uri: str) -> None:
        self._target, self._key, self._uri = target, key, uri
        self._hash = hashlib.sha256()
        self._size_bytes = 0
        self._written: Written | None = None

    def __enter__(self) -> Writer:
        with translated(self._uri):
            self._temporary, self._file = open_temporary(self._target, self._uri)
        return self

    def write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Append bytes; returns their number."""
        with translated(self._uri):
            self._file.write(data)
        self._hash.update(data)
        size_bytes = memoryview(data).nbytes
        self._size_bytes += size_bytes
        return size_bytes

    @property
    def written(self) -> Written:
        """What was put; only after a normal exit of the context."""
        assert self._written is not None, "nothing is put before the context ends normally"
        return self._written

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            self._discard()
            return
        try:
            with translated(self._uri):
                sync_file(self._file)
                self._temporary.replace(self._target)
                self._file.close()
                sync_directory(self._target.parent)
        except NanosftError:
            self._discard()
            raise
        self._written = Written(self._key, self._size_bytes, self._hash.hexdigest())

    def _discard(self) -> None:
        with suppress(OSError):  # closing flushes, which fails again on a full disk
            self._file.close()
        with suppress(OSError):
            self._temporary.unlink()


def sync_file(file: BinaryIO) -> None:
    """Have all bytes on the disk."""
    file.flush()
    os.fsync(file.fileno())


def to_error(exc: OSError, uri: str) -> NanosftError:
    """What the user is told instead, and what to do about it."""
    reason = exc.strerror or type(exc).__name__
    if exc.errno in ABSENT:
        return MissingObjectError(f"{uri}: no such object")
    if exc.errno in _FULL:
        return StoreError(f"{uri}: {reason}: free some space and run the same command again")
    if exc.errno in _FORBIDDEN:
        return ConfigError(f"{uri}: {reason}: give user {os.geteuid()} access to it, or choose another place")
    if exc.errno in _WRONG_PATH:
        return ConfigError(f"{uri}: {reason}")
    return StoreError(f"{uri}: {reason}")
