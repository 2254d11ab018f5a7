"""What makes pods: the Job controller and the training operator, by the rules that our manifests rely on."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.cluster.pod import Pod

MakePod = Callable[[str, dict[str, Any], dict[str, str], dict[str, str]], Pod]
"""(name, pod spec, variables for the main container, labels and annotations by fieldPath) -> a started pod."""
RESTART_ATTEMPT = "metadata.labels['jobset.sigs.k8s.io/restart-attempt']"
FAILURE_COUNT = "metadata.annotations['batch.kubernetes.io/job-index-failure-count']"

RETRYABLE_FROM = 128
NO_EXIT_CODE = 0xBEEF
"""What the operator takes for the code of a pod whose main container never ran: more than 128, so it is restarted."""


class Controller(Protocol):
    """An object that makes pods until it is done."""

    name: str
    outcome: str
    """Empty while it runs; then "complete", or "failed: …"."""
    pods: list[Pod]

    def reconcile(self, make: MakePod) -> None: ...

    def resume(self) -> None: ...


@dataclass
class Job:
    """`batch/v1` Job, Indexed or not, with podFailurePolicy, backoffLimit(PerIndex) and maxFailedIndexes."""

    name: str
    spec: dict[str, Any]
    outcome: str = ""
    pods: list[Pod] = field(default_factory=list)
    variables: Callable[[int], dict[str, str]] = lambda _: {}
    """Index -> what its own controller adds to main containers."""
    fields: dict[str, str] = field(default_factory=dict)
    """Labels and annotations of its own controller's."""
    _current: dict[int, Pod | None] = field(default_factory=dict)
    _failures: dict[int, int] = field(default_factory=dict)
    _numbers: Any = field(default_factory=itertools.count)

    def resume(self) -> None:
        """Begin, if it is suspended."""
        self.spec = {**self.spec, "suspend": False}

    def reconcile(self, make: MakePod) -> None:
        if self.spec.get("suspend"):
            return
        indexes = range(self.spec["completions"])
        for index in indexes:
            pod = self._current.get(index)
            if pod is not None and pod.exit_code:
                self._current[index] = None
                self._judge(index, pod)
        if self.outcome:
            for pod in self.pods:
                pod.terminate()
            return
        done = {index for index, pod in self._current.items() if pod is not None and pod.exit_code == 0}
        if len(done) == len(indexes):
            self.outcome = "complete"
        running = sum(1 for pod in self._current.values() if pod is not None and pod.exit_code is None)
        for index in indexes:
            if self._current.get(index) is None and running < self.spec["parallelism"]:
                indexed = self.spec.get("completionMode") == "Indexed"
                env = {**({"JOB_COMPLETION_INDEX": str(index)} if indexed else {}), **self.variables(index)}
                fields = dict(self.fields)
                if "backoffLimitPerIndex" in self.spec:
                    fields[FAILURE_COUNT] = str(self._failures.get(index, 0))
                pod = make(f"{self.name}-{index}-{next(self._numbers)}", self.spec["template"]["spec"], env, fields)
                self._current[index] = pod
                self.pods.append(pod)
                running += 1

    def pod(self, index: int) -> Pod | None:
        """The index's pod, if it has one now."""
        return self._current.get(index)

    def _judge(self, index: int, pod: Pod) -> None:
        what = f"{pod.name} ({pod.failed_container} exited with {pod.exit_code})"
        action = self._action(pod)
        if action == "FailJob":
            self.outcome = f"failed: {what} matched a FailJob rule"
        elif action == "Count":
            self._failures[index] = self._failures.get(index, 0) + 1
            per_index = self.spec.get("backoffLimitPerIndex")
            limit = self.spec.get("backoffLimit", 6) if per_index is None else per_index
            if self._failures[index] > limit:  # maxFailedIndexes is 0, as a contract test asserts
                self.outcome = f"failed: {what} was one failure more than {limit}"

    def _action(self, pod: Pod) -> str:
        for rule in self.spec.get("podFailurePolicy", {}).get("rules", []):
            codes = rule.get("onExitCodes")
            if codes is None:
                if pod.disrupted and any(item["type"] == "DisruptionTarget" for item in rule["onPodConditions"]):
                    return str(rule["action"])
            elif codes["containerName"] == pod.failed_container:
                assert codes["operator"] == "In"
                if pod.exit_code in codes["values"]:
                    return str(rule["action"])
        return "Count"


