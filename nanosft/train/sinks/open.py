"""The sinks that settings and variables ask for."""

import hashlib
import importlib
import os
from collections.abc import Mapping
from typing import Any

from nanosft.errors import ConfigError
from nanosft.settings.train import TrainSettings
from nanosft.train.sinks.background import BackgroundSink, Sink
from nanosft.train.sinks.kubeflow import URL_VARIABLE, KubeflowStatus
from nanosft.train.sinks.telemetry import Telemetry, is_asked_for
from nanosft.train.sinks.trackers import TensorBoard, TrackedRun


def open_sinks(settings: TrainSettings, *, run: str, num_steps: int, config: Mapping[str, Any]) -> tuple[Sink, ...]:
    """What gets every number of a run as well.

    Args:
        settings: They name trackers.
        run: Name of the run.
        num_steps: Steps of the whole run.
        config: Settings that trackers keep with it.

    Raises:
        ConfigError: A tracker's package is not installed.
    """
    sinks: list[Sink] = []
    if directory := settings.tensorboard:
        board = _import("torch.utils.tensorboard", option="--tensorboard", extra="tensorboard")
        sinks.append(BackgroundSink("tensorboard", lambda: TensorBoard(board.SummaryWriter(directory))))
    if project := settings.wandb:
        wandb = _import("wandb", option="--wandb", extra="wandb")
        named = {"project": project, "name": run, "id": _run_id(run), "config": dict(config), "resume": "allow"}
        sinks.append(BackgroundSink("wandb", lambda: TrackedRun(wandb.init(**named))))
    if tracked := settings.trackio:
        trackio = _import("trackio", option="--trackio", extra="trackio")
        chosen = {"project": tracked, "name": run, "config": dict(config), "resume": "allow"}
        sinks.append(BackgroundSink("trackio", lambda: TrackedRun(trackio.init(**chosen))))
    if os.environ.get(URL_VARIABLE):
        sinks.append(BackgroundSink("kubeflow", lambda: KubeflowStatus(num_steps)))
    if is_asked_for():
        sinks.append(BackgroundSink("opentelemetry", lambda: Telemetry(run)))
    return tuple(sinks)


def _run_id(run: str) -> str:
    """The same for every start of a run, so that a resumed one goes on in its own curves."""
    return hashlib.sha256(run.encode()).hexdigest()[:16]


def _import(name: str, *, option: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as exc:
        raise ConfigError(f"{option}: {exc.name} is not installed: pip install 'nanosft[{extra}]'") from exc
