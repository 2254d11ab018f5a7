"""The local directory of one run: locked while it lives, emptied when a killed run left it behind."""

import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nanosft.errors import ConfigError, StoreError
from nanosft.memory import find_free_memory_bytes


@contextmanager
def open_workspace(root: str | None, out: str | None) -> Iterator[Path]:
    """A directory of our own for what is spilled; it is gone afterwards.

    Args:
        root: Where to make it; None is the system's temporary directory.
        out: The output's URI: runs with the same one share a directory, so that the next cleans up after a killed one.

    Raises:
        ConfigError: Another process of this machine writes to the same output, or the directory cannot be used.
        StoreError: The disk fails or is full.
    """
    parent = Path(root or tempfile.gettempdir())
    try:
        parent.mkdir(parents=True, exist_ok=True)
        if not os.access(parent, os.W_OK):
            raise PermissionError(errno.EACCES, "it may not be written to")
    except OSError as exc:
        raise ConfigError(f"{parent}: cannot be the work directory: {exc.strerror}: set --work-dir") from exc
    try:
        if out is None:
            with tempfile.TemporaryDirectory(prefix="nanosft-mix-", dir=parent) as name:
                yield Path(name)
            return
        directory = parent / f"nanosft-mix-{hashlib.sha256(out.encode()).hexdigest()[:16]}"
        with (parent / f"{directory.name}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                raise ConfigError(
                    f"another nanosft mix is writing to {out}: wait for it, or choose another --out"
                ) from exc
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
            try:
                yield directory
            finally:
                shutil.rmtree(directory, ignore_errors=True)
    except OSError as exc:
        raise StoreError(
            f"{parent}: the work directory failed: {exc.strerror or exc}: free disk space, or set --work-dir"
        ) from exc


def find_cacheable_bytes() -> int:
    """Bytes of files that the system may keep in memory: half of what is free, or of the container's limit if less."""
    return find_free_memory_bytes() // 2
