"""`nanosft export`: a model or a data set in the form that others read, checked before its manifest is put.

nanosft export --model s3://bucket/run --to hf --out s3://bucket/run-hf --license mit
nanosft export --data s3://bucket/mixture --to hf --out s3://bucket/mixture-hf
"""

import logging
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from nanosft.data import (
    DataObject,
    Origin,
    OutputPrefix,
    check_same_origins,
    find_origins_of_data,
    list_data_objects,
    pin_objects,
    read_manifest,
)
from nanosft.errors import ConfigError, DataError
from nanosft.export import nanochat
from nanosft.export.card import make_data_card
from nanosft.export.dataset import write_lists, write_parquet
from nanosft.lineage import Ancestor, read_lineage
from nanosft.manifest import Kind, Manifest, ManifestObject
from nanosft.nanochat import find_checkpoint, find_model_origin
from nanosft.progress import make_result_console
from nanosft.settings.export import ExportSettings
from nanosft.signals import raising
from nanosft.store import Store, open_store

CARD_KEY: Final = "README.md"
_log = logging.getLogger(__name__)


def run_export(settings: ExportSettings) -> None:
    """Export, push where that is asked for, and say what came of it.

    Raises:
        ConfigError: `out` is not empty, or holds another export; the Hub refuses.
        DataError: What is exported is missing or damaged, or the export is not what it was made from.
        StoreError: Store or Hub are not reached.
    """
    stdout = make_result_console()
    token = None
    if settings.push:
        from nanosft.export.hub import find_token  # noqa: PLC0415 - its client takes 0.3 s

        token = find_token()
    with raising("the export is not finished: the same command begins anew"):
        manifest = export(settings)
        size_bytes = sum(item.size_bytes for item in manifest.objects)
        stdout.print(
            f"{open_store(settings.out).uri}: {len(manifest.objects)} objects, {size_bytes:,} bytes",
            highlight=False,
            markup=False,
        )
        if settings.push and token:
            url = _push(settings, manifest, token)
            stdout.print(f"pushed to {url}", highlight=False, markup=False)


def export(settings: ExportSettings) -> Manifest:
    """Export, and return the manifest; a finished export of the same things under the same settings is left alone.

    Raises:
        ConfigError: `out` is not empty, or holds another export.
        DataError: What is exported is missing or damaged, or the export is not what it was made from.
    """
    prefix = OutputPrefix(open_store(settings.out), "export", _find_content(settings))
    items = list_data_objects(settings.data) if settings.data else []
    origins = _find_origins(settings, items)
    finished = prefix.find_finished()
    if finished is not None:
        check_same_origins(finished, origins, out=prefix.store.uri)
        _log.info("%s is finished: nothing to do", prefix.store.uri)
        return finished
    prefix.check_apart(uri for uri in (settings.model, settings.data) if uri)
    prefix.check_free(is_own=_is_own)
    items = pin_objects(items)  # what is read from here on is what the parents' hashes tell of
    parents = tuple(origin.to_parent() for origin in _find_origins(settings, items))
    with prefix.writing(parents) as finished:
        if finished is not None:
            return finished
        if settings.data:
            manifest = _export_data(settings, prefix.store, items)
        elif settings.to == "nanochat":
            manifest = _manifest(settings, *nanochat.write(settings, prefix.store))
        else:
            manifest = _export_model(settings, prefix.store)
        manifest = manifest.model_copy(update={"parents": parents})
        prefix.commit(manifest, is_own=_is_own)
    return manifest


def _export_model(settings: ExportSettings, store: Store) -> Manifest:
    from nanosft.export.huggingface import write_folder  # noqa: PLC0415 - transformers takes seconds

    with tempfile.TemporaryDirectory(prefix="nanosft-export-") as folder:
        result = write_folder(settings, Path(folder), lineage=_read_lineage(settings.model))
        paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        written = [store.write_file(path.relative_to(folder).as_posix(), path) for path in paths]
    objects = [ManifestObject(key=item.key, size_bytes=item.size_bytes, sha256=item.sha256) for item in written]
    return _manifest(settings, objects, asdict(result))


def _export_data(settings: ExportSettings, store: Store, items: list[DataObject]) -> Manifest:
    assert settings.data is not None
    counts: dict[str, Any] = {}
    if settings.to == "nanochat":
        objects, num_left_out = write_lists(store, items)
        counts["left_out_with_python_calls"] = num_left_out
        if num_left_out:
            _log.warning(
                "%d conversations call Python, which nanochat's lists have no form for: left out", num_left_out
            )
    else:
        objects = list(write_parquet(store, items))
        rows: dict[str, int] = {}
        for item in objects:
            split = item.key.removeprefix("data/").rpartition("-")[0]
            rows[split] = rows.get(split, 0) + (item.num_rows or 0)
        card = make_data_card(settings, _read_lineage(settings.data), rows)
        written = store.write(CARD_KEY, card.encode())
        objects.append(ManifestObject(key=written.key, size_bytes=written.size_bytes, sha256=written.sha256))
        counts["rows"] = rows
    if not any(item.num_rows for item in objects):
        raise DataError(f"{settings.data}: no conversation to export")
    return _manifest(settings, objects, counts)


def _manifest(settings: ExportSettings, objects: Iterable[ManifestObject], counts: dict[str, Any]) -> Manifest:
    kind: Kind = "exported-data" if settings.data else "exported-model"
    name = settings.title or open_store(settings.model or settings.data or "").uri.rpartition("/")[2]
    return Manifest(kind=kind, name=name, objects=tuple(objects), counts=counts, settings=_find_content(settings))


def _find_content(settings: ExportSettings) -> dict[str, Any]:
    """The settings that decide what comes out, the model's URI in one spelling."""
    return settings.content() | {"model": settings.model and open_store(settings.model).uri}


def _find_origins(settings: ExportSettings, items: list[DataObject]) -> tuple[Origin, ...]:
    if settings.data:
        return find_origins_of_data(settings.data, items)
    assert settings.model is not None
    store = open_store(settings.model)
    return (find_model_origin(store, find_checkpoint(store, settings.source, settings.tag, settings.step)),)


def _read_lineage(uri: str | None) -> Ancestor | None:
    """The lineage of what has a manifest of its own; None for files and bases."""
    assert uri is not None
    try:
        return read_lineage(uri) if read_manifest(open_store(uri)) is not None else None
    except ConfigError:  # a pattern, say, is no prefix
        return None


def _is_own(key: str) -> bool:
    names = {CARD_KEY, "model.safetensors", "train.jsonl", "validation.jsonl", "chat_template.jinja"}
    own_suffixes = (".json", ".py", ".parquet", ".pt", ".pkl")
    return key in names or key.endswith(own_suffixes)


def _push(settings: ExportSettings, manifest: Manifest, token: str) -> str:
    from nanosft.export.hub import push  # noqa: PLC0415 - its client takes 0.3 s

    assert settings.push is not None
    store = open_store(settings.out)
    with tempfile.TemporaryDirectory(prefix="nanosft-push-") as folder:
        files = {item.key: _fetch(store, item.key, Path(folder)) for item in manifest.objects}
        return push(
            settings.push, "dataset" if settings.data else "model", files, token=token, private=settings.private
        )


def _fetch(store: Store, key: str, folder: Path) -> Path:
    path = folder / key
    path.parent.mkdir(parents=True, exist_ok=True)
    with store.open_read(key) as source, path.open("wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
    return path
