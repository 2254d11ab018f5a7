"""The Kubernetes API, as a pod with a role of its own asks it: resume a suspended job, or put it into a queue."""

import os
import re
import ssl
import urllib.error
import urllib.request
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import orjson

from nanosft.errors import ConfigError, StoreError

_ACCOUNT_VARIABLE: Final = "KUBERNETES_SERVICE_ACCOUNT"
"""Where a pod finds its API server's certificate, its namespace and its token, when they are projected elsewhere."""
_ACCOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
RESUMABLE: Final = re.compile(r"(jobs|pytorchjobs|trainjobs)/([a-z0-9]([a-z0-9.-]*[a-z0-9])?)")

_TIMEOUT_S: Final = 30.0
_APIS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "jobs": ("batch/v1", {"spec": {"suspend": False}}),
    "pytorchjobs": ("kubeflow.org/v1", {"spec": {"runPolicy": {"suspend": False}}}),
    "trainjobs": ("trainer.kubeflow.org/v1alpha1", {"spec": {"suspend": False}}),
}


def make_opener(ca_file: str | None) -> urllib.request.OpenerDirector:
    """An opener of HTTP and HTTPS that follows no redirect: a token is for the named host alone.

    Args:
        ca_file: Certificate that the host's is checked with; None takes the system's.
    """
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca_file)),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
    ):
        opener.add_handler(handler)
    return opener


def resume(target: str, *, queue: str | None = None) -> None:
    """Let a suspended job begin.

    Args:
        target: `jobs/NAME`, `pytorchjobs/NAME` or `trainjobs/NAME`, in the pod's own namespace.
        queue: A LocalQueue of Kueue to put it into instead: Kueue resumes it when there is room.

    Raises:
        ConfigError: This is no pod with an account, or the account may not, or there is no such job.
        StoreError: The API server does not answer (exit code 75).
    """
    kind, _, name = target.partition("/")
    api, change = _APIS[kind]
    body = {"metadata": {"labels": {"kueue.x-k8s.io/queue-name": queue}}} if queue else change
    account = Path(os.environ.get(_ACCOUNT_VARIABLE, _ACCOUNT))
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    try:
        namespace, token = ((account / item).read_text(encoding="utf-8").strip() for item in ("namespace", "token"))
        opener = make_opener(str(account / "ca.crt"))
    except OSError as exc:
        raise ConfigError(f"--resume {target}: this is no pod with a service account's token: {exc}") from exc
    if not host:
        raise ConfigError(f"--resume {target}: KUBERNETES_SERVICE_HOST is not set: this is no pod")
    address = f"[{host}]" if ":" in host else host
    request = urllib.request.Request(
        f"https://{address}:{port}/apis/{api}/namespaces/{namespace}/{kind}/{name}",
        data=orjson.dumps(body),
        method="PATCH",
        headers={"Content-Type": "application/merge-patch+json", "Authorization": f"Bearer {token}"},
    )
    try:
        opener.open(request, timeout=_TIMEOUT_S).close()
    except urllib.error.HTTPError as exc:
        with exc:
            text = f"--resume {target}: the Kubernetes API answers {exc.code} {exc.reason}"
        if exc.code in (HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY):
            raise ConfigError(f"{text}: see to the job and to the Role of this pod's account") from exc
        raise StoreError(text) from exc
    except OSError as exc:
        raise StoreError(f"--resume {target}: the Kubernetes API does not answer: {exc}") from exc
