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
    hash_into(digest, store, key)
    return digest.hexdigest()


def hash_into(digest: "hashlib._Hash", store: Store, key: str) -> None:
    """Update a digest with an object's bytes as they are stored; raises as `hash_object` does."""
    with store.open_read(key) as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
