"""`nanosft train`: from a base and conversations to a chat checkpoint in nanochat's layout.

    nanosft train --base s3://bucket/base --data s3://bucket/mix --out s3://bucket/run
    torchrun --standalone --nproc_per_node=8 -m nanosft train …        # the same, on 8 GPUs
    nanosft launch --nproc-per-node 8 train …                          # the same, with nanosft's exit codes

Started again, the same command goes on from the newest state in `--out`; where the run is finished, it exits at once.
"""

import logging
import secrets
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from nanosft.data import OutputPrefix
from nanosft.distributed import World, open_world
from nanosft.errors import ConfigError, TrainError
from nanosft.manifest import Manifest
from nanosft.memory import keep_freed_memory
from nanosft.nanochat.attention import activate_flash_attention
from nanosft.nanochat.checkpoint import Checkpoint, check_tokenizer, load_checkpoint, read_optimizer_states
from nanosft.packing import PackedRows, pack_in_order
from nanosft.settings.train import TrainSettings
from nanosft.signals import collecting
from nanosft.store import open_store
from nanosft.store.base import Store
from nanosft.train.batch import BatchBuilder, TrainingSet
from nanosft.train.data import (
    Data,
    StepPlan,
    TokenSet,
    count_rows_per_step,
    plan_steps,
    prepare_data,
    read_data,
)
from nanosft.train.evaluate import Prompts, ValidationSet, load_token_bytes, render_prompts
from nanosft.train.finish import TrainSummary, describe_run, find_finished, finish, writing
from nanosft.train.fit import choose_device_rows, fits_into_memory
from nanosft.train.loop import train
from nanosft.train.metrics import MetricsLog, Throughput, count_flops_per_token, find_peak_flops
from nanosft.train.optim import HyperParameters, MuonAdamW, group_parameters, load_moments
from nanosft.train.precision import DTYPES, choose_dtype
from nanosft.train.preflight import run_preflight
from nanosft.train.progress import Progress
from nanosft.train.run import AskModel, Learner, Run
from nanosft.train.sinks import open_sinks
from nanosft.train.state import StateSaver, list_states, restore
from nanosft.train.step import LossModule, replicate

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inputs:
    """What a run is made from.

    Attributes:
        settings: What the user asks for.
        world: This rank among all.
        store: Where the run's objects go.
        base: The model to start from, and its tokenizer.
        hyper: Settings and base, resolved.
        data: Conversations as tokens.
        token_bytes: (vocab_size,) UTF-8 bytes of each token; None where there is no validation data.
        prompts: What the model answers at each evaluation.
        ask: Asked at each evaluation too, or None.
        manifest: What the manifests of states and model say beside objects and counts.
    """

    settings: TrainSettings
    world: World
    store: Store
    base: Checkpoint
    hyper: HyperParameters
    data: Data
    token_bytes: npt.NDArray[np.int64] | None
    prompts: Prompts
    ask: AskModel | None
    manifest: Manifest


def run_train(settings: TrainSettings, ask: AskModel | None = None) -> TrainSummary:
    """Train, or go on training, or find that it is done; one of the ranks that torchrun's variables tell of.

    Args:
        settings: What the user asks for.
        ask: Asks the model at each evaluation, on every rank; it may change neither weights nor random numbers.

    Raises:
        ConfigError: A setting cannot be right, or differs from those the prefix was begun with.
        DataError: Base, tokenizer or data are missing, damaged, or have changed since the run began.
        TrainError: A loss or gradient is not finite, or another rank is lost.
        Interrupted: SIGTERM or SIGINT came; the state is saved.
    """
    timeout_s, num_threads = settings.collective_timeout_s, settings.num_threads
    with (
        collecting() as signals,
        open_world(settings.device, timeout_s=timeout_s, num_threads=num_threads, signals=signals) as world,
    ):
        signals.ends = world.size == 1  # before the first step there is nothing to save; of several all end together
        if not world.is_first:
            logging.getLogger("nanosft").setLevel(logging.ERROR)
        if world.device.type == "cpu":
            keep_freed_memory()
        store = open_store(settings.out)
        OutputPrefix(store, "train", {}).check_other((settings.base, settings.data))
        if settings.preflight:
            world.run_on_rank_zero(lambda: run_preflight(settings, world))
            return TrainSummary(store.uri, 0, 0, None, None)
        finished = world.run_on_rank_zero(lambda: find_finished(settings, store))
        if finished is not None:
            return finished
        inputs = _load(settings, store, world, ask)
        plan = _plan(inputs)
        signals.saves, signals.ends = True, False
        world.run_on_all_ranks(world.stop_if_told)
        with world.enter_on_rank_zero(lambda: writing(store, inputs.manifest)) as finished:
            if finished is not None:  # by another process, since
                return finished
            with ThreadPoolExecutor(1, thread_name_prefix="nanosft-save") as writer:
                run, progress = _assemble(inputs, plan, writer)
                progress = _train(run, progress)
                summary = world.run_on_rank_zero(lambda: _finish(inputs, run, progress))
                if settings.evaluate:  # which may take long
                    world.run_on_all_ranks(world.stop_if_told)
                return summary


