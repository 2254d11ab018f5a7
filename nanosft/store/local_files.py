"""Files that a local store writes under temporary names, and the kernel's locks that tell whether their writers live.

A writer holds a lock on its temporary file for as long as it has it. A file without one was left by a writer that is
gone: killed, on this machine or on any other that shares the locks.
"""

import errno
import fcntl
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from nanosft.errors import ConfigError

TEMPORARY: Final = ".nanosft-tmp-"
BUFFER_BYTES: Final = 1 << 18
_MAX_TRIES: Final = 8
_OLD_S: Final = 86400.0
"""Where a file system has no locks, what was not written to for a day has no writer."""


def open_temporary(target: Path, uri: str) -> tuple[Path, BinaryIO]:
    """A new file beside the target, whose directory is made if it is not there; and the lock on it.

    Raises:
        ConfigError: The target is a directory, or a file lies where its directory must be.
        OSError: It cannot be made.
    """
    for num in range(_MAX_TRIES):
        folder = _make_folder(target, uri)
        temporary = folder / f"{TEMPORARY}{secrets.token_hex(8)}"
        try:
            file = temporary.open("xb", buffering=BUFFER_BYTES)
        except FileNotFoundError:  # its folder was just left empty by another process, and is gone
            if num == _MAX_TRIES - 1:
                raise
            continue
        if _lock(file.fileno(), fcntl.LOCK_EX) is not False and os.fstat(file.fileno()).st_nlink:
            return temporary, file
        file.close()  # another process took it for one that was left, before it was locked
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))


def discard_left(folder: Path) -> None:
    """Delete the temporary files under a folder whose writers are gone, and the folders in it that hold nothing."""
    for parent, names, files in os.walk(folder, topdown=False):
        for name in files:
            if name.startswith(TEMPORARY):
                _discard(Path(parent, name))
        for name in names:
            with suppress(OSError):  # where anything is in it
                Path(parent, name).rmdir()


def open_held(path: Path) -> int | None:
    """A descriptor of the file that keeps others from taking it away; None where it is not there any more.

    Raises:
        OSError: It cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    if _lock(descriptor, fcntl.LOCK_SH) is not False and os.fstat(descriptor).st_nlink:
        return descriptor
    os.close(descriptor)
    return None


def delete_unheld(path: Path) -> bool:
    """Delete a file that no process holds; False where one does, or where the file system cannot tell.

    Raises:
        OSError: It cannot be opened or deleted.
    """
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        is_free = _lock(descriptor, fcntl.LOCK_EX)
        if is_free and os.fstat(descriptor).st_nlink:  # else another process was faster
            path.unlink()
        return bool(is_free)
    finally:
        os.close(descriptor)


def sync_directory(folder: Path) -> None:
    """Make the directory's entries survive a power cut; file systems that cannot say so with EINVAL."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, kind: int) -> bool | None:
    """Lock an open file without waiting; False where another has it, None where the file system has no locks."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _discard(path: Path) -> None:
    with suppress(OSError):  # not ours to delete, or gone meanwhile
        if not delete_unheld(path) and time.time() - path.stat().st_mtime > _OLD_S:
            path.unlink()


def _make_folder(target: Path, uri: str) -> Path:
    if target.is_dir():
        raise ConfigError(f"{uri}: is a directory, where a file must be: choose another place")
    missing = []
    folder = target.parent
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as exc:
        raise ConfigError(f"{uri}: {folder} is a file, where a directory must be: choose another place") from exc
    for made in missing:
        sync_directory(made.parent)
    return target.parent
