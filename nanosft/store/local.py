"""A store in a local directory (or on a mounted volume).

A write goes to a temporary name beside its target, is synced to disk and then renamed, so a reader or a crash at any
moment meets the old object or the new one. What a killed writer leaves has a name that no listing shows.
"""

import errno
import hashlib
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from nanosft.errors import ConfigError, DataError, NanosftError, StoreError
from nanosft.store.base import (
    REPLACED,
    Directory,
    MissingObjectError,
    NoConditionalPutError,
    ObjectInfo,
    Writer,
    Written,
    check_folder,
    check_key,
    read_chunks,
)
from nanosft.store.local_files import (
    BUFFER_BYTES,
    TEMPORARY,
    delete_unheld,
    discard_left,
    open_held,
    open_temporary,
    sync_directory,
)

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_ABSENT: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR})
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_FORBIDDEN: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_WRONG_PATH: Final = frozenset({errno.ENAMETOOLONG, errno.ELOOP})
_NO_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})


class LocalStore:
    """Objects as files under a directory, which is made by the first write."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    @property
    def uri(self) -> str:
        """`file:///…` of the directory."""
        return self._root.as_uri()

    def uri_of(self, key: str) -> str:
        """`file:///…` of the file."""
        return (self._root / key).as_uri()

    def read(self, key: str) -> bytes:
        """The whole file."""
        path = self._path(key)
        with _translated(self.uri_of(key)):
            _check_regular(path, self.uri_of(key))
            return path.read_bytes()

    def read_range(self, key: str, start: int, length: int, *, etag: str | None = None) -> bytes:
        """`length` bytes from offset `start`; fewer where the file ends before."""
        path = self._path(key)
        _check_regular(path, self.uri_of(key))
        with _translated(self.uri_of(key)), path.open("rb") as file:
            file.seek(start)
            data = file.read(length)
            _check_same(file, etag, self.uri_of(key))
            return data

    @contextmanager
    def open_read(self, key: str, *, etag: str | None = None) -> Iterator[BinaryIO]:
        """The file as a stream."""
        with io.BufferedReader(_LocalReader(self._path(key), self.uri_of(key), etag), BUFFER_BYTES) as file:
            yield cast("BinaryIO", file)

    def write(self, key: str, data: bytes) -> Written:
        """Put a whole object, replacing one that is there."""
        with self.open_write(key) as writer:
            writer.write(data)
        return writer.written

    def write_file(self, key: str, path: Path) -> Written:
        """Put a copy of a local file."""
        with self.open_write(key) as writer:
            for chunk in read_chunks(path):
                writer.write(chunk)
        return writer.written

    def open_write(self, key: str) -> "_LocalWriter":
        """Put an object as a stream of unknown length."""
        return _LocalWriter(self._path(key), key, self.uri_of(key))

    def write_if_absent(self, key: str, data: bytes) -> bool:
        """Put a whole object unless one is there: a hard link fails when its name is taken, and is whole at once."""
        target, uri = self._path(key), self.uri_of(key)
        with _translated(uri):
            temporary, file = open_temporary(target, uri)
            try:
                with file:
                    file.write(data)
                    _sync(file)
                    os.link(temporary, target)
            except FileExistsError:
                return False
            except OSError as exc:
                if exc.errno in _NO_LINKS and os.access(target.parent, os.W_OK):
                    raise NoConditionalPutError(
                        f"{uri}: this file system has no hard links, which tell the first of two writers"
                    ) from exc
                raise
            finally:
                with suppress(OSError):
                    temporary.unlink()
            sync_directory(target.parent)
        return True

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Objects whose key starts with `prefix`, in key order."""
        folder = check_folder(prefix.rpartition("/")[0], root=self.uri)
        with _translated(self.uri_of(prefix)):
            found = [info for info in _walk(self._root / folder, self._root) if info.key.startswith(prefix)]
        yield from sorted(found, key=lambda info: info.key)

    def list_directory(self, prefix: str = "") -> Directory:
        """Objects directly under `prefix/` and the names one level down that hold any."""
        folder = self._root / check_folder(prefix, root=self.uri)
        with _translated(self.uri_of(prefix)):
            files, folders = _scan(folder, self._root)
            names = sorted(item.name for item in folders if _may_hold_any(item, self._root))
        return Directory(tuple(sorted(files, key=lambda info: info.key)), tuple(names))

    def stat(self, key: str) -> ObjectInfo | None:
        """The file's size, or None when it is not there."""
        path = self._path(key)
        with _translated(self.uri_of(key)):
            try:
                found = path.stat()
            except OSError as exc:
                if exc.errno in _ABSENT:
                    return None
                raise
            return ObjectInfo(key, found.st_size, found.st_mtime, _etag(found)) if path.is_file() else None

    def exists(self, key: str) -> bool:
        """Whether the file is there."""
        return self.stat(key) is not None

    def discard_unfinished(self, prefix: str = "") -> None:
        """Delete the temporary files of writers that are gone, at any depth, and folders that hold nothing."""
        discard_left(self._root / check_folder(prefix, root=self.uri))

    @contextmanager
    def hold(self, key: str) -> Iterator[bytes | None]:
        """The file's bytes, or None; a lock of the kernel's tells others that a process has it."""
        path = self._path(key)
        with _translated(self.uri_of(key)):
            descriptor = open_held(path)
        if descriptor is None:
            yield None
            return
        with io.FileIO(descriptor) as file:
            with _translated(self.uri_of(key)):
                data = file.readall()
            yield data

    def delete_unheld(self, key: str) -> bool:
        """Delete the file if no process holds it."""
        path = self._path(key)
        with _translated(self.uri_of(key)):
            return delete_unheld(path)

    def delete(self, key: str) -> None:
        """Delete the file, and the folders under the root that it leaves empty; no error when it is not there."""
        path = self._path(key)
        with _translated(self.uri_of(key)):
            try:
                path.unlink()
            except OSError as exc:
                if exc.errno not in _ABSENT:
                    raise
        with suppress(OSError):  # where anything is in a folder, or someone else was faster
            while (path := path.parent) != self._root:
                path.rmdir()

    def _path(self, key: str) -> Path:
        return self._root / check_key(key, root=self.uri)