def _load(settings: TrainSettings, store: Store, world: World, ask: AskModel | None) -> Inputs:
    """Everything a run reads before its first step, the same on all ranks."""
    base = world.run_on_all_ranks(lambda: _load_base(settings, world))
    base.model.compute_dtype = world.run_on_rank_zero(lambda: _choose_dtype(settings, store, base, world))
    hyper = HyperParameters.resolve(settings, base.meta, where=base.uri)
    prompts = render_prompts(
        base.tokenizer,
        settings.prompts,
        max_tokens=settings.sample_tokens,
        context_len=base.model.config.sequence_len,
    )
    cached = world.run_on_rank_zero(
        lambda: prepare_data(settings, store, base.tokenizer_uri, capacity=hyper.capacity, look=world.stop_if_told)
    )
    world.run_on_rank_zero(lambda: check_tokenizer(base))  # the tokens are of the one that was there just now
    data = world.run_on_all_ranks(lambda: read_data(store, cached))
    token_bytes = None
    if data.val:
        token_bytes = world.run_on_all_ranks(lambda: load_token_bytes(base))
    elif settings.early_stop:
        raise ConfigError("--early-stop needs validation data: give --val-data, or train on what mix made")
    else:
        _log.warning("no validation data: give --val-data, or train on what mix made")
    manifest = world.run_on_rank_zero(lambda: describe_run(settings, store, base, data))
    return Inputs(settings, world, store, base, hyper, data, token_bytes, prompts, ask, manifest)


def _load_base(settings: TrainSettings, world: World) -> Checkpoint:
    return load_checkpoint(
        settings.base,
        settings.base_source,
        settings.base_tag,
        settings.base_step,
        world.device,
        softcap=settings.softcap,
    )


def _choose_dtype(settings: TrainSettings, store: Store, base: Checkpoint, world: World) -> torch.dtype:
    """Rank 0's choice holds for all; what it began with holds for a resumed run."""
    states = list_states(store) if settings.dtype == "auto" else []
    kept = states[0].manifest.counts.get("dtype", "") if states else ""
    return choose_dtype(settings.dtype, base.model.config, world.device, kept=kept)


