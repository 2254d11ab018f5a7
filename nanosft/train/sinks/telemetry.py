"""OpenTelemetry metrics, OTLP over HTTP: where to, with what headers and how often is what the OTEL_ variables say.

A gauge `nanosft.train.<name>` for each number, with the step as another.
"""

import importlib
import os
from collections.abc import Mapping
from typing import Any, Final

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_SHUTDOWN_MS: Final = 5000


def is_asked_for() -> bool:
    """Whether the variables name an endpoint for metrics, and do not switch them off."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    return any(map(os.environ.get, _ENDPOINTS)) and os.environ.get("OTEL_METRICS_EXPORTER", "otlp") == "otlp"


class Telemetry:
    """Gauges that OpenTelemetry's SDK exports from a thread of its own.

    Args:
        run: The run's URI, an attribute of all that is sent.

    Raises:
        ImportError: The packages of the extra are not installed.
    """

    def __init__(self, run: str) -> None:
        metrics = importlib.import_module("opentelemetry.sdk.metrics")
        export = importlib.import_module("opentelemetry.sdk.metrics.export")
        resources = importlib.import_module("opentelemetry.sdk.resources")
        exporter = importlib.import_module("opentelemetry.exporter.otlp.proto.http.metric_exporter")
        name = os.environ.get("OTEL_SERVICE_NAME") or "nanosft"
        self._provider: Any = metrics.MeterProvider(
            metric_readers=[export.PeriodicExportingMetricReader(exporter.OTLPMetricExporter())],
            resource=resources.Resource.create({"service.name": name, "nanosft.run": run}),
            shutdown_on_exit=False,  # `close` does it, within a time-out
        )
        self._meter: Any = self._provider.get_meter("nanosft.train")
        self._gauges: dict[str, Any] = {}

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Set the gauges; the SDK sends them every OTEL_METRIC_EXPORT_INTERVAL milliseconds."""
        for name, value in {"step": step, **values}.items():
            if name not in self._gauges:
                self._gauges[name] = self._meter.create_gauge(f"nanosft.train.{name.replace('/', '.')}")
            self._gauges[name].set(value)

    def close(self) -> None:
        """Send them once more."""
        self._provider.shutdown(timeout_millis=_SHUTDOWN_MS)
