"""`nanosft train`: from a base and conversations to a chat checkpoint in nanochat's layout.

    nanosft train --base s3://bucket/base --data s3://bucket/mix --out s3://bucket/run
    torchrun --standalone --nproc_per_node=8 -m nanosft train …        # the same, on 8 GPUs
    nanosft launch --nproc-per-node 8 train …                          # the same, with nanosft's exit codes

Started again, the same command goes on from the newest state in `--out`; where the run is finished, it exits at once.
"""

import logging
import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from nanosft.errors import Interrupted, TrainError
from nanosft.manifest import Manifest
from nanosft.nanochat.checkpoint import Checkpoint, load_checkpoint, read_optimizer_states
from nanosft.settings.train import TrainSettings
from nanosft.signals import collecting
from nanosft.store import open_store
from nanosft.store.base import Store
from nanosft.train.assemble import flops_per_token, make_builder, make_validation
from nanosft.train.data.dataset import Data, load_data
from nanosft.train.data.plan import StepPlan, count_rows_per_step, plan_steps
from nanosft.train.distributed import World, choose_dtype, open_world
from nanosft.train.evaluate import render_prompts
from nanosft.train.finish import TrainSummary, find_finished, finish
from nanosft.train.lineage import find_base_parent, find_content
from nanosft.train.loop import Run, train
from nanosft.train.metrics import MetricsLog, Sink, find_peak_flops, open_sinks
from nanosft.train.optim.hyperparameters import HyperParameters
from nanosft.train.optim.optimizer import MuonAdamW, group_parameters
from nanosft.train.optim.warm_start import warm_start
from nanosft.train.preflight import run_preflight
from nanosft.train.state import Progress, StateSaver, restore
from nanosft.train.step import LossModule, replicate

_log = logging.getLogger(__name__)


def run_train(settings: TrainSettings) -> TrainSummary:
    """Train, or go on training, or find that it is done; one of the ranks that torchrun's variables tell of.

    Raises:
        ConfigError: A setting cannot be right, or differs from those the prefix was begun with.
        DataError: Base, tokenizer or data are missing, damaged, or have changed since the run began.
        TrainError: A loss or gradient is not finite, or another rank is lost.
        Interrupted: SIGTERM or SIGINT came; the state is saved.
    """
    with ExitStack() as stack:
        signals = stack.enter_context(collecting())
        world = stack.enter_context(
            open_world(settings.device, timeout_s=settings.collective_timeout_s, num_threads=settings.num_threads)
        )
        if not world.is_first:
            logging.getLogger("nanosft").setLevel(logging.ERROR)
        store = open_store(settings.out)
        if settings.preflight:
            world.run_on_rank_zero(lambda: run_preflight(settings, world))
            return TrainSummary(store.uri, 0, 0, None, None)
        content = find_content(settings)
        finished = world.run_on_rank_zero(lambda: find_finished(store, content))
        if finished is not None:
            return finished
        base = world.run_on_all_ranks(lambda: _load_base(settings, world))
        hyper = HyperParameters.resolve(settings, base.meta, where=base.uri)
        prompts = render_prompts(
            base.tokenizer,
            settings.prompts if settings.sample_tokens else (),
            context_len=base.model.config.sequence_len,
        )
        data = load_data(settings, store, capacity=hyper.row_len + 1, world=world, signals=signals)
        val = make_validation(settings, hyper, data, base, world)
        plan = _plan(settings, hyper, data, world)
        expected = world.run_on_rank_zero(lambda: _expected_manifest(settings, store, content, base, data))
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
                states = world.run_on_all_ranks(lambda: read_optimizer_states(settings.base, base.ref))
                warm_start(optimizer, states, where=f"{base.uri}: {base.ref.optimizer_keys[0]} …")
                _log.info("took the momentum over from %d optimizer files of the base", len(states))
        else:
            _log.info("resumed after step %d of %d", progress.step, plan.num_steps)
        compiled = settings.compile if settings.compile is not None else world.device.type == "cuda"
        module = LossModule(base.model, compiled=compiled)
        attempt = world.broadcast(secrets.token_hex(4))
        sinks = world.run_on_all_ranks(lambda: _open_sinks(settings, store, content) if world.is_first else ())
        first_step = progress.step if world.is_first else 0  # rank 0 alone reads and writes metrics
        metrics = world.run_on_all_ranks(lambda: MetricsLog(store, writer, step=first_step, sinks=sinks))
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
            prompts=prompts,
            build=make_builder(settings, hyper, data, plan, base, world),
            loader=loader,
            writer=writer,
            val=val,
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
            flops_per_token=flops_per_token(settings, hyper, data, base),
            peak_flops=find_peak_flops(world.device, base.model.compute_dtype) * world.size,
        )
        try:
            progress = train(run, progress)
        except TrainError:
            if world.is_first:
                metrics.flush()  # the lines before it are what its cause is looked for in
            raise
        run.saver.finish()
        return world.run_on_rank_zero(lambda: finish(run, progress, base, hyper, data, expected))


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


def _plan(settings: TrainSettings, hyper: HyperParameters, data: Data, world: World) -> StepPlan:
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


def _open_sinks(settings: TrainSettings, store: Store, content: dict[str, Any]) -> tuple[Sink, ...]:
    return open_sinks(tensorboard=settings.tensorboard, wandb=settings.wandb, run=store.uri, config=content)


def _stop_if_told(signals: list[int], world: World) -> None:
    """Before the first step there is nothing to save yet."""
    told = [signum for found in world.gather(signals[:1]) for signum in found]
    if told:
        raise Interrupted(told[0])
