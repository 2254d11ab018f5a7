"""The loop over the steps of a plan: train, evaluate, save, report; stop at the end, early, or when told to."""

import logging
import signal
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, NamedTuple, NoReturn

import torch

from nanosft.errors import ConfigError, Interrupted
from nanosft.progress import Bar
from nanosft.settings.train import TrainSettings
from nanosft.train.batch import MicroBatch
from nanosft.train.evaluate import evaluate, sample_answers
from nanosft.train.metrics import peak_memory_bytes
from nanosft.train.optim import muon_momentum
from nanosft.train.progress import Progress, describe_rise
from nanosft.train.run import Run
from nanosft.train.step import NonFiniteError, StepResult, train_step

_NUM_NAMED: Final = 8
"""Rows and conversations that an error names at the most."""
_log = logging.getLogger(__name__)


class Flags(NamedTuple):
    """What a rank says at each step, 1 or 0; the sums over the ranks travel with the loss and cost nothing more.

    Attributes:
        is_saving: The state before is still being written.
        is_due: So much time has passed that a state must be saved.
        is_terminated: SIGTERM has come.
        is_interrupted: SIGINT has come.
    """

    is_saving: float
    is_due: float
    is_terminated: float
    is_interrupted: float


@dataclass(frozen=True, slots=True)
class _StepTimes:
    """Seconds of a step, and of it or before it: waiting for its micro-batches, and for a state's copy."""

    step_s: float
    data_wait_s: float
    save_stall_s: float


def train(run: Run, progress: Progress) -> Progress:
    """Train from `progress` to the end of the plan, or to an early stop.

    Raises:
        Interrupted: A signal came to any rank; the state of the step just finished is saved. An evaluation that it
            came into is made anew when the run goes on.
        NonFiniteError: Named with its step and its conversations; nothing was updated by that step.
    """
    plan = run.training.plan
    progress = _catch_up(run, progress)
    saved_s, is_due, stall_s = time.monotonic(), False, 0.0
    with (
        Bar("train", plan.num_steps, quiet=not run.world.is_first) as bar,
        closing(_load_ahead(run, range(progress.step, plan.num_steps))) as batches_by_step,
    ):
        bar.update(progress.step)
        while progress.step < plan.num_steps and not _is_stopped_early(run.settings, progress):
            step, started_s = progress.step, time.monotonic()
            batches = next(batches_by_step)
            waited_s = time.monotonic() - started_s
            result = _train_step(run, step, batches, _raise_flags(run, since_saved_s=time.monotonic() - saved_s))
            times = _StepTimes(time.monotonic() - started_s, waited_s, stall_s)
            progress = replace(
                progress,
                step=step + 1,
                num_supervised=progress.num_supervised + int(plan.num_supervised[step]),
                elapsed_s=progress.elapsed_s + times.step_s,
            )
            _report(run, progress, result, times, bar)
            stall_s = 0.0
            flags = Flags(*result.sums)
            if flags.is_terminated or flags.is_interrupted:  # before the evaluation, which may outlast the grace left
                _save_and_stop(run, progress, signal.SIGTERM if flags.is_terminated else signal.SIGINT)
            if _must_evaluate(run, progress.step):
                progress = _evaluate_or_stop(run, progress)
            is_due |= flags.is_due > 0 or _is_every(run.settings.save_every, progress.step)
            if is_due and not flags.is_saving and progress.step < plan.num_steps:
                before_s = time.monotonic()
                _save(run, progress)
                saved_s, is_due = time.monotonic(), False
                stall_s = saved_s - before_s
    return progress


def _catch_up(run: Run, progress: Progress) -> Progress:
    """Evaluate the base before the first step; on a resumed run, what a signal left no time for."""
    if progress.evaluated_step == progress.step:
        return progress
    is_start = progress.step == 0 and (run.val is not None or run.ask is not None)
    if not is_start and not _must_evaluate(run, progress.step):
        return progress
    try:
        return _evaluate(run, progress)
    except Interrupted:  # the state, where there is one, is that of this step
        if run.world.is_first:
            run.metrics.close()
        raise


def _load_ahead(run: Run, steps: range) -> Generator[list[MicroBatch]]:
    """This rank's micro-batches of each step, on its device; those of the next are made while a step trains."""
    with ThreadPoolExecutor(1, thread_name_prefix="nanosft-load") as loader:
        ahead = loader.submit(run.training.build, steps.start, run.world)
        for step in steps:
            batches = ahead.result()
            if step + 1 in steps:
                ahead = loader.submit(run.training.build, step + 1, run.world)
            yield batches


def _raise_flags(run: Run, *, since_saved_s: float) -> Flags:
    """This rank's; rank 0's clock alone decides when a state is due."""
    save_s = 60 * run.settings.save_minutes
    return Flags(
        is_saving=run.saver.is_busy,
        is_due=bool(save_s) and since_saved_s >= save_s and run.world.is_first,
        is_terminated=signal.SIGTERM in run.world.signals,
        is_interrupted=signal.SIGINT in run.world.signals,
    )


