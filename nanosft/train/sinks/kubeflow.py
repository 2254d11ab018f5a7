"""Progress as Kubeflow Trainer takes it: a POST to the status endpoint that its controller names in variables.

The protocol was read from kubeflow/trainer (docs/proposals/2779-trainjob-progress and pkg/statusserver, v2.2): the
variables hold the URL, the path of a CA certificate and the path of a token that is replaced from time to time; the
body is `{"trainerStatus": {"progressPercentage", "estimatedRemainingSeconds", "metrics": [{"name", "value"}],
"lastUpdatedTime"}}`, values are text, and more than one request in five seconds is too many.
"""

import os
import time
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import orjson

from nanosft.errors import ConfigError
from nanosft.kubernetes import make_opener

URL_VARIABLE: Final = "KUBEFLOW_TRAINER_SERVER_URL"
_CA_VARIABLE: Final = "KUBEFLOW_TRAINER_SERVER_CA_CERT"
_TOKEN_VARIABLE: Final = "KUBEFLOW_TRAINER_SERVER_TOKEN"  # noqa: S105 - a variable's name
_INTERVAL_S: Final = 5.0
_TIMEOUT_S: Final = 5.0
_MAX_METRICS: Final = 64


class KubeflowStatus:
    """Posts percent, seconds left and the newest value of each number.

    Args:
        num_steps: Steps of the whole run.
        interval_s: Least seconds between two requests, but for the last.
        timeout_s: Of a request.
    """

    def __init__(self, num_steps: int, *, interval_s: float = _INTERVAL_S, timeout_s: float = _TIMEOUT_S) -> None:
        self._num_steps = num_steps
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._url = os.environ[URL_VARIABLE]
        if not self._url.startswith(("https://", "http://")):
            raise ConfigError(f"{URL_VARIABLE} is no URL of HTTP")
        self._opener = make_opener(os.environ.get(_CA_VARIABLE) or None)
        self._values: dict[str, float] = {}
        self._first: tuple[int, float] | None = None
        self._step = 0
        self._is_posted = True
        self._posted_s = float("-inf")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers, and post them if the last request is long enough ago."""
        now_s = time.monotonic()
        self._first = self._first or (step, now_s)
        self._step = step
        self._values |= {name: value for name, value in values.items() if "/" not in name}
        self._is_posted = False
        if now_s - self._posted_s >= self._interval_s:
            self._post()

    def close(self) -> None:
        """Post what was not yet."""
        if not self._is_posted:
            self._post()

    def _post(self) -> None:
        self._posted_s = time.monotonic()
        headers = {"Content-Type": "application/json"}
        if path := os.environ.get(_TOKEN_VARIABLE):
            headers["Authorization"] = f"Bearer {Path(path).read_text(encoding='utf-8').strip()}"
        request = urllib.request.Request(self._url, orjson.dumps({"trainerStatus": self._describe()}), headers)  # noqa: S310 - its scheme is checked above
        with self._opener.open(request, timeout=self._timeout_s) as response:
            response.read(1 << 16)
        self._is_posted = True

    def _describe(self) -> dict[str, Any]:
        status: dict[str, Any] = {
            "progressPercentage": min(100, 100 * self._step // max(1, self._num_steps)),
            "metrics": [{"name": name, "value": f"{value:g}"} for name, value in self._values.items()][:_MAX_METRICS],
            "lastUpdatedTime": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        first_step, first_s = self._first or (self._step, 0.0)
        if self._step > first_step:
            step_s = (time.monotonic() - first_s) / (self._step - first_step)
            status["estimatedRemainingSeconds"] = round(step_s * (self._num_steps - self._step))
        return status
