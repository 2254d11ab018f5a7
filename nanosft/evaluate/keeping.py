"""An evaluation in the store: what it is made from, its objects and manifest, and the note beside the model."""

import logging
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Self

import orjson

from nanosft.data import (
    DataObject,
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
from nanosft.nanochat.layout import CheckpointRef
from nanosft.settings.evaluate import EvalSettings
from nanosft.store import open_store

_log = logging.getLogger(__name__)


def find_origin(model_uri: str) -> tuple[str | None, tuple[str, ...]]:
    """URIs of the base that a model was finetuned from and of the conversations, by its manifest; None without one."""
    manifest = read_manifest(open_store(model_uri))
    settings = manifest.settings if manifest is not None and manifest.kind == "model" else {}
    base, *data = (uri if isinstance(uri := settings.get(name), str) else None for name in ("base", "data", "val_data"))
    return base, tuple(uri for uri in data if uri)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What was found under the URIs, once: whoever reads it later meets this, or an error.

    Attributes:
        model: The model's files.
        base: The base's; None where there is none.
        data: The objects of each set of conversations, by its URI; only the first rank reads them, and has them.
    """

    model: CheckpointRef
    base: CheckpointRef | None
    data: dict[str, list[DataObject]]

    @classmethod
    def find(cls, settings: EvalSettings, base_uri: str | None, data: tuple[str, ...]) -> Self:
        """Look for all of them.

        Raises:
            DataError: Something is not there, or is unfinished.
        """
        return cls(
            find_checkpoint(open_store(settings.model), settings.source, settings.tag, settings.step),
            find_checkpoint(open_store(base_uri), "base") if base_uri else None,
            {uri: list_data_objects(uri) for uri in data},
        )


def find_origins(
    settings: EvalSettings, base_uri: str | None, inputs: Inputs, knowledge: Knowledge
) -> tuple[Origin, ...]:
    """Model, base, knowledge, training data and tasks, as they are now."""
    origins = [find_model_origin(open_store(settings.model), inputs.model)]
    if base_uri and inputs.base:
        origins.append(find_model_origin(open_store(base_uri), inputs.base))
    origins.append(Origin.known(settings.knowledge or SHIPPED, knowledge.sha256))
    for uri, objects in inputs.data.items():
        origins += find_origins_of_data(uri, objects)
    if settings.tasks_dir:
        items = [item for items in list_task_files(settings.tasks_dir).values() for item in items]
        origins += [Origin.of_objects(item.uri, [item]) for item in items]
    return tuple(origins)


def check_out(settings: EvalSettings, base_uri: str | None, data: tuple[str, ...]) -> None:
    """See that `out` is none of what is read.

    Raises:
        ConfigError: It is the model's, the base's, the data's, the text's or the tasks' own prefix.
    """
    read = (settings.model, base_uri, *data, settings.plain_text, settings.tasks_dir)
    _prefix(settings).check_other(uri for uri in read if uri)


def writing(settings: EvalSettings, parents: tuple[Parent, ...]) -> AbstractContextManager[Manifest | None]:
    """Claim `out` while the context is open, as `OutputPrefix.writing` does.

    Raises:
        ConfigError: Another evaluation is under way there.
    """
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
