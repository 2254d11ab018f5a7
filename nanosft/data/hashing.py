"""The SHA-256 of an object, for lineage where no manifest states it."""

import hashlib
from typing import Final

from nanosft.store import Store

_BLOCK_BYTES: Final = 1 << 22


def hash_object(store: Store, key: str) -> str:
    """SHA-256 (hex) of an object's bytes as they are stored.

    Raises:
        MissingObjectError: There is none.
        StoreError: The store fails.
    """
    digest = hashlib.sha256()
    with store.open_read(key) as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
