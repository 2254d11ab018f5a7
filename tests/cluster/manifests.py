"""Manifests: rendered by kubectl, read, and looked up by kind and name."""

import functools
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

K8S = Path(__file__).parents[2] / "k8s"
Manifest = dict[str, Any]


def render(folder: Path) -> list[Manifest]:
    """The objects of a kustomization, as `kubectl kustomize` renders them; skips where kubectl is not there."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not on this machine: no manifest is rendered")
    done = subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return read(done.stdout)


@functools.cache
def render_once(folder: Path) -> tuple[Manifest, ...]:
    """`render`, once a test process; whoever changes the objects takes a copy."""
    return tuple(render(folder))


def read(text: str) -> list[Manifest]:
    """The objects of a multi-document YAML text."""
    return [document for document in yaml.safe_load_all(text) if document]


def find(manifests: list[Manifest] | tuple[Manifest, ...], kind: str, name: str) -> Manifest:
    """The one object of this kind and name."""
    (found,) = [item for item in manifests if item["kind"] == kind and item["metadata"]["name"] == name]
    return found


def pod_specs(manifest: Manifest) -> Iterator[tuple[str, Manifest]]:
    """(where, pod spec) of every pod template in an object, however deep."""
    yield from _pod_specs(manifest, "")


def _pod_specs(value: Any, path: str) -> Iterator[tuple[str, Manifest]]:
    if isinstance(value, dict):
        spec = value.get("spec")
        if isinstance(spec, dict) and "containers" in spec:
            yield f"{path}/spec", spec
            return
        for key, item in value.items():
            yield from _pod_specs(item, f"{path}/{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _pod_specs(item, f"{path}/{index}")