def _check_regular(path: Path, uri: str) -> None:
    """Refuse what has no end, or waits for a writer for ever.

    Raises:
        DataError: It is a device, a pipe or a socket.
    """
    with _translated(uri):
        mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # a directory has an error of its own
        raise DataError(f"{uri}: is a device, a pipe or a socket: copy what it gives into a file")


def _etag(found: os.stat_result) -> str:
    """What other bytes have another one of: not the inode, which some file systems make up anew each time."""
    return f"{found.st_size:x}-{found.st_mtime_ns:x}"


def _check_same(file: io.FileIO | BinaryIO, etag: str | None, uri: str) -> None:
    """Raise StoreError where the open file is not the one that was listed, or was written to since."""
    if etag is not None and _etag(os.fstat(file.fileno())) != etag:
        raise StoreError(f"{uri}: {REPLACED}")


@contextmanager
def _translated(uri: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise _to_error(exc, uri) from exc


class _LocalReader(io.FileIO):
    """A file whose errors are ours at every read, as those of a network file system come."""

    def __init__(self, path: Path, uri: str, etag: str | None) -> None:
        self._uri, self._etag = uri, etag
        with _translated(uri):
            _check_regular(path, uri)
            super().__init__(path)
        try:
            _check_same(self, etag, uri)
        except StoreError:
            self.close()
            raise

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """See `io.RawIOBase`."""
        with _translated(self._uri):
            num_bytes = super().readinto(buffer)
            if not num_bytes:
                _check_same(self, self._etag, self._uri)
            return num_bytes

    def readall(self) -> bytes:
        """See `io.RawIOBase`."""
        with _translated(self._uri):
            data = super().readall()
            _check_same(self, self._etag, self._uri)
            return data


class _LocalWriter:
    """Bytes on their way into one file."""

    def __init__(self, target: Path, key: str, uri: str) -> None:
        self._target, self._key, self._uri = target, key, uri
        self._hash = hashlib.sha256()
        self._size_bytes = 0
        self._written: Written | None = None

    def __enter__(self) -> Writer:
        with _translated(self._uri):
            self._temporary, self._file = open_temporary(self._target, self._uri)
        return self

    def write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Append bytes; returns their number."""
        with _translated(self._uri):
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
            with _translated(self._uri):
                _sync(self._file)
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


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _scan(folder: Path, root: Path) -> tuple[list[ObjectInfo], list[Path]]:
    """Files and directories right under a folder; none when it is not there."""
    files, folders = [], []
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return [], []
    for entry in entries:
        try:
            is_dir = entry.is_dir()
        except OSError as exc:
            if exc.errno != errno.ELOOP:
                raise
            continue  # a link to itself leads to no object
        if is_dir:
            folders.append(Path(entry.path))
        elif not entry.name.startswith(TEMPORARY):
            with suppress(FileNotFoundError):  # deleted since, or a link to nothing
                found = entry.stat()
                key = Path(entry.path).relative_to(root).as_posix()
                files.append(ObjectInfo(key, found.st_size, found.st_mtime, _etag(found)))
    return files, folders


def _walk(folder: Path, root: Path) -> Iterator[ObjectInfo]:
    waiting = [folder]
    while waiting:
        files, folders = _scan(waiting.pop(), root)
        yield from files
        waiting += folders


def _may_hold_any(folder: Path, root: Path) -> bool:
    """Whether an object lies below a folder; of one that may not be read (`lost+found` of a volume), it may."""
    try:
        return any(_walk(folder, root))
    except PermissionError:
        return True


def _to_error(exc: OSError, uri: str) -> NanosftError:
    reason = exc.strerror or type(exc).__name__
    if exc.errno in _ABSENT:
        return MissingObjectError(f"{uri}: no such object")
    if exc.errno in _FULL:
        return StoreError(f"{uri}: {reason}: free some space and run the same command again")
    if exc.errno in _FORBIDDEN:
        return ConfigError(f"{uri}: {reason}: give user {os.geteuid()} access to it, or choose another place")
    if exc.errno in _WRONG_PATH:
        return ConfigError(f"{uri}: {reason}")
    return StoreError(f"{uri}: {reason}")
