"""Where a run stands, and what its validation losses say about it. Pure and torch-free."""

from dataclasses import dataclass

from nanosft.settings.train import TrainSettings


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands.

    Attributes:
        step: Finished steps.
        num_supervised: Supervised tokens trained so far.
        elapsed_s: Seconds spent in steps so far, over all attempts.
        best_loss: Lowest validation loss so far, or None.
        best_bpb: Its bits per byte.
        best_step: Step of it.
        best_key: Object that holds the model of it; empty for the base itself and for the last model.
        num_worse: Evaluations since.
        last_loss: Validation loss of the newest evaluation, or None.
        last_bpb: Its bits per byte.
        evaluated_step: Step of the newest evaluation; -1 before the first.
        dtype: What the run computes in, by name; empty in states that did not say it yet.
        device_rows: Most rows of a micro-batch, where they were measured; else 0.
    """

    step: int = 0
    num_supervised: int = 0
    elapsed_s: float = 0.0
    best_loss: float | None = None
    best_bpb: float | None = None
    best_step: int = 0
    best_key: str = ""
    num_worse: int = 0
    last_loss: float | None = None
    last_bpb: float | None = None
    evaluated_step: int = -1
    dtype: str = ""
    device_rows: int = 0


def describe_rise(settings: TrainSettings, progress: Progress) -> str | None:
    """What to do about a validation loss that has risen since its best, with the figures; None where it has not."""
    best, last = progress.best_loss, progress.last_loss
    if best is None or last is None or last <= best:
        return None
    passes = f"--epochs less than {settings.epochs}" if settings.epochs > 1 else "fewer steps (--max-steps)"
    return (
        f"validation loss was {best:.4f} at step {progress.best_step}, at step {progress.evaluated_step} it is "
        f"{last:.4f}: the model begins to learn its data by heart; use {passes}, --init-lr-frac lower than "
        f"{settings.init_lr_frac:g}, or --early-stop"
    )
