"""`nanosft train`: from a base and conversations to a chat checkpoint in nanochat's layout.

    nanosft train --base s3://bucket/base --data s3://bucket/mix --out s3://bucket/run
    torchrun --standalone --nproc_per_node=8 -m nanosft train …        # the same, on 8 GPUs
    nanosft launch --nproc-per-node 8 train …                          # the same, with nanosft's exit codes

Started again, the same command goes on from the newest state in `--out`; where the run is finished, it exits at once.
"""

import io
import logging
import pickle
import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from nanosft.dataset import put_manifest, read_manifest
from nanosft.errors import DataError, Interrupted
from nanosft.manifest import MANIFEST_KEY, Manifest, ManifestObject, check_same_settings, sort_objects
from nanosft.nanochat.checkpoint import (
    Checkpoint,
    load_checkpoint,
    read_optimizer_states,
    read_tensors,
    save_checkpoint,
)
from nanosft.nanochat.generations import estimate_flops_per_token
from nanosft.nanochat.layout import TOKEN_BYTES_KEY, TOKENIZER_KEY
from nanosft.settings.train import TrainSettings
from nanosft.store import open_store
from nanosft.store.base import Store
from nanosft.train.batch import MicroBatch, build_micro_batch
from nanosft.train.data import Data, load_data
from nanosft.train.distributed import World, catch_signals, choose_dtype, open_world
from nanosft.train.evaluate import ValidationSet
from nanosft.train.hyper import Hyper, inherit
from nanosft.train.lineage import find_base_parent
from nanosft.train.loop import Run, train
from nanosft.train.metrics import MetricsLog, find_peak_flops, open_sinks
from nanosft.train.optimizer import MuonAdamW, group_parameters
from nanosft.train.packing import pack_in_order
from nanosft.train.plan import StepPlan, count_rows_per_step, plan_steps
from nanosft.train.preflight import run_preflight
from nanosft.train.state import BEST_PREFIX, Progress, StateSaver, restore
from nanosft.train.step import LossModule, replicate
from nanosft.train.warm_start import warm_start

_LENGTH_MULTIPLE: Final = 256
"""Flattened batches on CUDA are filled up to a multiple of this, so that a compiled model sees few lengths."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainSummary:
    """What a run made.

    Attributes:
        out: URI of it.
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


def run_train(settings: TrainSettings) -> TrainSummary:
    """Train, or go on training, or find that it is done; one of the ranks that torchrun's variables tell of.

    Raises:
        ConfigError: A setting cannot be right, or differs from those the prefix was begun with.
        DataError: Base, tokenizer or data are missing, damaged, or have changed since the run began.
        TrainError: A loss or gradient is not finite, or another rank is lost.
        Interrupted: SIGTERM or SIGINT came; the state is saved.
    """
    with ExitStack() as stack:
        signals = stack.enter_context(catch_signals())
        world = stack.enter_context(
            open_world(settings.device, timeout_s=settings.collective_timeout_s, num_threads=settings.num_threads)
        )
        if not world.is_first:
            logging.getLogger("nanosft").setLevel(logging.ERROR)
        store = open_store(settings.out)
        if settings.preflight:
            world.first_does(lambda: run_preflight(settings, world))
            return TrainSummary(store.uri, 0, 0, None, None)
        content = _content(settings)
        finished = world.first_does(lambda: _find_finished(store, content))
        if finished is not None:
            return finished
        base = world.all_do(lambda: _load_base(settings, world))
        hyper = inherit(settings, base.meta, where=base.uri)
        data = load_data(
            settings,
            store,
            open_store(settings.base).read(TOKENIZER_KEY),
            capacity=hyper.row_len + 1,
            world=world,
        )
        plan = _plan(settings, hyper, data, world)
        expected = world.first_does(lambda: _expected_manifest(settings, store, content, base, data))
        _stop_if_told(signals, world)
        loader = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="nanosft-load"))
        writer = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="nanosft-save"))
        optimizer = MuonAdamW(
            group_parameters(base.model, hyper.optimizer, width=base.model.config.n_embd),
            rank=world.rank,
            world_size=world.size,
            muon_dtype=base.model.compute_dtype,
        )
        progress = restore(store, world, optimizer, expected=expected)
        if progress is None:
            progress = Progress()
            if settings.warm_start and base.ref.optimizer_keys:
                states = world.all_do(lambda: read_optimizer_states(settings.base, base.ref))
                warm_start(optimizer, states, where=f"{base.uri}: {base.ref.optimizer_keys[0]} …")
                _log.info("took the momentum over from %d optimizer files of the base", len(states))
        else:
            _log.info("resumed after step %d of %d", progress.step, plan.num_steps)
        module = LossModule(base.model)
        attempt = world.share(secrets.token_hex(4))
        sinks = (
            open_sinks(tensorboard=settings.tensorboard, wandb=settings.wandb, run=store.uri, config=content)
            if world.is_first
            else ()
        )
        metrics = MetricsLog(store, writer, step=progress.step, sinks=sinks)
        run = Run(
            settings=settings,
            store=store,
            world=world,
            module=module,
            replica=replicate(module, world),
            optimizer=optimizer,
            schedule=hyper.schedule,
            plan=plan,
            tokenizer=base.tokenizer,
            build=_make_builder(settings, hyper, data, plan, base, world),
            loader=loader,
            writer=writer,
            val=_make_validation(settings, hyper, data, base, world),
            saver=StateSaver(
                store,
                world,
                writer,
                optimizer,
                keep=settings.keep_states,
                attempt=attempt,
                manifest=expected,
            ),
            metrics=metrics,
            name_of=data.train.name_of,
            signals=signals,
            attempt=attempt,
            flops_per_token=_flops_per_token(settings, hyper, data, base),
            peak_flops=find_peak_flops(world.device, base.model.compute_dtype) * world.size,
        )
        progress = train(run, progress)
        run.saver.finish()
        return world.first_does(lambda: _finish(run, progress, base, hyper, data, expected))


