"""A pod resumes a job: what the API server is asked, and what becomes of its refusals."""

import ssl
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import orjson
import pytest

from nanosft.errors import ConfigError, NanosftError, StoreError
from nanosft.kubernetes import resume
from tests.servers import write_certificate

Requests = list[tuple[str, dict[str, str], Any]]


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("account")
    write_certificate(folder / "ca.crt", folder / "key.pem")
    (folder / "namespace").write_text("team")
    (folder / "token").write_text("of-the-pod\n")
    return folder


@pytest.fixture
def requests(account: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Requests]:
    """An API server whose answer a job's name may decide."""
    seen: Requests = []
    codes = {"missing": 404, "forbidden": 403, "stumbles": 500, "elsewhere": 302}

    class Handler(BaseHTTPRequestHandler):
        def do_PATCH(self) -> None:
            body = orjson.loads(self.rfile.read(int(self.headers["content-length"])))
            seen.append((self.path, dict(self.headers), body))
            self.send_response(codes.get(self.path.rpartition("/")[2], 200))
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(account / "ca.crt", account / "key.pem")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("KUBERNETES_SERVICE_ACCOUNT", str(account))
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.server_port))
        yield seen
        server.shutdown()


@pytest.mark.parametrize(
    ("target", "path", "body"),
    [
        ("jobs/x", "/apis/batch/v1/namespaces/team/jobs/x", {"spec": {"suspend": False}}),
        (
            "pytorchjobs/x",
            "/apis/kubeflow.org/v1/namespaces/team/pytorchjobs/x",
            {"spec": {"runPolicy": {"suspend": False}}},
        ),
        (
            "trainjobs/x",
            "/apis/trainer.kubeflow.org/v1alpha1/namespaces/team/trainjobs/x",
            {"spec": {"suspend": False}},
        ),
    ],
)
def test_a_job_is_resumed_by_one_patch(target: str, path: str, body: Any, requests: Requests) -> None:
    resume(target)
    ((asked, headers, sent),) = requests
    assert (asked, sent) == (path, body)
    assert headers["Authorization"] == "Bearer of-the-pod"
    assert headers["Content-Type"] == "application/merge-patch+json"


def test_a_queue_is_kueues_to_resume_from(requests: Requests) -> None:
    resume("trainjobs/x", queue="gpu")
    assert requests[0][2] == {"metadata": {"labels": {"kueue.x-k8s.io/queue-name": "gpu"}}}


@pytest.mark.parametrize(
    ("name", "error"),
    [("missing", ConfigError), ("forbidden", ConfigError), ("stumbles", StoreError), ("elsewhere", StoreError)],
)
def test_a_refusal_is_told(name: str, error: type[NanosftError], requests: Requests) -> None:
    with pytest.raises(error, match=f"--resume jobs/{name}: the Kubernetes API answers") as raised:
        resume(f"jobs/{name}")
    assert len(requests) == 1, "no redirect is followed"
    assert "of-the-pod" not in str(raised.value)


def test_outside_a_pod_there_is_nothing_to_resume(
    account: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_ACCOUNT", str(tmp_path))
    with pytest.raises(ConfigError, match="no pod with a service account"):
        resume("jobs/x")
    monkeypatch.setenv("KUBERNETES_SERVICE_ACCOUNT", str(account))
    with pytest.raises(ConfigError, match="KUBERNETES_SERVICE_HOST"):
        resume("jobs/x")


def test_a_server_that_is_not_there_may_come_back(account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_ACCOUNT", str(account))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    with pytest.raises(StoreError, match="does not answer"):
        resume("jobs/x")
