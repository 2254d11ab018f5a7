"""Where a run's numbers go besides `metrics.jsonl`: trackers, Kubeflow Trainer's status, OpenTelemetry.

Each has a thread and a queue of its own (`background`), so that none can stop or slow a run.

    trackers      TensorBoard, Weights & Biases, trackio
    kubeflow      percent, time left and metrics of a TrainJob, where its controller gives an endpoint
    telemetry     OpenTelemetry metrics, OTLP over HTTP, where the OTEL_ variables name an endpoint
"""

from nanosft.train.sinks.background import Sink
from nanosft.train.sinks.open import open_sinks

__all__ = ["Sink", "open_sinks"]
