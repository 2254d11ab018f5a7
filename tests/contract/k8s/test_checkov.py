"""checkov's policies on the Dockerfile and on every pod, those of custom resources included."""

import copy
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.manifests import K8S, Manifest, find, pod_specs, render_once

ROOT = Path(__file__).parents[3]
CHECKOV = ROOT / ".venv-checkov" / "bin" / "checkov"
CONFIG = Path(__file__).with_name("checkov.yaml")
CUSTOM = ("PyTorchJob", "TrainingRuntime")
NEEDED = [f"CKV_K8S_38 Job.nanosft.nanosft-{stage}-resume" for stage in ("eval", "sft")]
"""Pods with a token of the API server: those that resume a suspended job by it, under a Role that names the job."""


def test_the_dockerfile_and_every_pod_pass_all_policies_but_those_argued_away(tmp_path: Path) -> None:
    if not CHECKOV.exists():
        pytest.skip("checkov is not installed (make setup): its policies are not checked")
    shutil.copy(ROOT / "Dockerfile", tmp_path)
    for name in ("overlays/held", "overlays/local", "overlays/gpu", "overlays/trainjob"):
        documents = list(_as_built_in(render_once(K8S / name)))
        (tmp_path / f"{name.replace('/', '-')}.yaml").write_text(yaml.safe_dump_all(documents))
    serve = list(yaml.safe_load_all((K8S / "serve.yaml").read_text()))
    for item in serve:
        item["metadata"]["namespace"] = "nanosft"  # as `kubectl -n nanosft` sets it
    (tmp_path / "serve.yaml").write_text(yaml.safe_dump_all(serve))
    command = [str(CHECKOV), "--directory", str(tmp_path), "--config-file", str(CONFIG), "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    reports = json.loads(done.stdout)
    passed = {report["check_type"]: report["summary"]["passed"] for report in reports}
    assert passed["kubernetes"] > 500, passed
    assert passed["dockerfile"] > 50, passed
    failed = {
        f"{item['check_id']} {item['resource']}": item["check_name"]
        for report in reports
        for item in report["results"]["failed_checks"]
    }
    assert sorted(failed) == NEEDED, failed
    assert all(report["summary"]["parsing_errors"] == 0 for report in reports)


def test_the_policies_see_what_is_wrong(tmp_path: Path) -> None:
    if not CHECKOV.exists():
        pytest.skip("checkov is not installed (make setup): its policies are not checked")
    documents = list(_as_built_in(render_once(K8S / "base")))
    pod = find(documents, "Job", "nanosft-sft-0")["spec"]["template"]["spec"]
    pod["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(documents))
    command = [str(CHECKOV), "--directory", str(tmp_path), "--config-file", str(CONFIG), "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    report = json.loads(done.stdout)
    assert [item["check_id"] for item in report["results"]["failed_checks"]] == ["CKV_K8S_20"]


def _as_built_in(manifests: tuple[Manifest, ...]) -> Iterator[Manifest]:
    """The objects, with each pod template of a custom resource, which checkov does not know, as a Job."""
    for item in manifests:
        if item["kind"] not in CUSTOM:
            yield item
            continue
        for index, (_, spec) in enumerate(pod_specs(item)):
            metadata = {**item["metadata"], "name": f"{item['metadata']['name']}-{index}"}
            template = {"metadata": {"labels": metadata["labels"]}, "spec": copy.deepcopy(spec)}
            yield {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"template": template}}