def _content(settings: TrainSettings) -> dict[str, Any]:
    """The settings that decide what comes out, and the URIs in one spelling."""
    uris = {"base": settings.base, "data": settings.data, "val_data": settings.val_data}
    return settings.content() | {name: uri and open_store(uri).uri for name, uri in uris.items()}


def _find_finished(store: Store, content: dict[str, Any]) -> TrainSummary | None:
    manifest = read_manifest(store)
    if manifest is None:
        return None
    check_same_settings(manifest, content, where=store.uri_of(MANIFEST_KEY))
    _log.info("%s is finished: nothing to do", store.uri)
    return _summarize(store, manifest, was_finished=True)


def _load_base(settings: TrainSettings, world: World) -> Checkpoint:
    return load_checkpoint(
        settings.base,
        settings.base_source,
        settings.base_tag,
        settings.base_step,
        world.device,
        compute_dtype=choose_dtype(settings.dtype, world.device),
        softcap=settings.softcap,
    )


def _plan(settings: TrainSettings, hyper: Hyper, data: Data, world: World) -> StepPlan:
    plan = plan_steps(
        data.train,
        capacity=hyper.row_len + 1,
        rows_per_step=count_rows_per_step(hyper.total_batch_size, hyper.row_len, world.size),
        epochs=settings.epochs,
        max_steps=settings.max_steps,
        seed=settings.seed,
        window=settings.pack_window,
    )
    _log.info(
        "%d steps of %d rows of %d tokens on %d ranks; rows are %.1f %% short of full%s; "
        "%d to %d supervised tokens a step, %d in all",
        plan.num_steps,
        plan.rows_per_step,
        hyper.row_len,
        world.size,
        100 * plan.padding,
        ", which isolated conversations do not pay for" if settings.attention == "document" else "",
        plan.num_supervised.min(),
        plan.num_supervised.max(),
        plan.num_supervised.sum(),
    )
    return plan


def _expected_manifest(
    settings: TrainSettings, store: Store, content: dict[str, Any], base: Checkpoint, data: Data
) -> Manifest:
    """A state's manifest without its objects and counts; the model's is made of it too."""
    parents = (find_base_parent(settings.base, base.ref), *data.parents)
    name = store.uri.rpartition("/")[2]
    return Manifest(kind="state", name=name, objects=(), parents=parents, settings=content)


def _stop_if_told(signals: list[int], world: World) -> None:
    """Before the first step there is nothing to save yet."""
    told = [signum for found in world.gather(signals[:1]) for signum in found]
    if told:
        raise Interrupted(told[0])


def _uses_dense_mask(base: Checkpoint, world: World) -> bool:
    return world.device.type == "cuda" and base.model.compute_dtype == torch.float32