@dataclass
class PyTorchJob:
    """A PyTorchJob with Master and Workers, without elasticPolicy, as training operator 1.9 runs it."""

    name: str
    spec: dict[str, Any]
    port: int
    outcome: str = ""
    pods: list[Pod] = field(default_factory=list)
    restarts: list[str] = field(default_factory=list)
    _current: dict[str, Pod] = field(default_factory=dict)
    _numbers: Any = field(default_factory=itertools.count)

    def resume(self) -> None:
        """Begin, if it is suspended."""
        self.spec = {**self.spec, "runPolicy": {**self.spec["runPolicy"], "suspend": False}}

    def reconcile(self, make: MakePod) -> None:
        if self.outcome or self.spec["runPolicy"].get("suspend"):
            return
        replicas = self.spec["pytorchReplicaSpecs"]
        roles = [("master", 0), *(("worker", index) for index in range(replicas.get("Worker", {}).get("replicas", 0)))]
        for role, index in roles:
            key = f"{role}-{index}"
            replica = replicas[role.capitalize()]
            pod = self._current.get(key)
            if pod is not None and pod.exit_code:
                in_main = pod.failed_container == "pytorch"
                code = pod.exit_code if in_main else NO_EXIT_CODE
                assert replica["restartPolicy"] == "ExitCode"
                if code < RETRYABLE_FROM:
                    self._finish(f"failed: {pod.name} exited with {code}")
                    return
                self.restarts.append(f"{key}: {pod.failed_container} exited with {pod.exit_code}")
                pod = None
            if pod is None:
                env = self._variables(role, index, len(roles))
                pod = make(f"{self.name}-{key}-{next(self._numbers)}", replica["template"]["spec"], env, {})
                self._current[key] = pod
                self.pods.append(pod)
        if self._current["master-0"].exit_code == 0:
            self._finish("complete")

    def pod(self, key: str) -> Pod | None:
        """The pod that is `master-0`, `worker-0`, … now."""
        return self._current.get(key)

    def _finish(self, outcome: str) -> None:
        self.outcome = outcome
        if self.spec["runPolicy"]["cleanPodPolicy"] == "Running":
            for pod in self._current.values():
                pod.terminate()

    def _variables(self, role: str, index: int, num_nodes: int) -> dict[str, str]:
        rank = str(index + (role == "worker"))
        per_node = self.spec["nprocPerNode"]
        return {
            "PYTHONUNBUFFERED": "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(self.port),
            "PET_MASTER_ADDR": "127.0.0.1",
            "PET_MASTER_PORT": str(self.port),
            "WORLD_SIZE": str(num_nodes * int(per_node)),
            "RANK": rank,
            "PET_NODE_RANK": rank,
            "PET_NNODES": str(num_nodes),
            "PET_NPROC_PER_NODE": per_node,
        }


@dataclass
class TrainJob:
    """A TrainJob and its JobSet, with the torch policy, as Kubeflow Trainer v2 and JobSet run them.

    One Indexed Job runs all nodes. When it fails by its pod failure policy, the rule of the runtime ends all; when it
    fails otherwise, all of its pods are deleted and a new Job begins, up to `maxRestarts` times.
    """

    name: str
    spec: dict[str, Any]
    runtime: dict[str, Any]
    port: int
    outcome: str = ""
    pods: list[Pod] = field(default_factory=list)
    restarts: list[str] = field(default_factory=list)
    _job: Job | None = None

    def resume(self) -> None:
        """Begin, if it is suspended."""
        self.spec = {**self.spec, "suspend": False}

    def reconcile(self, make: MakePod) -> None:
        if self.outcome or self.spec.get("suspend"):
            return
        self._job = job = self._job or self._make_job()
        job.reconcile(make)
        self.pods += job.pods[sum(pod in self.pods for pod in job.pods) :]
        if job.outcome == "complete":
            self.outcome = job.outcome
        elif job.outcome and all(pod.exit_code is not None for pod in job.pods):
            policy = self.runtime["template"]["spec"]["failurePolicy"]
            reason = "PodFailurePolicy" if "FailJob" in job.outcome else "BackoffLimitExceeded"
            is_final = any(
                rule["action"] == "FailJobSet" and reason in rule["onJobFailureReasons"] for rule in policy["rules"]
            )
            if is_final or len(self.restarts) >= policy["maxRestarts"]:
                self.outcome = job.outcome
            else:
                self.restarts.append(job.outcome)
                self._job = None

    def _make_job(self) -> Job:
        trainer = self.spec["trainer"]
        (replicated,) = self.runtime["template"]["spec"]["replicatedJobs"]
        nodes, per_node = trainer["numNodes"], str(trainer["numProcPerNode"])

        def variables(index: int) -> dict[str, str]:
            return {
                "PET_NNODES": str(nodes),
                "PET_NPROC_PER_NODE": per_node,
                "PET_NODE_RANK": str(index),
                "PET_MASTER_ADDR": "127.0.0.1",
                "PET_MASTER_PORT": str(self.port),
            }

        attempt = len(self.restarts)
        spec = {**replicated["template"]["spec"], "completions": nodes, "parallelism": nodes}
        name = f"{self.name}-node-0-attempt-{attempt}"
        return Job(name, spec, variables=variables, fields={RESTART_ATTEMPT: str(attempt)})


@dataclass
class Deployment:
    """A Deployment of one replica: its pod is made anew when it ends. It is never done."""

    name: str
    spec: dict[str, Any]
    outcome: str = ""
    pods: list[Pod] = field(default_factory=list)

    def resume(self) -> None:
        """Nothing suspends it."""

    def reconcile(self, make: MakePod) -> None:
        if not self.pods or self.pods[-1].exit_code is not None:
            self.pods.append(make(f"{self.name}-{len(self.pods)}", self.spec["template"]["spec"], {}, {}))
