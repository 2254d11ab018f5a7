"""What a training loop works with, made by the stage before the first step."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from nanosft.distributed import World
from nanosft.nanochat import Checkpoint
from nanosft.settings.train import TrainSettings
from nanosft.train.batch import TrainingSet
from nanosft.train.evaluate import Prompts, ValidationSet
from nanosft.train.metrics import MetricsLog, Throughput
from nanosft.train.optim import MuonAdamW, Schedule
from nanosft.train.state import StateSaver
from nanosft.train.step import LossModule

AskModel = Callable[[Checkpoint, World], Mapping[str, float]]
"""Asks a model in training something, on all ranks at once; the figures go to the metrics."""


@dataclass(frozen=True)
class Learner:
    """What is trained.

    Attributes:
        module: The model and its loss.
        replica: What is run for training: `module`, or its replication over the ranks.
        optimizer: Its groups hold the module's parameters.
        schedule: Scales the learning rates.
    """

    module: LossModule
    replica: nn.Module
    optimizer: MuonAdamW
    schedule: Schedule


@dataclass(frozen=True)
class Run:
    """All that the loop works with, made by the stage.

    Attributes:
        settings: How often to save, evaluate and report.
        world: This rank among all.
        learner: What is trained.
        training: What it is trained on, step by step.
        val: What it is evaluated on, or None where there is no validation data.
        prompts: What it answers at each evaluation.
        ask: Gives more figures of it at each evaluation, or None.
        saver: Keeps states and the best model.
        metrics: What is reported goes there.
        throughput: Turns the time of a step into rates.
    """

    settings: TrainSettings
    world: World
    learner: Learner
    training: TrainingSet
    val: ValidationSet | None
    prompts: Prompts
    ask: Callable[[], Mapping[str, float]] | None
    saver: StateSaver
    metrics: MetricsLog
    throughput: Throughput
