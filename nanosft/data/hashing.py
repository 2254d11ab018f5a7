"""Lineage: the SHA-256 of an object where no manifest states it, and what a child of some data names as its parents."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final

from nanosft.data.objects import DataObject
from nanosft.data.prefix import read_manifest
from nanosft.manifest import Parent
from nanosft.store import Store, open_store

_BLOCK_BYTES: Final = 1 << 22


def hash_object(store: Store, key: str, *, look: Callable[[], None] = lambda: None) -> str:
    """SHA-256 (hex) of an object's bytes as they are stored.

    Args:
        store: Where it lies.
        key: Its key.
        look: Called after each block; what it raises ends the reading.

    Raises:
        MissingObjectError: There is none.
        StoreError: The store fails.
    """
    digest = hashlib.sha256()
    hash_into(digest, store, key, look=look)
    return digest.hexdigest()


def hash_into(digest: "hashlib._Hash", store: Store, key: str, *, look: Callable[[], None] = lambda: None) -> None:
    """Update a digest with an object's bytes as they are stored; raises as `hash_object` does."""
    with store.open_read(key) as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
            look()


def pin_objects(objects: Iterable[DataObject], *, look: Callable[[], None] = lambda: None) -> list[DataObject]:
    """The objects with the SHA-256 that their bytes have now, where no manifest states one.

    Whoever reads them afterwards meets these bytes, or a DataError. `look` is as of `hash_object`.
    """
    return [replace(item, sha256=item.sha256 or hash_object(item.store, item.key, look=look)) for item in objects]


def sha256_of(item: DataObject) -> str:
    """What the manifest states, which readers check, or else the SHA-256 of the bytes that are there now."""
    return item.sha256 or hash_object(item.store, item.key)


def find_parents_of_data(uri: str, objects: Sequence[DataObject]) -> tuple[Parent, ...]:
    """The manifest that a URI of data was found by, or each of its objects by its SHA-256.

    Args:
        uri: The URI, as parents name it.
        objects: What it means, at least one (`list_data_objects`).
    """
    if objects[0].sha256 is not None and (manifest := read_manifest(open_store(uri))) is not None:
        return (Parent(uri=uri, sha256=manifest.sha256),)
    return tuple(Parent(uri=item.uri, sha256=sha256_of(item)) for item in objects)
