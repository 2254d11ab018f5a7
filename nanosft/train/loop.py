"""The loop over the steps of a plan: train, evaluate, save, report; stop at the end, early, or when told to."""

import logging
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from nanosft.errors import ConfigError, Interrupted
from nanosft.nanochat.checkpoint import write_tensors
from nanosft.nanochat.tokenizer import Tokenizer
from nanosft.progress import Bar
from nanosft.settings.train import TrainSettings
from nanosft.store.base import Store
from nanosft.train.batch import MicroBatch
from nanosft.train.data.plan import StepPlan
from nanosft.train.distributed import World
from nanosft.train.evaluate import ValidationSet, evaluate, sample_answers
from nanosft.train.metrics import MetricsLog, peak_memory_bytes
from nanosft.train.optim.optimizer import MuonAdamW
from nanosft.train.optim.schedule import Schedule, muon_momentum
from nanosft.train.state import BEST_PREFIX, Progress, StateSaver
from nanosft.train.step import LossModule, NonFiniteError, train_step

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """All that the loop works with; nothing in it is made or opened by the loop.

    Attributes:
        module: The model and its loss.
        replica: What is run for training: `module`, or its replication over the ranks.
        prompts: The settings' prompts, rendered.
        build: The micro-batches of this rank at a step, on its device.
        loader: One thread that builds the next step's while this one's train.
        writer: One thread that writes to the store, in order.
        val: What to evaluate on, or None.
        signals: Numbers of the signals caught so far.
        attempt: Unique to this start.
        flops_per_token: Of forward and backward pass.
        peak_flops: What all ranks together could do, in FLOP/s.
    """

    settings: TrainSettings
    store: Store
    world: World
    module: LossModule
    replica: nn.Module
    optimizer: MuonAdamW
    schedule: Schedule
    plan: StepPlan
    tokenizer: Tokenizer
    prompts: Sequence[Sequence[int]]
    build: Callable[[int], Sequence[MicroBatch]]
    loader: Executor
    writer: Executor
    val: ValidationSet | None
    saver: StateSaver
    metrics: MetricsLog
    name_of: Callable[[int], str]
    signals: Sequence[int]
    attempt: str
    flops_per_token: float
    peak_flops: float


def train(run: Run, progress: Progress) -> Progress:
    """Train from `progress` to the end of the plan, or to an early stop.

    Raises:
        Interrupted: A signal came to any rank; the state of the step just finished is saved.
        NonFiniteError: Named with its step and its conversations; nothing was updated by that step.
    """
    settings, world = run.settings, run.world
    num_steps = run.plan.num_steps
    is_start = progress.step == 0 and run.val is not None
    if progress.evaluated_step != progress.step and (is_start or _must_evaluate(run, progress.step)):
        progress = _evaluate(run, progress)  # the base; or what a signal left no time for
    saved_s, is_due = time.monotonic(), False
    loading = run.loader.submit(run.build, progress.step) if progress.step < num_steps else None
    stall_s = 0.0
    with Bar("train", num_steps, quiet=not world.is_first) as bar:
        bar.update(progress.step)
        while progress.step < num_steps and not _is_stopped_early(settings, progress):
            assert loading is not None
            step, started_s = progress.step, time.monotonic()
            batches = loading.result()
            waited_s = time.monotonic() - started_s
            loading = run.loader.submit(run.build, step + 1) if step + 1 < num_steps else None
            is_late = settings.save_minutes and time.monotonic() - saved_s >= 60 * settings.save_minutes
            num_busy, num_late, num_term, num_int, record = _train_step(
                run, step, batches, (run.saver.is_busy, is_late and world.is_first, *_count_signals(run.signals))
            )
            step_s = time.monotonic() - started_s
            progress = replace(
                progress,
                step=step + 1,
                num_supervised=progress.num_supervised + int(run.plan.num_supervised[step]),
                elapsed_s=progress.elapsed_s + step_s,
            )
            _report(run, progress, record, bar, step_s=step_s, data_wait_s=waited_s, save_stall_s=stall_s)
            stall_s = 0.0
            is_last = progress.step == num_steps
            if num_term or num_int:  # before the evaluation, which may outlast the grace that is left
                _save_and_stop(run, progress, signal.SIGTERM if num_term else signal.SIGINT)
            if _must_evaluate(run, progress.step):
                progress = _evaluate(run, progress)
            if settings.save_every and progress.step % settings.save_every == 0:
                is_due = True
            is_due |= num_late > 0
            if is_due and not num_busy and not is_last:
                before_s = time.monotonic()
                if world.is_first:
                    run.metrics.flush()  # first: a state must not be newer than the lines up to it
                run.saver.save(progress)
                saved_s, is_due = time.monotonic(), False
                stall_s = saved_s - before_s
    return progress


