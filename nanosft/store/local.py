"""A store in a local directory (or on a mounted volume).

A write goes to a temporary name beside its target, is synced to disk and then renamed, so a reader or a crash at any
moment meets the old object or the new one. What a killed writer leaves has a name that no listing shows.
"""

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final, cast

from nanosft.store.base import (
    Directory,
    NoConditionalPutError,
    ObjectInfo,
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
from nanosft.store.local_streams import (
    ABSENT,
    LocalReader,
    LocalWriter,
    check_regular,
    check_same,
    etag_of,
    sync_file,
    translated,
)

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
        with translated(self.uri_of(key)):
            check_regular(path, self.uri_of(key))
            return path.read_bytes()

    def read_range(self, key: str, start: int, length: int, *, etag: str | None = None) -> bytes:
        """`length` bytes from offset `start`; fewer where the file ends before."""
        path = self._path(key)
        check_regular(path, self.uri_of(key))
        with translated(self.uri_of(key)), path.open("rb") as file:
            file.seek(start)
            data = file.read(length)
            check_same(file, etag, self.uri_of(key))
            return data

    @contextmanager
    def open_read(self, key: str, *, etag: str | None = None) -> Iterator[BinaryIO]:
        """The file as a stream."""
        with io.BufferedReader(LocalReader(self._path(key), self.uri_of(key), etag), BUFFER_BYTES) as file:
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

    def open_write(self, key: str) -> LocalWriter:
        """Put an object as a stream of unknown length."""
        return LocalWriter(self._path(key), key, self.uri_of(key))

    def write_if_absent(self, key: str, data: bytes) -> bool:
        """Put a whole object unless one is there: a hard link fails when its name is taken, and is whole at once."""
        target, uri = self._path(key), self.uri_of(key)
        with translated(uri):
            temporary, file = open_temporary(target, uri)
            try:
                with file:
                    file.write(data)
                    sync_file(file)
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
        with translated(self.uri_of(prefix)):
            found = [info for info in _walk(self._root / folder, self._root) if info.key.startswith(prefix)]
        yield from sorted(found, key=lambda info: info.key)

    def list_directory(self, prefix: str = "") -> Directory:
        """Objects directly under `prefix/` and the names one level down that hold any."""
        folder = self._root / check_folder(prefix, root=self.uri)
        with translated(self.uri_of(prefix)):
            files, folders = _scan(folder, self._root)
            names = sorted(item.name for item in folders if _may_hold_any(item, self._root))
        return Directory(tuple(sorted(files, key=lambda info: info.key)), tuple(names))

    def stat(self, key: str) -> ObjectInfo | None:
        """The file's size, or None when it is not there."""
        path = self._path(key)
        with translated(self.uri_of(key)):
            try:
                found = path.stat()
            except OSError as exc:
                if exc.errno in ABSENT:
                    return None
                raise
            return ObjectInfo(key, found.st_size, found.st_mtime, etag_of(found)) if path.is_file() else None

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
        with translated(self.uri_of(key)):
            descriptor = open_held(path)
        if descriptor is None:
            yield None
            return
        with io.FileIO(descriptor) as file:
            with translated(self.uri_of(key)):
                data = file.readall()
            yield data

    def delete_unheld(self, key: str) -> bool:
        """Delete the file if no process holds it."""
        path = self._path(key)
        with translated(self.uri_of(key)):
            return delete_unheld(path)

    def delete(self, key: str) -> None:
        """Delete the file, and the folders under the root that it leaves empty; no error when it is not there."""
        path = self._path(key)
        with translated(self.uri_of(key)):
            try:
                path.unlink()
            except OSError as exc:
                if exc.errno not in ABSENT:
                    raise
        with suppress(OSError):  # where anything is in a folder, or someone else was faster
            while (path := path.parent) != self._root:
                path.rmdir()

    def _path(self, key: str) -> Path:
        return self._root / check_key(key, root=self.uri)


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
                files.append(ObjectInfo(key, found.st_size, found.st_mtime, etag_of(found)))
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
