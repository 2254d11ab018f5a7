"""The cluster: takes manifests, runs their jobs, and lets a test look at pods and kill them."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from tests.cluster.controllers import Controller, Job, PyTorchJob
from tests.cluster.manifests import Manifest
from tests.cluster.pod import Objects, Pod
from tests.servers import find_free_ports

TICK_S = 0.05


class Cluster:
    """Runs what is applied, while `wait` or `run_until` is called. Leaving its context kills every pod.

    Args:
        folder: Where pods' volumes and logs go.
        secrets: Name to keys and values.
    """

    def __init__(self, folder: Path, secrets: dict[str, dict[str, str]]) -> None:
        self.folder = folder
        self._objects = Objects(secrets=secrets)
        self.jobs: dict[str, Controller] = {}

    def apply(self, manifests: Sequence[Manifest]) -> None:
        """Take ConfigMaps over, start Jobs and PyTorchJobs that are not there yet; other kinds change nothing here."""
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

    def _make_pod(self, name: str, spec: dict[str, Any], env: dict[str, str], fields: dict[str, str]) -> Pod:
        pod = Pod(name, spec, self.folder / name, self._objects, env, fields)
        pod.start()
        return pod
