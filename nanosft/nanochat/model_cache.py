"""Models from s3:// kept on this machine's disk, by the hash of what they are.

    <directory>/<hash>/files.json, tokenizer/…, chatsft_checkpoints/<tag>/…      whole: put by one rename
    <directory>/tmp-…                                                            being fetched, or being deleted

The hash is over each file's key and SHA-256 (from the manifest where it names the file, else the ETag and size that the
store tells now), so that a model that was replaced is another one. Bytes are checked against the manifest when they are
fetched, and against the SHA-256 that was noted then whenever they are used.
"""

import errno
import fcntl
import hashlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import orjson

from nanosft.errors import DataError, StoreError
from nanosft.nanochat.layout import Source, find_checkpoint, find_tokenizer
from nanosft.settings.base import Step
from nanosft.store import join_uri, open_store
from nanosft.store.base import Store

_log = logging.getLogger(__name__)
_FILES: Final = "files.json"
_TEMPORARY: Final = "tmp-"
_OLD_S: Final = 86400.0
_CHUNK_BYTES: Final = 1 << 20
_GIB: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class _File:
    """A file of a model, and what tells its bytes: a SHA-256, or where none is known an ETag."""

    key: str
    size_bytes: int
    sha256: str | None
    etag: str | None = None


@contextmanager
def open_cached(
    uri: str, source: Source | None, tag: str | None, step: Step | None, *, directory: Path, limit_bytes: int
) -> Iterator[str]:
    """A URI from which the model can be loaded while the context lasts: its copy on disk, fetched if it is not there.

    Where it cannot be kept, because it is too large or the disk cannot be written, it is the model's own URI.

    Args:
        uri: The model's base directory.
        source: See `load_checkpoint`, as for `tag` and `step`.
        tag: The model's tag.
        step: The checkpoint's step.
        directory: Where models are kept.
        limit_bytes: What is kept has at most this size; the least recently used leave.

    Raises:
        DataError: There is no such model, or its bytes are not what its manifest says.
        StoreError: It was replaced while it was fetched.
    """
    store = open_store(uri)
    files = _find_files(store, source, tag, step)
    size_bytes = sum(file.size_bytes for file in files)
    if size_bytes > limit_bytes:
        _log.warning("cache: %s has %.2f GiB, more than --cache-gib: not kept", store.uri, size_bytes / _GIB)
        yield uri
        return
    target = directory / _hash(store, files)
    lock = None
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = _open_whole(target)
        if lock is not None:
            _log.info("cache hit: %s is %s", store.uri, target)
        else:
            _make_room(directory, limit_bytes - size_bytes)
            _fetch(store, files, target)
            _log.info("cache miss: fetched %s to %s (%.1f MiB)", store.uri, target, size_bytes / (1 << 20))
            lock = _open_whole(target)
    except OSError as exc:
        _log.warning("cache: %s cannot be used (%s): the model is read from %s", directory, exc.strerror, store.uri)
    if lock is None:
        yield uri
        return
    with lock:
        yield str(target)


def _find_files(store: Store, source: Source | None, tag: str | None, step: Step | None) -> list[_File]:
    ref = find_checkpoint(store, source, tag, step)
    files = []
    tokenizer_key = ref.root + find_tokenizer(open_store(join_uri(store.uri, ref.root)))
    for key in (tokenizer_key, ref.meta_key, ref.model_key):
        if named := ref.recorded.get(key):
            files.append(_File(key, named.size_bytes, named.sha256))
            continue
        info = store.stat(key)
        if info is None:
            raise DataError(f"{store.uri_of(key)}: not there: copy nanochat's directory whole")
        files.append(_File(key, info.size_bytes, None, info.etag))
    return files


def _hash(store: Store, files: list[_File]) -> str:
    told = [[file.key, file.sha256 or [store.uri, file.etag], file.size_bytes] for file in files]
    return hashlib.sha256(orjson.dumps(told)).hexdigest()


def _open_whole(model: Path) -> IO[bytes] | None:
    """The model's list of files, locked against deletion, if all of them are there with the bytes they had.

    A model that is damaged is deleted.
    """
    try:
        lock = (model / _FILES).open("rb")
    except FileNotFoundError:
        shutil.rmtree(model, ignore_errors=True)  # a whole one has its list
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        _check(model, lock)
    except (OSError, DataError) as exc:
        _log.warning("cache: %s: fetched anew", exc)
        lock.close()
        _delete(model)
        return None
    with suppress(OSError):  # a cache that is not ours to write is as good
        os.utime(model / _FILES)
    return lock


def _check(model: Path, listed: IO[bytes]) -> None:
    """Compare a model's files with the SHA-256 that each had when it was fetched.

    Raises:
        DataError: One is another, or the list is none.
        OSError: One is not there.
    """
    try:
        hashes: dict[str, str] = orjson.loads(listed.read())["sha256"]
        listed_files = hashes.items()
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as exc:
        raise DataError(f"{model / _FILES}: not a list of files") from exc
    for key, sha256 in listed_files:
        with (model / key).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise DataError(f"{model / key}: damaged")


def _fetch(store: Store, files: list[_File], target: Path) -> None:
    temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=target.parent))
    try:
        hashes = {file.key: _fetch_file(store, file, temporary / file.key) for file in files}
        (temporary / _FILES).write_bytes(orjson.dumps({"uri": store.uri, "sha256": hashes}))
        try:
            temporary.rename(target)
        except OSError as exc:
            if exc.errno not in {errno.EEXIST, errno.ENOTEMPTY}:  # else another process has put it
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _fetch_file(store: Store, file: _File, path: Path) -> str:
    """Copy one file; its SHA-256.

    Raises:
        DataError: It is not what the manifest says.
        StoreError: It was replaced meanwhile.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with store.open_read(file.key) as source, path.open("xb") as copy:
        while chunk := source.read(_CHUNK_BYTES):
            digest.update(chunk)
            copy.write(chunk)
    found = digest.hexdigest()
    where = store.uri_of(file.key)
    if file.sha256 is not None and found != file.sha256:
        raise DataError(f"{where}: SHA-256 is {found}, the manifest has {file.sha256}: the object is damaged")
    if file.sha256 is None:
        info = store.stat(file.key)
        if info is None or info.etag != file.etag or path.stat().st_size != file.size_bytes:
            raise StoreError(f"{where}: replaced while it was being read: run the same command again")
    return found


def _make_room(directory: Path, limit_bytes: int) -> None:
    """Delete the least recently used models until the rest fits, and what killed processes have left."""
    kept: list[tuple[float, int, Path]] = []
    for path in directory.iterdir():
        with suppress(FileNotFoundError):
            if path.name.startswith(_TEMPORARY):
                if time.time() - path.stat().st_mtime > _OLD_S:
                    shutil.rmtree(path, ignore_errors=True)
            elif (path / _FILES).is_file():
                size_bytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
                kept.append(((path / _FILES).stat().st_mtime, size_bytes, path))
    total = sum(size_bytes for _, size_bytes, _ in kept)
    for _, size_bytes, path in sorted(kept):
        if total <= limit_bytes:
            return
        if _delete(path):
            _log.info("cache: %s leaves, it was not used for longest", path)
            total -= size_bytes


def _delete(model: Path) -> bool:
    """Delete a model that nobody loads at the moment: first its name, so that no half of it is found."""
    with suppress(OSError), (model / _FILES).open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        aside = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=model.parent))
        model.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)
        return True
    return False
