"""The cluster: takes manifests, runs their jobs, and lets a test look at pods and kill them."""

import ssl
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Self

import orjson

from tests.cluster.controllers import Controller, Deployment, Job, PyTorchJob, TrainJob
from tests.cluster.manifests import Manifest
from tests.cluster.pod import Objects, Pod
from tests.servers import find_free_ports, write_certificate

TICK_S = 0.05


class Cluster:
    """Runs what is applied, while `wait` or `run_until` is called. Leaving its context kills every pod.

    Args:
        folder: Where pods' volumes and logs go.
        secrets: Name to keys and values.
    """

    def __init__(self, folder: Path, secrets: dict[str, dict[str, str]]) -> None:
        self.folder = folder
        self.jobs: dict[str, Controller] = {}
        self._api = Api(folder, self.jobs)
        self._objects = Objects(secrets=secrets, api_env=self._api.env)

    def apply(self, manifests: Sequence[Manifest]) -> None:
        """Take ConfigMaps over, start jobs and Deployments that are not there yet; other kinds change nothing here."""
        for item in manifests:
            name = item["metadata"]["name"]
            if item["kind"] == "ConfigMap":
                self._objects.config_maps[name] = item["data"]
        for item in manifests:
            name = item["metadata"]["name"]
            if item["kind"] == "Job" and name not in self.jobs:
                self.jobs[name] = Job(name, item["spec"])
            elif item["kind"] == "PyTorchJob" and name not in self.jobs:
                self.jobs[name] = PyTorchJob(name, item["spec"], port=find_free_ports(1)[0])
            elif item["kind"] == "TrainJob" and name not in self.jobs:
                runtime = item["spec"]["runtimeRef"]["name"]
                (spec,) = [other["spec"] for other in manifests if _is_named(other, "TrainingRuntime", runtime)]
                self.jobs[name] = TrainJob(name, item["spec"], spec, port=find_free_ports(1)[0])
            elif item["kind"] == "Deployment" and name not in self.jobs:
                self.jobs[name] = Deployment(name, item["spec"])

    def job(self, name: str) -> Job:
        """A Job by name."""
        found = self.jobs[name]
        assert isinstance(found, Job)
        return found

    def pytorch_job(self, name: str) -> PyTorchJob:
        """A PyTorchJob by name."""
        found = self.jobs[name]
        assert isinstance(found, PyTorchJob)
        return found

    def train_job(self, name: str) -> TrainJob:
        """A TrainJob by name."""
        found = self.jobs[name]
        assert isinstance(found, TrainJob)
        return found

    def wait(self, *, timeout_s: float) -> dict[str, str]:
        """Run until every job is done; returns their outcomes."""
        self.run_until(lambda: all(job.outcome for job in self.jobs.values()), timeout_s=timeout_s)
        return {name: job.outcome for name, job in self.jobs.items()}

    def run_until(self, condition: Callable[[], Any], *, timeout_s: float) -> None:
        """Run until the condition holds; fails with the pods' logs when it does not in time."""
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            for job in self.jobs.values():
                job.reconcile(self._make_pod)
                for pod in job.pods:
                    pod.poll()
            if time.monotonic() > deadline_s:
                raise AssertionError(f"nothing came of it in {timeout_s} s\n{self.report()}")
            time.sleep(TICK_S)

    def report(self) -> str:
        """Jobs, pods, and the ends of their logs, for a failing test's message."""
        lines = []
        for name, job in self.jobs.items():
            lines.append(f"=== {name}: {job.outcome or 'running'}")
            for pod in job.pods:
                lines.append(f"--- {pod.name}: {pod.container}, exit code {pod.exit_code}")
                lines += pod.log(pod.container).splitlines()[-15:]
        return "\n".join(lines)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for job in self.jobs.values():
            for pod in job.pods:
                pod.close()
        self._api.close()

    def _make_pod(self, name: str, spec: dict[str, Any], env: dict[str, str], fields: dict[str, str]) -> Pod:
        pod = Pod(name, spec, self.folder / name, self._objects, env, fields)
        pod.start()
        return pod


class Api:
    """The API server, as far as a pod's own account asks it: a PATCH that resumes a job.

    Args:
        folder: Its certificate and the accounts' token go there.
        jobs: What can be resumed, by name.
    """

    def __init__(self, folder: Path, jobs: dict[str, Controller]) -> None:
        account = folder / "account"
        account.mkdir(parents=True)
        write_certificate(account / "ca.crt", folder / "api-key.pem")
        (account / "namespace").write_text("nanosft")
        (account / "token").write_text("token-of-the-account")

        class Handler(BaseHTTPRequestHandler):
            def do_PATCH(self) -> None:
                body = orjson.loads(self.rfile.read(int(self.headers["content-length"])))
                job = jobs.get(self.path.rpartition("/")[2])
                is_allowed = self.headers["authorization"] == "Bearer token-of-the-account"
                is_resumed = b"false" in orjson.dumps(body["spec"])
                if job is not None and is_allowed and is_resumed:
                    job.resume()
                self.send_response(200 if job is not None and is_allowed else 404)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(account / "ca.crt", folder / "api-key.pem")
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.env = {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(self._server.server_port),
            "KUBERNETES_SERVICE_ACCOUNT": str(account),
        }

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _is_named(item: Manifest, kind: str, name: str) -> bool:
    return bool(item["kind"] == kind and item["metadata"]["name"] == name)
