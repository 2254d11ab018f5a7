"""What applying a run will do to what the cluster has of it, and what it may cost at most. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from nanosft.submit.objects import (
    HASH,
    JOB_KINDS,
    Key,
    Object,
    component_of,
    find_held,
    key_of,
    pod_templates,
)
from nanosft.submit.run_file import RunFile

State = Literal["runs", "waits", "complete", "failed"]
Action = Literal["create", "replace", "keep", "refuse"]

_FREE_PROVIDERS: Final = frozenset({"offline", "local"})
_GPU: Final = "nvidia.com/gpu"
_PODGROUPS: Final = {
    "coscheduling": "podgroups.scheduling.x-k8s.io",
    "volcano": "podgroups.scheduling.volcano.sh",
}
_ABSENT: Final = {
    "PyTorchJob": 'install the kubeflow training operator 1.9, or set trainer = "trainjob" where Kubeflow Trainer is',
    "TrainJob": 'install Kubeflow Trainer v2 with JobSet, or set trainer = "pytorchjob" where the training operator is',
}


@dataclass(frozen=True, slots=True)
class Step:
    """What becomes of one job.

    Attributes:
        key: Its kind and name.
        action: What is done.
        reason: Why, in a few words.
    """

    key: Key
    action: Action
    reason: str

    def describe(self) -> str:
        """One line for people."""
        return f"{self.action:8}{self.key[0]}/{self.key[1]}: {self.reason}"


def state_of(item: Object) -> State:
    """How far a job is that the cluster has: a suspended one `waits`."""
    conditions = {
        condition["type"] for condition in item.get("status", {}).get("conditions", []) if condition["status"] == "True"
    }
    if "Failed" in conditions:
        return "failed"
    if conditions & {"Complete", "Succeeded"}:
        return "complete"
    spec = item["spec"]
    return "waits" if spec.get("suspend") or spec.get("runPolicy", {}).get("suspend") else "runs"


def plan_jobs(objects: Sequence[Object], existing: Iterable[Object], *, force: bool = False) -> list[Step]:
    """What is done with each job of the run, in the order of `objects`.

    A job's template cannot be changed. One that has ended or has not begun is replaced where it failed or where its
    hash is another's; one that runs is left alone, and with other settings refused without `force`.

    Args:
        objects: What is to be.
        existing: Jobs that the cluster has of the run.
        force: Whether those that run are replaced too.
    """
    there = {key_of(item): item for item in existing}
    waiters = {pair.waiter: pair.target for pair in find_held(objects)}
    jobs = [item for item in objects if item["kind"] in JOB_KINDS]
    steps = {key_of(item): _plan_job(item, there.get(key_of(item)), force=force) for item in jobs}
    for waiter, target in waiters.items():  # whoever resumes a job is as new as the job
        is_new = steps[target].action in ("create", "replace")
        action: Action = ("replace" if waiter in there else "create") if is_new else "keep"
        steps[waiter] = Step(waiter, action, f"resumes {target[0]}/{target[1]}")
    return [steps[key_of(item)] for item in jobs]


def _plan_job(item: Object, found: Object | None, *, force: bool) -> Step:
    key = key_of(item)
    if found is None:
        return Step(key, "create", "suspended until what it needs is there" if state_of(item) == "waits" else "new")
    state = state_of(found)
    same = found["metadata"].get("annotations", {}).get(HASH) == item["metadata"]["annotations"][HASH]
    if state == "failed":
        return Step(key, "replace", "has failed" if same else "has failed, and its settings are others now")
    if same:
        return Step(key, "keep", {"complete": "is complete", "waits": "waits"}.get(state, "runs"))
    if state == "runs" and not force:
        return Step(key, "refuse", "runs with other settings: --force replaces it")
    return Step(key, "replace", f"{'runs' if state == 'runs' else 'is ' + state} with other settings")


def describe_costs(objects: Iterable[Object]) -> list[str]:
    """What the run costs at most, one line an item: the budgets of generate and of eval's judge, and GPU-hours.

    GPU-hours are an upper bound that no sane run meets: each job's deadline times its GPUs.
    """
    objects = list(objects)
    lines = []
    data = {component_of(item): item["data"] for item in objects if item["kind"] == "ConfigMap" and _is_main(item)}
    if (generate := data.get("generate")) is not None and generate.get("NANOSFT_PROVIDER") not in _FREE_PROVIDERS:
        lines.append(f"generate: {_budget(generate)}")
    if (judge := data.get("eval", {})).get("NANOSFT_JUDGE_MODEL"):
        lines.append(f"eval's judge: {_budget(judge)}")
    for item in objects:
        gpus = count_gpus(item)
        if gpus and item["kind"] == "Deployment":
            lines.append(f"{component_of(item)}: {gpus} GPUs until it is deleted")
        elif gpus:
            hours = _deadline_s(item) / 3600
            total = f"at most {gpus * hours:,.0f} GPU-hours"
            lines.append(f"{component_of(item)}: {total} ({gpus} for {hours:,.0f} h)")
    return lines


def _is_main(item: Object) -> bool:
    return bool(item["metadata"]["name"].startswith(f"nanosft-{component_of(item)}"))


def _budget(data: dict[str, str]) -> str:
    budget = data.get("NANOSFT_BUDGET_USD")
    return f"at most {float(budget):,.2f} US dollars" if budget else "no budget_usd, so no bound"


def count_gpus(item: Object) -> int:
    """GPUs of all pods of a job or a Deployment at a time."""
    spec = item.get("spec", {})
    if item["kind"] == "PyTorchJob":
        return sum(replica["replicas"] * _gpus(replica["template"]) for replica in spec["pytorchReplicaSpecs"].values())
    if item["kind"] == "TrainJob":
        limits = spec["trainer"]["resourcesPerNode"]["limits"]
        return int(spec["trainer"]["numNodes"]) * int(limits.get(_GPU, 0))
    if item["kind"] in ("Job", "Deployment"):
        num = spec.get("parallelism", 1) if item["kind"] == "Job" else spec.get("replicas", 1)
        return int(num) * sum(_gpus(template) for template in pod_templates(item))
    return 0


def _gpus(template: Object) -> int:
    limits = [container.get("resources", {}).get("limits", {}) for container in template["spec"]["containers"]]
    return sum(int(limit.get(_GPU, 0)) for limit in limits)


def _deadline_s(item: Object) -> float:
    spec: dict[str, Any] = item["spec"]
    return float(spec.get("activeDeadlineSeconds") or spec.get("runPolicy", {}).get("activeDeadlineSeconds", 0))


def find_absent(objects: Iterable[Object], run: RunFile, resources: set[str]) -> list[str]:
    """What the cluster lacks for these objects, one sentence each.

    Args:
        objects: What is to be.
        run: What the run file says.
        resources: Names of the cluster's API resources, such as `jobs.batch`.
    """
    kinds = {item["kind"] for item in objects}
    problems = [
        f"the cluster has no {kind}: {hint}"
        for kind, hint in _ABSENT.items()
        if kind in kinds and JOB_KINDS[kind] not in resources
    ]
    if run.queue and "localqueues.kueue.x-k8s.io" not in resources:
        problems.append(f"queue: the cluster has no LocalQueue {run.queue}: Kueue is not installed")
    if run.gang and _PODGROUPS[run.gang] not in resources:
        problems.append(f"gang: the cluster has no PodGroup of {run.gang} ({_PODGROUPS[run.gang]})")
    return problems


def find_hints(objects: Iterable[Object], run: RunFile, resources: Iterable[str] = ()) -> list[str]:
    """What is not wrong, but rarely meant."""
    hints = []
    kinds = {item["kind"] for item in objects}
    if run.queue and "PyTorchJob" in kinds:
        hints.append(
            "queue: Kueue manages PyTorchJobs only where an administrator has turned that on (off by default since "
            '0.19): elsewhere sft starts at once; trainer = "trainjob" is managed by default'
        )
    if run.gang and "PyTorchJob" in kinds:
        hints.append("gang: the training operator makes PodGroups only when it was started with --gang-scheduler-name")
    known = set(resources)
    if run.gang is None and not run.queue and run.sft is not None and run.sft.nodes > 1:
        for gang, resource in _PODGROUPS.items():
            if resource in known:
                hints.append(f'the cluster has PodGroups: gang = "{gang}" starts sft\'s pods all at once or not at all')
    return hints
