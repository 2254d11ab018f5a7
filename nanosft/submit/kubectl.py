"""kubectl, and what else is started to look at a cluster or a registry: one place for processes and their errors."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from nanosft.errors import ConfigError
from nanosft.submit.objects import INSTANCE, JOB_KINDS, Object

_DELETED: Final = (
    *JOB_KINDS.values(),
    "trainingruntimes.trainer.kubeflow.org",
    "deployments.apps",
    "services",
    "poddisruptionbudgets.policy",
    "networkpolicies.networking.k8s.io",
    "rolebindings.rbac.authorization.k8s.io",
    "roles.rbac.authorization.k8s.io",
    "configmaps",
)
"""What a run consists of; ServiceAccounts and the namespace are all runs'."""
_SHOWN: Final = (*JOB_KINDS.values(), "deployments.apps", "pods")
_MAX_LOG_STREAMS: Final = 1000
_DIGEST_TOOLS: Final = (
    ("crane", ("digest",), ()),
    ("skopeo", ("inspect", "--format", "{{.Digest}}"), ("docker://",)),
    ("docker", ("buildx", "imagetools", "inspect", "--format", "{{.Manifest.Digest}}"), ()),
)


def run_kubectl(arguments: Sequence[str], text: str = "") -> str:
    """What kubectl writes.

    Raises:
        ConfigError: It is not there, or refuses.
    """
    return _run("kubectl", arguments, text)


def render(folder: str) -> str:
    """A directory's kustomization, rendered."""
    return run_kubectl(["kustomize", folder])


@dataclass(frozen=True, slots=True)
class RunInCluster:
    """A run's objects in a cluster, found by its label.

    Attributes:
        namespace: Where they are.
        name: The run's name.
        stages: The stages that are looked at; empty for all.
    """

    namespace: str
    name: str
    stages: tuple[str, ...] = ()

    def list_resources(self) -> set[str]:
        """Names of the cluster's API resources, such as `jobs.batch`."""
        return set(run_kubectl(["api-resources", "--output", "name"]).split())

    def find_jobs(self, resources: set[str]) -> list[Object]:
        """The jobs that are there."""
        kinds = ",".join(kind for kind in JOB_KINDS.values() if kind in resources)
        found: dict[str, Any] = json.loads(run_kubectl(["get", kinds, *self._selection, "--output", "json"]))
        return list(found["items"])

    def delete_job(self, kind: str, name: str) -> None:
        """Delete a job and wait until its pods are gone too."""
        where = ["--namespace", self.namespace]
        run_kubectl(
            ["delete", JOB_KINDS[kind], name, *where, "--cascade", "foreground", "--wait", "--ignore-not-found"]
        )

    def apply(self, text: str) -> str:
        """Apply manifests; returns what kubectl says of each."""
        return run_kubectl(["apply", "--namespace", self.namespace, "--filename", "-"], text)

    def describe(self) -> str:
        """Jobs, Deployments and pods, as kubectl shows them."""
        return run_kubectl(["get", self._known(_SHOWN), *self._selection])

    def delete(self) -> str:
        """Delete all objects of the run; returns what kubectl says of each."""
        return run_kubectl(["delete", self._known(_DELETED), *self._selection, "--ignore-not-found"])

    def show_logs(self, *, follow: bool) -> None:
        """Let kubectl write the logs of all containers to standard output.

        Raises:
            ConfigError: kubectl is not there, or refuses.
        """
        options = ["--all-containers", "--ignore-errors", "--prefix", "--max-log-requests", str(_MAX_LOG_STREAMS)]
        command = ["logs", *self._selection, *options, "--tail", "-1", *(["--follow"] if follow else [])]
        sys.stdout.flush()
        if subprocess.run([_find("kubectl"), *command], check=False).returncode != 0:  # noqa: S603
            raise ConfigError("kubectl logs: see what it says above")

    @property
    def _selection(self) -> list[str]:
        selector = f"{INSTANCE}={self.name}"
        if self.stages:
            selector += f",app.kubernetes.io/component in ({', '.join(self.stages)})"
        return ["--namespace", self.namespace, "--selector", selector]

    def _known(self, resources: Sequence[str]) -> str:
        known = self.list_resources()
        return ",".join(resource for resource in resources if resource in known)


def find_digest(image: str) -> str:
    """The digest that a registry has for an image's tag, `sha256:…`.

    Raises:
        ConfigError: No tool is there that can ask, or the registry has no such image.
    """
    for tool, arguments, prefix in _DIGEST_TOOLS:
        if shutil.which(tool):
            digest = _run(tool, [*arguments, "".join((*prefix, image))]).strip()
            if not digest.startswith("sha256:"):
                raise ConfigError(f"--pin: {tool} gives no digest of {image}: {digest[:80]!r}")
            return digest
    raise ConfigError("--pin: none of crane, skopeo and docker is on the PATH to ask the registry with")


def _find(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise ConfigError(f"{program} is not on the PATH: install it, or set PATH; submit renders and applies with it")
    return found


def _run(program: str, arguments: Sequence[str], text: str = "") -> str:
    command = [_find(program), *arguments]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        raise ConfigError(f"{program} {arguments[0]}: {' '.join(done.stderr.split()) or f'exit {done.returncode}'}")
    return done.stdout
