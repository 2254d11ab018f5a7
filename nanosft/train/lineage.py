"""What a run is made from: the settings that decide it, and the hashes that its manifest names as parents."""

import hashlib
from typing import Any, Final

from nanosft.data.conversations import read_manifest
from nanosft.manifest import Parent
from nanosft.nanochat.layout import CheckpointRef
from nanosft.settings.train import TrainSettings
from nanosft.store import open_store
from nanosft.store.base import Store

_BLOCK_BYTES: Final = 1 << 22


def find_content(settings: TrainSettings) -> dict[str, Any]:
    """The settings that decide what comes out, and the URIs in one spelling."""
    uris = {"base": settings.base, "data": settings.data, "val_data": settings.val_data}
    return settings.content() | {name: uri and open_store(uri).uri for name, uri in uris.items()}


def find_base_parent(uri: str, ref: CheckpointRef) -> Parent:
    """The base: its manifest where it has one, else the model file itself."""
    store = open_store(uri)
    manifest = read_manifest(store)
    if manifest is not None:
        return Parent(uri=store.uri, sha256=manifest.sha256)
    return Parent(uri=store.uri_of(ref.model_key), sha256=_hash_object(store, ref.model_key))


def _hash_object(store: Store, key: str) -> str:
    digest = hashlib.sha256()
    with store.open_read(key) as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