def _train_step(run: Run, step: int, batches: Sequence[MicroBatch], flags: Flags) -> StepResult:
    learner, plan = run.learner, run.training.plan
    try:
        return train_step(
            learner.replica,
            learner.optimizer,
            batches,
            num_supervised=int(plan.num_supervised[step]),
            lr_scale=learner.schedule.lr_scale(step, plan.num_steps),
            momentum=muon_momentum(step),
            world=run.world,
            summands=flags,
        )
    except torch.OutOfMemoryError as exc:
        raise ConfigError(
            f"step {step + 1}: {str(exc).splitlines()[0]}: lower --device-batch-size, or use more ranks"
        ) from exc
    except NonFiniteError as exc:
        tokens = run.training.builder.tokens
        items = [int(item) for row in exc.rows for item in plan.rows.row(row)]
        raise NonFiniteError(
            f"step {step + 1}: {exc}, and nothing was updated: packed rows {_name(exc.rows, str)} "
            f"(conversations {_name(items, tokens.name_of)}); take them out of the data, or lower the learning rates",
            exc.rows,
        ) from exc


def _name(numbers: Sequence[int], name_of: Callable[[int], str]) -> str:
    return ", ".join(map(name_of, numbers[:_NUM_NAMED])) + (", …" if len(numbers) > _NUM_NAMED else "")


def _report(run: Run, progress: Progress, result: StepResult, times: _StepTimes, bar: Bar) -> None:
    if not run.world.is_first:
        return
    plan, step = run.training.plan, progress.step - 1
    num_tokens, num_supervised = int(plan.num_tokens[step]), int(plan.num_supervised[step])
    lr_scale = run.learner.schedule.lr_scale(step, plan.num_steps)
    rates = run.throughput.rates(num_tokens=num_tokens, num_supervised=num_supervised, step_s=times.step_s)
    bar.update(progress.step, loss=result.loss, lr=lr_scale, **{"tok/s": round(rates["tokens_per_s"])})
    if _is_every(run.settings.log_every, progress.step) or progress.step == plan.num_steps:
        run.metrics.write(
            {
                "step": progress.step,
                "loss": result.loss,
                "lr_scale": lr_scale,
                "momentum": muon_momentum(step),
                "grad_norm": result.grad_norms,
                "num_supervised": num_supervised,
                "num_tokens": num_tokens,
                **rates,
                "peak_memory_bytes": peak_memory_bytes(run.world.device),
                **asdict(times),
            }
        )


def _is_every(num: int, step: int) -> bool:
    """Whether `step`, which is at least 1, is one of every `num`; 0 is never."""
    return bool(num) and step > 0 and step % num == 0


def _must_evaluate(run: Run, step: int) -> bool:
    """Whether the model is evaluated after `step` steps: at the end, and every so many."""
    return step == run.training.plan.num_steps or _is_every(run.settings.eval_every, step)


def _evaluate_or_stop(run: Run, progress: Progress) -> Progress:
    """Evaluate; where a signal comes meanwhile, save the state that was to be evaluated."""
    try:
        return _evaluate(run, progress)
    except Interrupted as exc:
        _save_and_stop(run, progress, exc.signum)


def _evaluate(run: Run, progress: Progress) -> Progress:
    """Score the model, sample its answers, and keep it when it is the best so far.

    Raises:
        Interrupted: A signal came to any rank; a batch, a sampled token or a block of probes later at the most.
    """
    world, module = run.world, run.learner.module
    progress = replace(progress, evaluated_step=progress.step)
    record: dict[str, Any] = {"step": progress.step}
    if run.val is not None:
        scores = evaluate(module, run.val, world)
        total = scores.pop("")
        record |= {"val_loss": total.loss, "val_bpb": total.bpb}
        record["val_sources"] = {name: asdict(score) for name, score in scores.items()}
        progress = replace(progress, last_loss=total.loss, last_bpb=total.bpb)
        if progress.best_loss is None or total.loss < progress.best_loss:
            progress = _keep_best(run, progress)
        else:
            progress = replace(progress, num_worse=progress.num_worse + 1)
            if world.is_first and (rise := describe_rise(run.settings, progress)):
                _log.warning(rise)
    if run.prompts.texts:
        record["samples"] = sample_answers(module.model, run.prompts, world)
    if run.ask is not None:
        record["identity"] = run.ask()
    if world.is_first and len(record) > 1:
        run.metrics.write(record)
        _log.info("evaluation", extra={"fields": {name: record[name] for name in record if name != "val_sources"}})
    return progress


def _keep_best(run: Run, progress: Progress) -> Progress:
    # The base itself is there, and the last model is written anyway
    is_kept = progress.step in (0, run.training.plan.num_steps)
    return replace(
        progress,
        best_loss=progress.last_loss,
        best_bpb=progress.last_bpb,
        best_step=progress.step,
        best_key="" if is_kept else run.saver.save_best(run.learner.module.model, progress.step),
        num_worse=0,
    )


def _save(run: Run, progress: Progress) -> None:
    if run.world.is_first:
        run.metrics.flush()  # first: a state must not be newer than the lines up to it
    run.saver.save(progress)


def _save_and_stop(run: Run, progress: Progress, signum: int) -> NoReturn:
    _save(run, progress)
    run.saver.finish()
    if run.world.is_first:
        run.metrics.close()
    raise Interrupted(signum)


def _is_stopped_early(settings: TrainSettings, progress: Progress) -> bool:
    return bool(settings.early_stop) and progress.num_worse >= settings.early_stop
