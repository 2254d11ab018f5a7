"""Local stores whose every call counts, and may be spoiled."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nanosft.errors import StoreError
from nanosft.store import local, local_files, local_streams
from nanosft.store.base import Directory
from tests.chaos.clock import jumping_time, simulated_time
from tests.chaos.faults import current


@contextmanager
def simulated_stores(*, sleeps: bool = False) -> Iterator[None]:
    """Every local store counts its calls, clocks may jump, and no one sleeps unless they are to."""
    fsync, unlink = os.fsync, Path.unlink

    def sync(descriptor: int) -> None:
        if current().suffers("disk full"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if sleeps:  # of a real process; where one is simulated, the machine itself goes on
            fsync(descriptor)

    def remove(path: Path, *, missing_ok: bool = False) -> None:
        if current().suffers("read-only"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        unlink(path, missing_ok=missing_ok)

    with jumping_time() if sleeps else simulated_time(), pytest.MonkeyPatch.context() as patch:
        for name in ("read", "read_range", "write_if_absent", "discard_unfinished", "delete", "delete_unheld", "stat"):
            patch.setattr(local.LocalStore, name, _counted(name, getattr(local.LocalStore, name)))
        patch.setattr(local.LocalStore, "list", _list(local.LocalStore.list))
        patch.setattr(local.LocalStore, "list_directory", _list_directory(local.LocalStore.list_directory))
        for name in ("open_read", "hold"):
            patch.setattr(local.LocalStore, name, _opened(name, getattr(local.LocalStore, name)))
        patch.setattr(local_streams.LocalWriter, "__enter__", _enter(local_streams.LocalWriter.__enter__))
        patch.setattr(local_streams.LocalWriter, "__exit__", _exit(local_streams.LocalWriter.__exit__))
        for module in (local, local_streams):
            patch.setattr(module, "open_temporary", _open_temporary(local_files.open_temporary))
        patch.setattr(os, "fsync", sync)
        patch.setattr(Path, "unlink", remove)
        yield


def _spoil(call: str, *, is_done: bool) -> None:
    """What comes of a call after or before which something happens."""
    raise StoreError(f"{call}: made to fail {'after' if is_done else 'before'} it took place")


def _around(call: str, do: Callable[[], Any], *, stale: Callable[[Any], Any] = lambda answer: answer) -> Any:
    process = current()
    kind = process.take(call)
    if kind in ("fails", "stays away"):
        _spoil(call, is_done=False)
    answer = do()
    if kind == "kill after":
        process.die()
    if kind == "fails after":
        _spoil(call, is_done=True)
    return stale(answer) if kind == "stale listing" else answer


def _counted(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: Any, key: str = "", *arguments: Any, **how: Any) -> Any:
        answer = _around(f"{name} {key}", lambda: method(self, key, *arguments, **how))
        if name == "write_if_absent" and answer:
            current().last_put = self._root / key
        return answer

    return call


def _list(method: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: Any, prefix: str = "") -> Iterator[Any]:
        def make_stale(found: Any) -> Any:
            return _without_last(self._root, found)

        return iter(_around(f"list {prefix}", lambda: list(method(self, prefix)), stale=make_stale))

    return call


def _list_directory(method: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: Any, prefix: str = "") -> Any:
        def make_stale(found: Any) -> Any:
            return Directory(tuple(_without_last(self._root, found.objects)), found.names)

        return _around(f"list_directory {prefix}", lambda: method(self, prefix), stale=make_stale)

    return call


def _without_last(root: Path, found: Any) -> list[Any]:
    """A listing that lags behind by one object."""
    return [info for info in found if root / info.key != current().last_put]


def _enter(method: Callable[..., Any]) -> Callable[..., Any]:
    def enter(self: Any) -> Any:
        return _around(f"open {self._key}", lambda: method(self))

    return enter


def _open_temporary(method: Callable[..., Any]) -> Callable[..., Any]:
    def make(target: Path, uri: str) -> Any:
        if current().suffers("read-only"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return method(target, uri)

    return make


def _opened(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @contextmanager
    def open_read(self: Any, key: str, **how: Any) -> Iterator[Any]:
        _around(f"{name} {key}", lambda: None)
        with method(self, key, **how) as stream:
            yield stream

    return open_read


def _exit(method: Callable[..., None]) -> Callable[..., None]:
    def leave(self: Any, kind: Any, value: Any, at: Any) -> None:
        if current().is_dead:  # nothing is cleaned up by a dead process: the temporary file stays
            self._file.close()
            return
        if kind is not None:
            method(self, kind, value, at)
            return
        try:
            _around(f"commit {self._key}", lambda: method(self, None, None, None))
        except StoreError:
            self._discard()
            raise
        current().last_put = self._target

    return leave
