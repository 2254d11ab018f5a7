"""Sinks tell of a run elsewhere; servers that hang, refuse or redirect neither stop nor slow it."""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType

import pytest

from nanosft.errors import ConfigError
from nanosft.settings.train import TrainSettings
from nanosft.train.sinks import open_sinks
from nanosft.train.sinks.background import BackgroundSink
from nanosft.train.sinks.kubeflow import KubeflowStatus


class Server:
    """An HTTP server on loopback that keeps what it gets, and answers with a status, or not before it ends."""

    def __init__(self, status=200, *, location=None, hangs=False):
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.is_over = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.got.append((self.path, dict(self.headers), body))
                if hangs:
                    outer.is_over.wait(20)
                self.send_response(status)
                if location:
                    self.send_header("Location", location)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        Handler.do_GET = Handler.do_POST  # type: ignore[attr-defined]  # what a followed redirect would ask with
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.is_over.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in ("KUBEFLOW_TRAINER_SERVER_URL", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def token(tmp_path, monkeypatch):
    path = tmp_path / "token"
    path.write_text("first\n")
    monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_TOKEN", str(path))
    return path


def open_all(num_steps=200, **settings):
    made = TrainSettings(base="base", data="data", out="out", **settings)
    return open_sinks(made, run="file:///run", num_steps=num_steps, config={"seed": 0})


def test_nothing_is_opened_that_nobody_asked_for():
    assert open_all() == ()


def test_kubeflow_gets_percent_time_left_and_metrics_with_the_token_of_the_moment(monkeypatch, token):
    with Server() as server:
        monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_URL", f"{server.url}/apis/trainjobs/mine/status")
        (sink,) = open_all()
        sink.write(40, {"loss": 0.5, "val_loss": 1.25, "grad_norm/lm_head": 2.0})
        while not server.got:
            time.sleep(0.01)
        token.write_text("second")
        for step in range(41, 61):
            sink.write(step, {"loss": 0.25})
        sink.close()
    assert [headers["Authorization"] for _, headers, _ in server.got] == ["Bearer first", "Bearer second"]
    assert server.got[0][0] == "/apis/trainjobs/mine/status"
    first, last = (json.loads(body)["trainerStatus"] for _, _, body in server.got)
    assert first["progressPercentage"] == 20
    assert last["progressPercentage"] == 30
    assert last["metrics"] == [{"name": "loss", "value": "0.25"}, {"name": "val_loss", "value": "1.25"}]
    assert last["estimatedRemainingSeconds"] >= 0
    assert last["lastUpdatedTime"].endswith("+00:00")


@pytest.mark.parametrize("status", [403, 302])
def test_a_server_that_refuses_or_redirects_is_told_of_once_and_gets_no_token_elsewhere(
    monkeypatch, token, caplog, status
):
    with Server() as other, Server(status, location=f"{other.url}/") as server:
        monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_URL", server.url)
        (sink,) = open_all()
        sink.write(1, {"loss": 0.5})
        sink.close()
    assert other.got == []
    assert [record.getMessage() for record in caplog.records if f"HTTP Error {status}" in record.getMessage()]
    assert "2 errors; the run and its metrics.jsonl are whole" in caplog.text
    assert token.read_text().strip() not in caplog.text


@pytest.mark.usefixtures("token")
def test_a_server_that_hangs_slows_nothing(monkeypatch, caplog):
    with Server(hangs=True) as server:
        monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_URL", server.url)
        sink = BackgroundSink("kubeflow", lambda: KubeflowStatus(100), close_timeout_s=0.2)
        start_s = time.monotonic()
        for step in range(5000):
            sink.write(step, {"loss": 0.5})
        sink.close()
        assert time.monotonic() - start_s < 3
    assert "left behind" in caplog.text
    assert "records dropped" in caplog.text


def test_a_token_that_cannot_be_read_is_an_error_that_stops_nothing(monkeypatch, token, caplog):
    with Server() as server:
        token.unlink()
        monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_URL", server.url)
        (sink,) = open_all()
        sink.write(1, {"loss": 0.5})
        sink.close()
    assert server.got == []
    assert "kubeflow: " in caplog.text


def test_a_tracker_that_cannot_be_made_stops_nothing(caplog):
    def fail():
        raise RuntimeError("no such project")

    sink = BackgroundSink("wandb", fail)
    sink.write(1, {"loss": 0.5})
    sink.close()
    assert "wandb: no such project; training goes on" in caplog.text


def test_opentelemetry_sends_gauges_over_http(monkeypatch):
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    with Server() as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=nanosft")
        (sink,) = open_all()
        sink.write(3, {"loss": 0.5, "grad_norm/lm_head": 2.0})
        sink.close()
        monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
        assert open_all() == ()
    path, headers, body = server.got[-1]
    assert (path, headers["x-team"]) == ("/v1/metrics", "nanosft")
    assert all(name in body for name in (b"nanosft.train.loss", b"nanosft.train.grad_norm.lm_head", b"file:///run"))


def test_trackio_and_wandb_are_given_the_numbers_of_a_step(monkeypatch):
    calls: list[object] = []

    def init(**named):
        calls.append(named["project"])
        return Run()

    class Run:
        def log(self, values, step):
            calls.append((step, values))

        def finish(self):
            calls.append("finished")

    for name in ("trackio", "wandb"):
        module = ModuleType(name)
        vars(module)["init"] = init
        monkeypatch.setitem(sys.modules, name, module)
        (sink,) = open_all(**{name: "mine"})
        sink.write(1, {"loss": 0.5})
        sink.close()
        assert calls == ["mine", (1, {"loss": 0.5}), "finished"]
        calls.clear()


def test_tensorboard_writes_event_files(tmp_path):
    pytest.importorskip("tensorboard")
    (sink,) = open_all(tensorboard=str(tmp_path))
    sink.write(1, {"loss": 0.5})
    sink.close()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("events.")]


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_missing_extra_is_named(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=rf"--{name}: .*nanosft\[{name}\]"):
        open_all(**{name: "project"})
