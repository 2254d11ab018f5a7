"""What a run is made from: the settings that decide it, and the hashes that its manifest names as parents."""

from typing import Any

from nanosft.data.conversations import read_manifest
from nanosft.data.hashing import hash_object
from nanosft.manifest import Parent
from nanosft.nanochat.layout import CheckpointRef
from nanosft.settings.train import TrainSettings
from nanosft.store import open_store


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
    return Parent(uri=store.uri_of(ref.model_key), sha256=hash_object(store, ref.model_key))
