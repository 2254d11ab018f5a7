"""A run's manifest, from what decides it to its end: chat checkpoints in nanochat's layout, and the manifest last."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from nanosft.data import Origin, OutputPrefix, check_what_is_there, read_manifest
from nanosft.errors import DataError
from nanosft.manifest import Manifest, ManifestObject, sort_objects
from nanosft.nanochat.checkpoint import Checkpoint, check_tokenizer, save_checkpoint
from nanosft.nanochat.layout import find_checkpoint, find_model_origin
from nanosft.nanochat.tensors import read_tensors
from nanosft.settings.train import TrainSettings
from nanosft.store import open_store
from nanosft.store.base import Store
from nanosft.train.data import Data, find_origins
from nanosft.train.metrics import MetricsLog, is_final_metrics
from nanosft.train.optim import HyperParameters
from nanosft.train.progress import Progress, describe_rise
from nanosft.train.state import BEST_PREFIX, TOKENIZER_COUNT

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainSummary:
    """What a run made.

    Attributes:
        out: URI of the run.
        step: Step of the last checkpoint.
        best_step: Step with the lowest validation loss.
        val_loss: Validation loss of the last checkpoint, or None.
        val_bpb: Its bits per byte.
        was_finished: Whether everything was there already.
    """

    out: str
    step: int
    best_step: int
    val_loss: float | None
    val_bpb: float | None
    was_finished: bool = False


def find_content(settings: TrainSettings) -> dict[str, Any]:
    """The settings that decide what comes out, and the URIs in one spelling."""
    uris = {"base": settings.base, "data": settings.data, "val_data": settings.val_data}
    return settings.content() | {name: uri and open_store(uri).uri for name, uri in uris.items()}


def find_finished(settings: TrainSettings, store: Store) -> TrainSummary | None:
    """What the finished run in the store made; None when there is none.

    Raises:
        ConfigError: It was made with other settings.
        DataError: It was made from another base or other data than are there now.
    """
    manifest = OutputPrefix(store, "train", find_content(settings)).find_finished()
    if manifest is None:
        return None

    def find() -> tuple[Origin, ...]:
        base = open_store(settings.base)
        ref = find_checkpoint(base, settings.base_source, settings.base_tag, settings.base_step)
        return (find_model_origin(base, ref), *find_origins(settings.data, settings.val_data))

    check_what_is_there(manifest, find, out=store.uri, error=DataError)
    _log.info("%s is finished: nothing to do", store.uri)
    return _summarize(store, manifest, was_finished=True)


@contextmanager
def writing(store: Store, manifest: Manifest) -> Iterator[TrainSummary | None]:
    """Claim the prefix while the context is open; the run that another process has finished meanwhile, or None.

    Raises:
        ConfigError: A run with other settings or from other inputs is under way there, or has been finished.
    """
    with OutputPrefix(store, "train", manifest.settings).writing(manifest.parents) as finished:
        yield None if finished is None else _summarize(store, finished, was_finished=True)


def describe_run(settings: TrainSettings, store: Store, base: Checkpoint, data: Data) -> Manifest:
    """A state's manifest without its objects and the counts of its step; the model's is made of it too."""
    parents = (find_model_origin(open_store(settings.base), base.ref).to_parent(), *data.cached.parents)
    name = store.uri.rpartition("/")[2]
    counts = {TOKENIZER_COUNT: data.cached.tokenizer_sha256}
    content = find_content(settings)
    return Manifest(kind="state", name=name, objects=(), counts=counts, parents=parents, settings=content)


def finish(
    settings: TrainSettings,
    store: Store,
    base: Checkpoint,
    hyper: HyperParameters,
    data: Data,
    *,
    progress: Progress,
    metrics: MetricsLog,
    manifest: Manifest,
) -> TrainSummary:
    """Write the chat checkpoints, the last metrics and the manifest; then drop what only a resume needs.

    Args:
        settings: What the user asked for.
        store: The run's store.
        base: It holds the weights of the last step; it ends with those of the best.
        hyper: What the checkpoints' meta files say of rows and batches.
        data: What the run was trained on.
        progress: Where the run stands.
        metrics: They are closed.
        manifest: What `describe_run` returned.
    """
    meta = {
        **base.meta,
        "val_bpb": progress.last_bpb,
        "max_seq_len": hyper.row_len,
        "device_batch_size": hyper.device_rows,
        "total_batch_size": hyper.total_batch_size,
        "user_config": settings.model_dump(mode="json"),
    }
    check_tokenizer(base)  # it is copied from there
    written = save_checkpoint(
        settings.out, base.model, meta, tag=base.tag, step=progress.step, tokenizer_from=base.tokenizer_uri
    )
    best_step = progress.best_step if progress.best_loss is not None else progress.step
    best_loss, best_bpb = progress.best_loss, progress.best_bpb
    if progress.best_key and not store.exists(progress.best_key):
        _log.warning("the best model, of step %d, is not there any more: only the last is kept", best_step)
        best_step, best_loss, best_bpb = progress.step, progress.last_loss, progress.last_bpb
    elif progress.best_key:
        base.model.load_state_dict(read_tensors(store, progress.best_key))
        meta["val_bpb"] = progress.best_bpb
        written += save_checkpoint(settings.out, base.model, meta, tag=base.tag, step=progress.best_step)
    metrics.close()
    written.append(metrics.put_final())
    objects = (ManifestObject(key=item.key, size_bytes=item.size_bytes, sha256=item.sha256) for item in written)
    counts = {
        "step": progress.step,
        "best_step": best_step,
        "best_val_loss": best_loss,
        "best_val_bpb": best_bpb,
        "num_supervised": progress.num_supervised,
        "train_s": round(progress.elapsed_s, 3),
        "val_loss": progress.last_loss,
        "val_bpb": progress.last_bpb,
        "conversations": dict(data.train.counts),
    }
    changes = {"kind": "model", "objects": sort_objects(objects), "counts": counts}
    manifest = manifest.model_copy(update=changes)
    OutputPrefix(store, "train", manifest.settings).commit(manifest, is_own=is_final_metrics)
    manifest = read_manifest(store) or manifest  # a twin may have been the first
    for key in (*data.cached.keys, *(info.key for info in store.list(BEST_PREFIX))):
        store.delete(key)
    if best_loss is not None:
        _log.info("finished at step %d, best at step %d (validation loss %.4f)", progress.step, best_step, best_loss)
    if rise := describe_rise(settings, progress):
        _log.warning("%s; chat, eval and serve take the best step that was saved unless told --step last", rise)
    return _summarize(store, manifest)


def _summarize(store: Store, manifest: Manifest, *, was_finished: bool = False) -> TrainSummary:
    counts = manifest.counts
    return TrainSummary(
        store.uri,
        counts["step"],
        counts["best_step"],
        counts["val_loss"],
        counts["val_bpb"],
        was_finished,
    )
