"""The test cluster itself, on tiny commands: one that let everything pass would prove nothing about the manifests."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.manifests import K8S, find, render

RULES = [
    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    {"action": "FailJob", "onExitCodes": {"containerName": "main", "operator": "In", "values": [2]}},
    {"action": "Ignore", "onExitCodes": {"containerName": "main", "operator": "In", "values": [143]}},
]

RESUME = "from nanosft.kubernetes import resume; resume('trainjobs/job')"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path, {"keys": {"KEY": "from-the-secret"}}) as made:
        yield made


def _pod(script: str, *, init: str | None = None, grace_s: int = 5) -> dict[str, Any]:
    def container(name: str, text: str) -> dict[str, Any]:
        return {
            "name": name,
            "command": ["/usr/bin/tini", "--", "sh", "-c"],
            "args": [text],
            "envFrom": [{"configMapRef": {"name": "settings"}}],
            "env": [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "KEY"}}}],
            "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
        }

    return {
        "terminationGracePeriodSeconds": grace_s,
        "initContainers": [container("init", init)] if init else [],
        "containers": [container("main", script)],
        "volumes": [{"name": "scratch", "emptyDir": {}}],
    }


def _job(pod: dict[str, Any], **spec: Any) -> list[dict[str, Any]]:
    spec = {"completions": 1, "parallelism": 1, "podFailurePolicy": {"rules": RULES}, **spec}
    return [
        {"kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"WORD": "hello"}},
        {"kind": "Job", "metadata": {"name": "job"}, "spec": {**spec, "template": {"spec": pod}}},
    ]


def _pytorch_job(script: str, *, init: str | None = None) -> list[dict[str, Any]]:
    pod = _pod(script, init=init)
    pod["containers"][0]["name"] = "pytorch"
    replica = {"replicas": 1, "restartPolicy": "ExitCode", "template": {"spec": pod}}
    spec = {
        "nprocPerNode": "1",
        "runPolicy": {"cleanPodPolicy": "Running"},
        "pytorchReplicaSpecs": {"Master": replica, "Worker": replica},
    }
    return [
        {"kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {}},
        {"kind": "PyTorchJob", "metadata": {"name": "job"}, "spec": spec},
    ]


def test_containers_get_their_variables_and_share_volumes(cluster: Cluster) -> None:
    pod = _pod('cat /scratch/note; echo "$(WORD) $KEY"', init="echo from-init >/scratch/note")
    cluster.apply(_job(pod))
    assert cluster.wait(timeout_s=20) == {"job": "complete"}
    assert cluster.job("job").pods[0].log() == "from-init\nhello from-the-secret\n"


def test_every_index_runs_once(cluster: Cluster) -> None:
    cluster.apply(_job(_pod("echo $JOB_COMPLETION_INDEX"), completionMode="Indexed", completions=3, parallelism=2))
    assert cluster.wait(timeout_s=20) == {"job": "complete"}
    assert sorted(pod.log().strip() for pod in cluster.job("job").pods) == ["0", "1", "2"]


def test_a_fail_job_code_ends_the_job_at_once(cluster: Cluster) -> None:
    cluster.apply(_job(_pod("exit 2"), backoffLimit=6))
    assert "FailJob" in cluster.wait(timeout_s=20)["job"]
    assert len(cluster.job("job").pods) == 1


def test_other_codes_are_tried_again_up_to_the_limit(cluster: Cluster) -> None:
    cluster.apply(_job(_pod("exit 75"), completionMode="Indexed", backoffLimitPerIndex=2, maxFailedIndexes=0))
    assert "one failure more than 2" in cluster.wait(timeout_s=20)["job"]
    assert len(cluster.job("job").pods) == 3


def test_a_terminated_pod_is_replaced_without_being_counted(cluster: Cluster) -> None:
    pod = _pod("trap 'exit 143' TERM; touch /scratch/ready; while :; do sleep 0.1; done")
    cluster.apply(_job(pod, backoffLimit=0))
    job = cluster.job("job")
    _run_until_ready(cluster, num=1)
    job.pods[0].terminate()
    cluster.run_until(lambda: len(job.pods) == 2, timeout_s=20)
    assert (job.pods[0].exit_code, job.outcome) == (143, "")


def test_a_pod_that_ignores_sigterm_is_killed_after_its_grace_period(cluster: Cluster) -> None:
    cluster.apply(_job(_pod("trap '' TERM; touch /scratch/ready; while :; do sleep 0.1; done", grace_s=1)))
    _run_until_ready(cluster, num=1)
    started_s = time.monotonic()
    (pod,) = cluster.job("job").pods
    pod.terminate()
    cluster.run_until(lambda: pod.exit_code is not None, timeout_s=20)
    assert pod.exit_code == 137
    assert time.monotonic() - started_s > 1


def test_killing_a_pod_ends_processes_in_sessions_of_their_own(cluster: Cluster, tmp_path: Path) -> None:
    beat = tmp_path / "beat"
    script = f"setsid sh -c 'while :; do date +%N >{beat}; sleep 0.05; done' & touch /scratch/ready; wait"
    cluster.apply(_job(_pod(script)))
    _run_until_ready(cluster, num=1)
    cluster.run_until(beat.exists, timeout_s=20)
    cluster.job("job").pods[0].kill()
    time.sleep(0.3)
    last = beat.read_text()
    time.sleep(0.3)
    assert beat.read_text() == last


def test_the_operator_restarts_codes_from_128_and_fails_on_others(cluster: Cluster) -> None:
    once = "if [ -e $HOME/../../../once ]; then exit 5; fi; touch $HOME/../../../once; exit 138"
    cluster.apply(_pytorch_job(f'if [ "$RANK" = 1 ]; then sleep 30; fi; {once}'))
    outcome = cluster.wait(timeout_s=20)["job"]
    assert "exited with 5" in outcome
    assert cluster.pytorch_job("job").restarts == ["master-0: pytorch exited with 138"]


def test_the_operator_restarts_a_pod_whose_init_container_failed_whatever_its_code(cluster: Cluster) -> None:
    cluster.apply(_pytorch_job("true", init="exit 2"))
    job = cluster.pytorch_job("job")
    cluster.run_until(lambda: len(job.restarts) >= 3, timeout_s=20)
    assert job.outcome == ""


def _train_job(script: str, *, nodes: int = 2, suspend: bool = False) -> list[dict[str, Any]]:
    pod = _pod(script)
    pod["containers"][0]["name"] = "node"
    codes = {"containerName": "node", "operator": "In", "values": [2]}
    policy = {"rules": [{"action": "FailJob", "onExitCodes": codes}]}
    job = {"completionMode": "Indexed", "backoffLimit": 0, "podFailurePolicy": policy, "template": {"spec": pod}}
    final = {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    job_set = {
        "failurePolicy": {"maxRestarts": 2, "rules": [final]},
        "replicatedJobs": [{"template": {"spec": job}}],
    }
    trainer = {"numNodes": nodes, "numProcPerNode": 1}
    spec = {"runtimeRef": {"name": "runtime"}, "trainer": trainer, "suspend": suspend}
    return [
        {"kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {}},
        {"kind": "TrainingRuntime", "metadata": {"name": "runtime"}, "spec": {"template": {"spec": job_set}}},
        {"kind": "TrainJob", "metadata": {"name": "job"}, "spec": spec},
    ]


def test_all_nodes_of_a_trainjob_begin_again_when_one_fails(cluster: Cluster) -> None:
    once = "if [ -e $HOME/../../../once ]; then exit 0; fi; touch $HOME/../../../once; exit 138"
    cluster.apply(_train_job(f'if [ "$PET_NODE_RANK" = 1 ]; then {once}; fi; sleep 0.5'))
    assert cluster.wait(timeout_s=20) == {"job": "complete"}
    job = cluster.train_job("job")
    assert len(job.restarts) == 1
    assert len(job.pods) == 4


def test_a_trainjob_ends_at_a_permanent_code_and_after_its_last_restart(cluster: Cluster) -> None:
    cluster.apply(_train_job("exit 2", nodes=1))
    assert "FailJob rule" in cluster.wait(timeout_s=20)["job"]
    assert cluster.train_job("job").restarts == []
    cluster.jobs.clear()
    cluster.folder /= "again"
    cluster.apply(_train_job("exit 138", nodes=1))
    assert "(node exited with 138)" in cluster.wait(timeout_s=20)["job"]
    assert len(cluster.train_job("job").pods) == 3


def test_a_suspended_job_begins_when_it_is_resumed(cluster: Cluster) -> None:
    cluster.apply(_train_job("true", nodes=1, suspend=True))
    cluster.run_until(lambda: True, timeout_s=1)
    assert cluster.train_job("job").pods == []
    config, job = _job({**_pod(f'{sys.executable} -c "{RESUME}"'), "automountServiceAccountToken": True})
    cluster.apply([config, {**job, "metadata": {"name": "waiter"}}])
    assert cluster.wait(timeout_s=20) == {"job": "complete", "waiter": "complete"}


def test_pods_of_an_indexed_job_know_how_often_they_have_failed(cluster: Cluster) -> None:
    pod = _pod("echo $COUNT; exit 75")
    field = {"fieldPath": "metadata.annotations['batch.kubernetes.io/job-index-failure-count']"}
    pod["containers"][0]["env"].append({"name": "COUNT", "valueFrom": {"fieldRef": field}})
    cluster.apply(_job(pod, completionMode="Indexed", backoffLimitPerIndex=2, maxFailedIndexes=0))
    cluster.wait(timeout_s=20)
    assert [pod.log().strip() for pod in cluster.job("job").pods] == ["0", "1", "2"]


def test_a_batch_is_come_back_for_more_often_than_a_failure_is_tried_again(cluster: Cluster, tmp_path: Path) -> None:
    """The policy of components/batch, with a stand-in for a generate whose batch is done at the tenth look."""
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    base, component = (os.path.relpath(K8S / name, overlay) for name in ("base", "components/batch"))
    (overlay / "kustomization.yaml").write_text(f"resources: [{base}]\ncomponents: [{component}]\n")
    spec = find(render(overlay), "Job", "nanosft-generate")["spec"]
    count = tmp_path / "count"
    pod = _pod(f"echo look >>{count}; if [ $(wc -l <{count}) -lt 10 ]; then exit 75; fi")
    pod["containers"][0]["name"] = "generate"
    spec |= {"completions": 1, "template": {"spec": pod}}
    config, _ = _job(pod)
    cluster.apply([config, {"kind": "Job", "metadata": {"name": "job"}, "spec": spec}])
    assert cluster.wait(timeout_s=20) == {"job": "complete"}
    assert len(cluster.job("job").pods) == 10 > spec["backoffLimitPerIndex"]


def test_nodes_are_told_their_rank_and_the_master_ends_the_job(cluster: Cluster) -> None:
    cluster.apply(_pytorch_job('echo "$RANK/$WORLD_SIZE $PET_NODE_RANK/$PET_NNODES"; [ "$RANK" = 0 ] || sleep 30'))
    assert cluster.wait(timeout_s=20) == {"job": "complete"}
    logs = {pod.log() for pod in cluster.pytorch_job("job").pods}
    assert logs <= {"0/2 0/2\n", "1/2 1/2\n", ""}  # the worker may have been ended before it wrote
    assert "0/2 0/2\n" in logs


def _run_until_ready(cluster: Cluster, *, num: int) -> None:
    cluster.run_until(lambda: len(list(cluster.folder.rglob("scratch/ready"))) >= num, timeout_s=20)
