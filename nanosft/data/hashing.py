"""The SHA-256 of an object where no manifest states it."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from nanosft.data.objects import DataObject

_BLOCK_BYTES: Final = 1 << 22


def hash_object(item: DataObject, *, look: Callable[[], None] = lambda: None) -> str:
    """SHA-256 (hex) of an object's bytes as they are stored.

    Args:
        item: The object.
        look: Called after each block; what it raises ends the reading.

    Raises:
        MissingObjectError: There is none.
        StoreError: The store fails, or the object is another one than was listed.
    """
    digest = hashlib.sha256()
    hash_into(digest, item, look=look)
    return digest.hexdigest()


def hash_into(digest: "hashlib._Hash", item: DataObject, *, look: Callable[[], None] = lambda: None) -> None:
    """Update a digest with an object's bytes as they are stored; raises as `hash_object` does."""
    with item.open() as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
            look()


def pin_objects(objects: Iterable[DataObject], *, look: Callable[[], None] = lambda: None) -> list[DataObject]:
    """The objects with the SHA-256 that their bytes have now, where no manifest states one.

    Whoever reads them afterwards meets these bytes, or a DataError. `look` is as of `hash_object`.
    """
    return [replace(item, sha256=sha256_of(item, look=look)) for item in objects]


def sha256_of(item: DataObject, *, look: Callable[[], None] = lambda: None) -> str:
    """What the manifest states, which readers check, or else the SHA-256 of the bytes that are there now.

    `look` is as of `hash_object`.
    """
    return item.sha256 or hash_object(item, look=look)
