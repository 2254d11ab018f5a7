"""`nanosft serve`: load the models, listen, and drain when told to stop."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import uvicorn

from nanosft.errors import ConfigError, Interrupted
from nanosft.nanochat import load_checkpoint, resolve_device
from nanosft.progress import console
from nanosft.serve.app import make_app
from nanosft.serve.logs import soften_client_faults
from nanosft.serve.metrics import Metrics
from nanosft.serve.scheduler import Scheduler
from nanosft.serve.server import Server
from nanosft.settings.serve import ServeSettings
from nanosft.signals import calling, raising


def run_serve(settings: ServeSettings) -> None:
    """Serve until SIGTERM or SIGINT; then finish what runs within the grace.

    Raises:
        DataError: There is no checkpoint under a URI.
        ConfigError: There is no such device, or the port is taken.
        Interrupted: A signal has ended it.
    """
    soften_client_faults()
    metrics = Metrics()
    with ExitStack() as stack:
        with raising("nothing was served yet"):
            listener = stack.enter_context(_listen(settings))
            server = Server(load_schedulers(settings, metrics), settings, metrics)
        config = uvicorn.Config(
            make_app(server),
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=int(settings.grace_s),
            timeout_keep_alive=30,
            h11_max_incomplete_event_size=1 << 16,
            lifespan="on",
        )
        runner = _Runner(config, server)
        asyncio.run(runner.serve(sockets=[listener]))
    if runner.signum is not None:
        raise Interrupted(runner.signum, "the answers that ran are finished, or were cut at the end of the grace")


class _Runner(uvicorn.Server):
    """uvicorn, with the first signal beginning to drain and the second one ending at once."""

    def __init__(self, config: uvicorn.Config, server: Server) -> None:
        super().__init__(config)
        self._server = server
        self.signum: int | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say where: from here on a signal lets answers finish."""
        await super().startup(sockets)
        for listener in sockets or []:
            host, port = listener.getsockname()[:2]
            place = f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
            names = ", ".join(self._server.schedulers)
            console.print(f"serving {names} on {place} (API: {place}v1)", markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Keep the signal for the exit code, where uvicorn would raise it again."""
        with calling(asyncio.get_running_loop(), self._drain):
            yield

    def _drain(self, signum: int) -> None:
        if self.should_exit:
            self.force_exit = True
        self.should_exit = self._server.draining = True
        self.signum = self.signum or signum


def _listen(settings: ServeSettings) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as exc:
        raise ConfigError(f"cannot listen on {settings.host} port {settings.port}: {exc.strerror}") from exc
    return listener


def load_schedulers(settings: ServeSettings, metrics: Metrics) -> dict[str, Scheduler]:
    """A scheduler a model, by name; none has begun to work.

    Raises:
        DataError: There is no checkpoint under a URI.
        ConfigError: There is no such device.
    """
    device = resolve_device(settings.device)
    return {
        name: Scheduler(
            load_checkpoint(uri, step=settings.step, device=device),
            max_batch=settings.max_batch,
            max_queue=settings.max_queue,
            prefill_tokens=settings.prefill_tokens,
            on_first=metrics.first_token.labels(name).observe,
        )
        for name, uri in settings.models.items()
    }