def _train_step(run: Run, step: int, batches: Sequence[MicroBatch], signals: Sequence[float]) -> tuple[Any, ...]:
    """One step; the sums of `signals` over the ranks, then what to report of it."""
    scale, momentum = run.schedule.lr_scale(step, run.plan.num_steps), muon_momentum(step)
    try:
        result = train_step(
            run.replica,
            run.optimizer,
            batches,
            num_supervised=int(run.plan.num_supervised[step]),
            lr_scale=scale,
            momentum=momentum,
            world=run.world,
            signals=signals,
        )
    except torch.OutOfMemoryError as exc:
        raise ConfigError(
            f"step {step + 1}: {str(exc).splitlines()[0]}: lower --device-batch-size, or use more ranks"
        ) from exc
    except NonFiniteError as exc:
        items = [int(item) for row in exc.rows for item in run.plan.rows.row(row)]
        names = ", ".join(run.name_of(item) for item in items[:8]) + (", …" if len(items) > 8 else "")  # noqa: PLR2004
        rows = ", ".join(map(str, exc.rows[:8])) + (", …" if len(exc.rows) > 8 else "")  # noqa: PLR2004
        raise NonFiniteError(
            f"step {step + 1}: {exc}, and nothing was updated: packed rows {rows} (conversations {names}); "
            "take them out of the data, or lower the learning rates",
            exc.rows,
        ) from exc
    record = {"loss": result.loss, "lr_scale": scale, "momentum": momentum, "grad_norm": result.grad_norms}
    return (*result.signals, record)


def _report(run: Run, progress: Progress, record: dict[str, Any], bar: Bar, **times_s: float) -> None:
    if not run.world.is_first:
        return
    step, step_s = progress.step - 1, times_s["step_s"]
    num_tokens, num_supervised = int(run.plan.num_tokens[step]), int(run.plan.num_supervised[step])
    tokens_per_s = num_tokens / step_s
    bar.update(progress.step, loss=record["loss"], lr=record["lr_scale"], **{"tok/s": round(tokens_per_s)})
    if progress.step % run.settings.log_every == 0 or progress.step == run.plan.num_steps:
        run.metrics.write(
            {
                "step": progress.step,
                **record,
                "num_supervised": num_supervised,
                "num_tokens": num_tokens,
                "tokens_per_s": tokens_per_s,
                "supervised_per_s": num_supervised / step_s,
                "mfu": tokens_per_s * run.flops_per_token / run.peak_flops,
                "peak_memory_bytes": peak_memory_bytes(run.world.device),
                **times_s,
            }
        )


def _must_evaluate(run: Run, step: int) -> bool:
    """After `step` steps, at least one: at the end, and every so many."""
    eval_every = run.settings.eval_every
    return step == run.plan.num_steps or bool(step and eval_every and step % eval_every == 0)


def _evaluate(run: Run, progress: Progress) -> Progress:
    """Score the model, sample its answers, and keep it when it is the best so far."""
    settings, world = run.settings, run.world
    progress = replace(progress, evaluated_step=progress.step)
    record: dict[str, Any] = {"step": progress.step}
    if run.val is not None:
        scores = evaluate(run.module, run.val, world)
        total = scores.pop("")
        record |= {"val_loss": total.loss, "val_bpb": total.bpb}
        record["val_sources"] = {name: asdict(score) for name, score in scores.items()}
        progress = replace(progress, last_loss=total.loss, last_bpb=total.bpb)
        if progress.best_loss is None or total.loss < progress.best_loss:
            progress = _keep_best(run, progress)
        else:
            progress = replace(progress, num_worse=progress.num_worse + 1)
    if run.prompts:
        answers = sample_answers(
            run.module.model, run.tokenizer, run.prompts, max_tokens=settings.sample_tokens, world=world
        )
        record["samples"] = dict(zip(settings.prompts, answers, strict=True))
    if world.is_first and len(record) > 1:
        run.metrics.write(record)
        _log.info("evaluation", extra={"fields": {name: record[name] for name in record if name != "val_sources"}})
    return progress


def _keep_best(run: Run, progress: Progress) -> Progress:
    key = f"{BEST_PREFIX}step_{progress.step:06d}-{run.attempt}/model.pt"
    if progress.step in (0, run.plan.num_steps):
        key = ""  # the base itself, or the last model, which is written anyway
    elif run.world.is_first:
        state = {name: tensor.detach().to("cpu", copy=True) for name, tensor in run.module.model.state_dict().items()}
        run.writer.submit(write_tensors, run.store, key, state)
    return replace(
        progress,
        best_loss=progress.last_loss,
        best_bpb=progress.last_bpb,
        best_step=progress.step,
        best_key=key,
        num_worse=0,
    )


def _save_and_stop(run: Run, progress: Progress, signum: int) -> None:
    if run.world.is_first:
        run.metrics.flush()
    run.saver.save(progress)
    run.saver.finish()
    if run.world.is_first:
        run.metrics.close()
    raise Interrupted(signum)


def _count_signals(signals: Sequence[int]) -> tuple[int, int]:
    return signals.count(signal.SIGTERM), signals.count(signal.SIGINT)


def _is_stopped_early(settings: TrainSettings, progress: Progress) -> bool:
    return bool(settings.early_stop) and progress.num_worse >= settings.early_stop