def _make_builder(
    settings: TrainSettings, hyper: Hyper, data: Data, plan: StepPlan, base: Checkpoint, world: World
) -> Any:
    def build(step: int) -> list[MicroBatch]:
        shares = plan.micro_batches(step, rank=world.rank, world_size=world.size, device_rows=hyper.device_rows)
        return [
            build_micro_batch(
                data.train,
                [plan.rows.row(row) for row in rows],
                row_len=hyper.row_len,
                attention=settings.attention,
                pad_id=base.tokenizer.bos_id,
                fixed_shape=_uses_dense_mask(base, world),
                multiple=_LENGTH_MULTIPLE if world.device.type == "cuda" else 1,
                row_numbers=rows,
            ).to(world.device)
            for rows in shares
        ]

    return build


def _make_validation(
    settings: TrainSettings, hyper: Hyper, data: Data, base: Checkpoint, world: World
) -> ValidationSet | None:
    if data.val is None or not len(data.val):
        if world.is_first:
            _log.warning("no validation data: give --val-data, or train on what mix made")
        return None
    rows = pack_in_order(data.val.lengths, hyper.row_len + 1)
    if settings.eval_rows is not None:
        rows = rows.take(np.arange(min(settings.eval_rows, len(rows))))
    return ValidationSet(
        data.val,
        rows,
        _token_bytes(settings, base),
        hyper.row_len,
        settings.attention,
        base.tokenizer.bos_id,
        hyper.device_rows,
        _uses_dense_mask(base, world),
    )


def _token_bytes(settings: TrainSettings, base: Checkpoint) -> npt.NDArray[np.int64]:
    """From the base's token_bytes.pt, or computed where it has none."""
    store = open_store(settings.base)
    if not store.exists(TOKEN_BYTES_KEY):
        return np.array(base.tokenizer.token_bytes(), np.int64)
    try:
        table = torch.load(io.BytesIO(store.read(TOKEN_BYTES_KEY)), weights_only=True)
        return np.asarray(table.numpy(), np.int64)
    except (pickle.UnpicklingError, RuntimeError, AttributeError) as exc:
        raise DataError(f"{store.uri_of(TOKEN_BYTES_KEY)}: not a table of token lengths: {exc}") from exc


def _flops_per_token(settings: TrainSettings, hyper: Hyper, data: Data, base: Checkpoint) -> float:
    span = data.train.lengths.mean() if settings.attention == "document" else hyper.row_len
    share = data.train.supervised.sum() / data.train.lengths.sum()
    model = base.model
    return estimate_flops_per_token(model.config, model.generation, round(span), num_head_tokens=float(share))


def _finish(
    run: Run, progress: Progress, base: Checkpoint, hyper: Hyper, data: Data, expected: Manifest
) -> TrainSummary:
    """Write the chat checkpoints, the last metrics and the manifest; then drop what only a resume needs."""
    settings, store = run.settings, run.store
    meta = {
        **base.meta,
        "val_bpb": progress.last_bpb,
        "max_seq_len": hyper.row_len,
        "device_batch_size": hyper.device_rows,
        "total_batch_size": hyper.total_batch_size,
        "user_config": settings.model_dump(mode="json"),
    }
    written = save_checkpoint(
        settings.out, base.model, meta, tag=base.tag, step=progress.step, tokenizer_from=settings.base
    )
    if progress.best_key:
        base.model.load_state_dict(read_tensors(store, progress.best_key))
        meta["val_bpb"] = progress.best_bpb
        written += save_checkpoint(settings.out, base.model, meta, tag=base.tag, step=progress.best_step)
    written.append(run.metrics.close())
    objects = (ManifestObject(key=item.key, size_bytes=item.size_bytes, sha256=item.sha256) for item in written)
    counts = {
        "step": progress.step,
        "best_step": progress.best_step if progress.best_loss is not None else progress.step,
        "num_supervised": progress.num_supervised,
        "train_s": round(progress.elapsed_s, 3),
        "val_loss": progress.last_loss,
        "val_bpb": progress.last_bpb,
        "conversations": dict(data.train.counts),
    }
    changes = {"kind": "model", "objects": sort_objects(objects), "counts": counts}
    manifest = expected.model_copy(update=changes)
    put_manifest(store, manifest)
    for key in (*data.cache_keys, *(info.key for info in store.list(BEST_PREFIX))):
        store.delete(key)
    return _summarize(store, manifest)


def _summarize(store: Store, manifest: Manifest, *, was_finished: bool = False) -> TrainSummary:
    counts = manifest.counts
    return TrainSummary(
        store.uri, counts["step"], counts["best_step"], counts["val_loss"], counts["val_bpb"], was_finished
    )
