"""What Prometheus is told at `/metrics`."""

from collections.abc import Callable, Mapping
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from nanosft.serve.scheduler import Scheduler


class Metrics:
    """Counters and gauges of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "nanosft_requests", "Requests by route and status.", ["route", "status"], registry=self.registry
        )
        self.prompt_tokens = Counter("nanosft_prompt_tokens", "Tokens read.", ["model"], registry=self.registry)
        self.completion_tokens = Counter(
            "nanosft_completion_tokens", "Tokens written.", ["model"], registry=self.registry
        )
        self.first_token = Histogram(
            "nanosft_time_to_first_token_seconds", "Seconds to the first token.", ["model"], registry=self.registry
        )
        self._running = Gauge("nanosft_answers_running", "Answers being written.", ["model"], registry=self.registry)
        self._waiting = Gauge("nanosft_answers_waiting", "Answers that wait.", ["model"], registry=self.registry)

    def watch(self, schedulers: Mapping[str, Scheduler]) -> None:
        """Show how many answers each model writes, and how many wait."""
        for name, scheduler in schedulers.items():
            self._running.labels(name).set_function(partial(_as_float, scheduler.count_running))
            self._waiting.labels(name).set_function(partial(_as_float, scheduler.count_waiting))

    def render(self) -> bytes:
        """Prometheus' text form."""
        return generate_latest(self.registry)


def _as_float(count: Callable[[], int]) -> float:
    return float(count())