def _plan(inputs: Inputs) -> StepPlan:
    settings, hyper, world = inputs.settings, inputs.hyper, inputs.world
    plan = plan_steps(
        inputs.data.train,
        capacity=hyper.capacity,
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


def _assemble(inputs: Inputs, plan: StepPlan, writer: Executor) -> tuple[Run, Progress]:
    """What the loop works with, and where it begins: at the newest state, or at the base.

    Args:
        inputs: What the run is made from; the base's parameters are overwritten by a state's.
        plan: The run's steps.
        writer: One thread that writes to the store, in order.
    """
    settings, world, base, hyper = inputs.settings, inputs.world, inputs.base, inputs.hyper
    dtype = base.model.compute_dtype
    optimizer = MuonAdamW(
        group_parameters(base.model, hyper.optimizer, width=base.model.config.n_embd),
        rank=world.rank,
        world_size=world.size,
        muon_dtype=dtype,
    )
    progress = _resume(inputs, optimizer, plan)
    if world.device.type == "cuda":
        _log.info("attention by %s", activate_flash_attention(world.device))
    is_compiled = settings.compile if settings.compile is not None else world.device.type == "cuda"
    module = LossModule(base.model, compiled=is_compiled)
    attempt = world.broadcast(secrets.token_hex(4))
    training = TrainingSet(plan, _make_builder(inputs, inputs.data.train, plan.rows), hyper.device_rows)
    device_rows = choose_device_rows(
        settings.device_batch_size,
        default=hyper.device_rows,
        kept=progress.device_rows,
        limit=plan.rows_per_step // world.size,
        world=world,
        fits=lambda num: fits_into_memory(module, training, num, world.device),
    )
    progress = replace(progress, device_rows=device_rows if world.device.type == "cuda" else 0)
    metrics = world.run_on_all_ranks(lambda: _open_metrics(inputs, writer, progress, plan.num_steps))
    saver = StateSaver(
        inputs.store,
        world,
        writer,
        optimizer,
        keep=settings.keep_states,
        attempt=attempt,
        manifest=inputs.manifest,
    )
    span = inputs.data.train.lengths.mean() if settings.attention == "document" else hyper.row_len
    run = Run(
        settings=settings,
        world=world,
        learner=Learner(module, replicate(module, world), optimizer, hyper.schedule),
        training=replace(training, device_rows=device_rows),
        val=_make_validation(inputs, device_rows),
        prompts=inputs.prompts,
        ask=partial(inputs.ask, base, world) if inputs.ask else None,
        saver=saver,
        metrics=metrics,
        throughput=Throughput(
            count_flops_per_token(base.model, inputs.data.train, span=span),
            find_peak_flops(world.device, dtype) * world.size,
        ),
    )
    return run, progress


def _resume(inputs: Inputs, optimizer: MuonAdamW, plan: StepPlan) -> Progress:
    """Take up the newest state; without one, the momenta that pretraining left."""
    settings, world, base = inputs.settings, inputs.world, inputs.base
    progress = restore(inputs.store, world, optimizer, expected=inputs.manifest)
    if progress is not None:
        _log.info("resumed after step %d of %d", progress.step, plan.num_steps)
        return progress
    if settings.warm_start and base.ref.optimizer_keys:
        states = world.run_on_all_ranks(lambda: read_optimizer_states(settings.base, base.ref))
        load_moments(optimizer, states, where=f"{base.uri}: {base.ref.optimizer_keys[0]} …")
        _log.info("took the momentum over from %d optimizer files of the base", len(states))
    return Progress(dtype=next(name for name, dtype in DTYPES.items() if dtype == base.model.compute_dtype))


def _open_metrics(inputs: Inputs, writer: Executor, progress: Progress, num_steps: int) -> MetricsLog:
    """Rank 0 alone reads and writes metrics; the others' stay empty."""
    if not inputs.world.is_first:
        return MetricsLog(inputs.store, writer, step=0)
    settings, store = inputs.settings, inputs.store
    sinks = open_sinks(settings, run=store.uri, num_steps=num_steps, config=inputs.manifest.settings)
    metrics = MetricsLog(store, writer, step=progress.step, sinks=sinks)
    if progress.step:
        metrics.write({"step": progress.step, "resumed": True, "world_size": inputs.world.size})  # for the report
    return metrics


def _make_builder(inputs: Inputs, tokens: TokenSet, rows: PackedRows) -> BatchBuilder:
    base = inputs.base
    return BatchBuilder(
        tokens,
        rows,
        row_len=inputs.hyper.row_len,
        attention=inputs.settings.attention,
        pad_id=base.tokenizer.bos_id,
        device=inputs.world.device,
        dtype=base.model.compute_dtype,
        device_rows=inputs.hyper.device_rows,
    )


def _make_validation(inputs: Inputs, device_rows: int) -> ValidationSet | None:
    val, token_bytes, eval_rows = inputs.data.val, inputs.token_bytes, inputs.settings.eval_rows
    if val is None or token_bytes is None:
        return None
    rows = pack_in_order(val.lengths, inputs.hyper.capacity)
    if eval_rows is not None:
        rows = rows.take(np.arange(min(eval_rows, len(rows))))
    return ValidationSet(_make_builder(inputs, val, rows), token_bytes, device_rows)


def _train(run: Run, progress: Progress) -> Progress:
    try:
        progress = train(run, progress)
    except TrainError:
        if run.world.is_first:
            run.metrics.flush()  # the lines before it are what its cause is looked for in
        raise
    except (NotImplementedError, TypeError) as exc:  # what torch raises for an operator or dtype that a device lacks
        if run.world.device.type in {"cpu", "cuda"}:
            raise
        reason = str(exc).splitlines()[0][:200]
        raise ConfigError(f"--device {run.world.device.type}: {reason}: use --device cpu") from exc
    run.saver.finish()
    return progress


def _finish(inputs: Inputs, run: Run, progress: Progress) -> TrainSummary:
    return finish(
        inputs.settings,
        inputs.store,
        inputs.base,
        inputs.hyper,
        inputs.data,
        progress=progress,
        metrics=run.metrics,
        manifest=inputs.manifest,
    )
