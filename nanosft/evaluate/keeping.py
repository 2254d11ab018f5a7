"""An evaluation in the store: what it is made from, its objects and manifest, and the note beside the model."""

import logging
from contextlib import AbstractContextManager

import orjson

from nanosft.data import (
    Origin,
    OutputPrefix,
    check_same_origins,
    find_origins_of_data,
    list_data_objects,
    read_manifest,
)
from nanosft.errors import DataError, NanosftError
from nanosft.evaluate.results import ANSWERS_KEY, DOCUMENTS_KEY, SCORES_KEY, Evaluation, parse_evaluation
from nanosft.evaluate.tasks import list_task_files
from nanosft.knowledge import SHIPPED, Knowledge
from nanosft.manifest import EVALUATION_KEY, Manifest, ManifestObject, Parent
from nanosft.nanochat import find_checkpoint, find_model_origin
from nanosft.settings.evaluate import EvalSettings
from nanosft.store import open_store

_log = logging.getLogger(__name__)


def find_origin(model_uri: str) -> tuple[str | None, tuple[str, ...]]:
    """URIs of the base that a model was finetuned from and of the conversations, by its manifest; None without one."""
    manifest = read_manifest(open_store(model_uri))
    settings = manifest.settings if manifest is not None and manifest.kind == "model" else {}
    base, *data = (uri if isinstance(uri := settings.get(name), str) else None for name in ("base", "data", "val_data"))
    return base, tuple(uri for uri in data if uri)


def find_origins(
    settings: EvalSettings, base_uri: str | None, data: tuple[str, ...], knowledge: Knowledge
) -> tuple[Origin, ...]:
    """Model, base, knowledge, training data and tasks, as they are now."""
    model = open_store(settings.model)
    found = find_checkpoint(model, settings.source, settings.tag, settings.step)
    origins = [find_model_origin(model, found)]
    if base_uri:
        base = open_store(base_uri)
        origins.append(find_model_origin(base, find_checkpoint(base, "base")))
    origins.append(Origin.known(settings.knowledge or SHIPPED, knowledge.sha256))
    for uri in data:
        origins += find_origins_of_data(uri, list_data_objects(uri))
    if settings.tasks_dir:
        items = [item for items in list_task_files(settings.tasks_dir).values() for item in items]
        origins += [Origin.of_objects(item.uri, [item]) for item in items]
    return tuple(origins)


def writing(settings: EvalSettings, parents: tuple[Parent, ...]) -> AbstractContextManager[Manifest | None]:
    """Claim `out` while the context is open, as `OutputPrefix.writing` does.

    Raises:
        ConfigError: It is the model's, the base's or the data's own prefix, or another evaluation is under way there.
    """
    _prefix(settings).check_other([settings.model, *settings.data, *([settings.base] if settings.base else [])])
    return _prefix(settings).writing(parents)


def finish(settings: EvalSettings, found: Evaluation, parents: tuple[Parent, ...]) -> None:
    """Put the objects, the manifest last, and tell the model's prefix where its newest evaluation is."""
    assert settings.out is not None
    store = open_store(settings.out)
    written = [store.write(key, data) for key, data in found.to_objects().items()]
    rows = {ANSWERS_KEY: len(found.answers), DOCUMENTS_KEY: len(found.documents)}
    manifest = Manifest(
        kind="evaluation",
        name=store.uri.rpartition("/")[2],
        objects=tuple(
            ManifestObject(key=item.key, size_bytes=item.size_bytes, sha256=item.sha256, num_rows=rows.get(item.key))
            for item in written
        ),
        counts={name.replace(" ", "_"): number for name, number in found.counts.items()},
        parents=parents,
        settings=settings.content(),
        cost_usd=found.judge.get("cost_usd"),
    )
    _prefix(settings).commit(manifest)
    note = orjson.dumps({"uri": store.uri, "sha256": manifest.sha256}, option=orjson.OPT_APPEND_NEWLINE)
    try:
        open_store(settings.model).write(EVALUATION_KEY, note)
    except (NanosftError, OSError) as exc:
        _log.warning("%s: cannot be told of its evaluation, so `describe` will not show it: %s", settings.model, exc)


def read_finished(settings: EvalSettings, origins: tuple[Origin, ...]) -> Evaluation | None:
    """A finished evaluation of the same models under the same settings; None where `out` has none.

    Raises:
        ConfigError: It holds something else.
    """
    assert settings.out is not None
    manifest = _prefix(settings).find_finished()
    if manifest is None:
        return None
    check_same_origins(manifest, origins, out=settings.out)
    return read_evaluation(settings.out)


def _prefix(settings: EvalSettings) -> OutputPrefix:
    assert settings.out is not None
    return OutputPrefix(open_store(settings.out), "eval", settings.content())


def read_evaluation(uri: str) -> Evaluation:
    """A finished evaluation.

    Raises:
        DataError: There is none.
    """
    store = open_store(uri)
    manifest = read_manifest(store)
    if manifest is None or manifest.kind != "evaluation":
        raise DataError(f"{store.uri}: no evaluation: give what was --out of nanosft eval")
    scores, answers, documents = (store.read(key) for key in (SCORES_KEY, ANSWERS_KEY, DOCUMENTS_KEY))
    return parse_evaluation(scores, answers, documents, where=store.uri)
