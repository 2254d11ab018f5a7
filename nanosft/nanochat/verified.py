"""Objects of a base directory, read within a bound and against the SHA-256 that a manifest states. Torch-free."""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import BinaryIO, Final

from nanosft.errors import DataError
from nanosft.store.base import Store

_BLOCK_BYTES: Final = 1 << 22


@contextmanager
def open_verified(store: Store, key: str, sha256: str | None, *, etag: str | None = None) -> Iterator[BinaryIO]:
    """An object as a file that can be sought in; of S3's, a copy in the temporary directory.

    Args:
        store: Where it lies.
        key: Its key.
        sha256: What its bytes must hash to; None: nobody says.
        etag: What a listing told of it, where nobody says.

    Raises:
        DataError: It is not there, or its bytes are others.
    """
    for is_last in (False, True):  # once more: it may have been damaged on its way
        with store.open_read(key, etag=etag) as stream, ExitStack() as stack:
            is_copied = not stream.seekable()
            file = stack.enter_context(tempfile.TemporaryFile()) if is_copied else stream
            digest = hashlib.sha256()
            if is_copied or sha256 is not None:
                while block := stream.read(_BLOCK_BYTES):
                    digest.update(block)
                    if is_copied:
                        file.write(block)
                file.seek(0)
            is_whole = sha256 is None or digest.hexdigest() == sha256
            if not is_whole and not is_last:
                continue
            if sha256 is not None:
                _check(digest.hexdigest(), sha256, store.uri_of(key))
            yield file
            return


def read_verified(store: Store, key: str, sha256: str | None, *, max_bytes: int) -> bytes:
    """A whole object of at most `max_bytes`.

    Raises:
        DataError: It is not there, larger, or its bytes are not those that hash to `sha256`.
    """
    for _ in range(2):  # once more: it may have been damaged on its way
        with store.open_read(key) as stream:
            data = stream.read(max_bytes + 1)
        if sha256 is None or hashlib.sha256(data).hexdigest() == sha256:
            break
    if len(data) > max_bytes:
        raise DataError(f"{store.uri_of(key)}: larger than {max_bytes:,} bytes: not what nanochat writes")
    if sha256 is not None:
        _check(hashlib.sha256(data).hexdigest(), sha256, store.uri_of(key))
    return data


def _check(found: str, expected: str, where: str) -> None:
    if found != expected:
        raise DataError(f"{where}: SHA-256 is {found}, its manifest says {expected}: damaged, copy it anew")
