"""A server of `nanosft serve` in a thread of this process, on a free port of loopback."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from nanosft.serve.app import make_app
from nanosft.serve.metrics import Metrics
from nanosft.serve.server import Server
from nanosft.serve.stage import load_schedulers
from nanosft.settings.serve import ServeSettings

MODEL = str(Path(__file__).parent / "golden" / "nanochat" / "g5")
START_TIMEOUT_S = 60.0


class _Runner(uvicorn.Server):
    def capture_signals(self) -> Any:
        return nullcontext()


@dataclass
class Serving:
    url: str
    server: Server

    @property
    def api(self) -> str:
        return f"{self.url}/v1"


@contextmanager
def serving(**options: Any) -> Iterator[Serving]:
    settings = ServeSettings(**{"model": (f"small={MODEL}",), "device": "cpu", **options})
    metrics = Metrics()
    server = Server(load_schedulers(settings, metrics), settings, metrics)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        runner = _Runner(uvicorn.Config(make_app(server), log_config=None, timeout_graceful_shutdown=5))
        thread = threading.Thread(target=runner.run, kwargs={"sockets": [listener]})
        thread.start()
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not runner.started:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        try:
            yield Serving(f"http://127.0.0.1:{listener.getsockname()[1]}", server)
        finally:
            runner.should_exit = True
            thread.join(START_TIMEOUT_S)
            assert not thread.is_alive()
