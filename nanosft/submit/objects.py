"""Kubernetes objects as values: where their pods are, what makes them what they are, what a run adds to them. Pure."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import orjson
import yaml

from nanosft.errors import ConfigError, clip
from nanosft.foreign import printable, quote
from nanosft.submit.run_file import RunFile

Object = dict[str, Any]
"""An object of the Kubernetes API."""
Key = tuple[str, str]
"""Kind and name."""

INSTANCE: Final = "app.kubernetes.io/instance"
COMPONENT: Final = "app.kubernetes.io/component"
HASH: Final = "nanosft.dev/hash"
"""Annotation of a job and of its pods: of all that makes them, ConfigMaps included."""
JOB_KINDS: Final = {
    "Job": "jobs.batch",
    "PyTorchJob": "pytorchjobs.kubeflow.org",
    "TrainJob": "trainjobs.trainer.kubeflow.org",
}
"""Kinds that begin, end and cannot be changed between, and their resources."""
_QUEUE: Final = "kueue.x-k8s.io/queue-name"
_HOLDER: Final = "resume"
_GANG_TIMEOUT_S: Final = 300


def read_objects(text: str) -> list[Object]:
    """The objects of several YAML documents.

    Raises:
        ConfigError: They are none.
    """
    try:
        found = [item for item in yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) if item]
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise ConfigError(f"kubectl kustomize: not YAML: {clip(' '.join(str(exc).split()), 200)}") from exc
    if strange := next((item for item in found if not isinstance(item, dict)), None):
        raise ConfigError(f"kubectl kustomize: not an object of Kubernetes: {quote(strange)}")
    return found


def write_objects(objects: Iterable[Object]) -> str:
    """The objects as YAML documents."""
    return yaml.dump_all(objects, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


class _Dumper(yaml.SafeDumper):
    """Texts of several lines stay such, as people read them."""


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    """In double quotes where `printable` changes it on its way out: there YAML knows what is put in its place."""
    style = '"' if printable(text) != text else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def key_of(item: Object) -> Key:
    """Kind and name."""
    return item["kind"], item["metadata"]["name"]


def component_of(item: Object) -> str:
    """The stage that an object belongs to, or "resume"; empty where it belongs to the whole run."""
    return str(item["metadata"].get("labels", {}).get(COMPONENT, ""))


def pod_templates(value: Any) -> Iterator[Object]:
    """Every pod template in an object, however deep."""
    if isinstance(value, dict):
        spec = value.get("spec")
        if isinstance(spec, dict) and "containers" in spec:
            yield value
        else:
            for inner in value.values():
                yield from pod_templates(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from pod_templates(inner)


def containers_of(pod: Object) -> list[Object]:
    """Init containers and others of a pod template."""
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def config_maps_of(item: Object) -> set[str]:
    """Names of the ConfigMaps that an object's pods read."""
    names = set()
    for template in pod_templates(item):
        for container in containers_of(template):
            names |= {source["configMapRef"]["name"] for source in container.get("envFrom", [])}
        volumes = template["spec"].get("volumes", [])
        names |= {volume["configMap"]["name"] for volume in volumes if "configMap" in volume}
    return names


@dataclass(frozen=True, slots=True)
class Held:
    """A Job that waits for a manifest, and the job that it resumes then."""

    waiter: Key
    target: Key


def find_held(objects: Iterable[Object]) -> list[Held]:
    """The jobs that start suspended, each with the Job that resumes it."""
    found = {component_of(item): key_of(item) for item in objects if item["kind"] in JOB_KINDS}
    waiters = [item for item in objects if item["kind"] == "Job" and component_of(item) == _HOLDER]
    held = []
    for waiter in waiters:
        stage = waiter["metadata"]["name"].removeprefix("nanosft-").partition("-")[0]
        if stage in found:
            held.append(Held(key_of(waiter), found[stage]))
    return held


def finish(objects: list[Object], run: RunFile) -> list[Object]:
    """The rendered objects with what a run adds: its queue, its priority, its gang, who resumes what, and the hashes.

    Args:
        objects: What kustomize rendered; they are changed.
        run: What the run file says.
    """
    held = find_held(objects)
    waiters = {pair.waiter: pair.target for pair in held}
    # Kueue takes up a suspended job that gets its label. Where it does not manage PyTorchJobs, nobody would resume one.
    queued_later = {pair.target for pair in held if pair.target[0] != "PyTorchJob"}
    kept = []
    for item in objects:
        key = key_of(item)
        if key in waiters:
            _name_target(item, waiters[key], run.queue if waiters[key] in queued_later else None)
        elif component_of(item) == _HOLDER and item["kind"] == "Job":
            continue  # its stage is not among those asked for
        elif item["kind"] == "Role":
            item["rules"] = [_rule(pair.target) for pair in held]
        elif run.queue and item["kind"] in JOB_KINDS and key not in queued_later:
            item["metadata"]["labels"][_QUEUE] = run.queue
        kept.append(item)
    for item in kept:
        if run.priority_class:
            for template in pod_templates(item):
                template["spec"]["priorityClassName"] = run.priority_class
        if run.gang:
            _gang(item, run.gang)
    add_hashes(kept)
    return kept


def _name_target(waiter: Object, target: Key, queue: str | None) -> None:
    (template,) = pod_templates(waiter)
    (container,) = template["spec"]["containers"]
    (variable,) = [entry for entry in container["env"] if entry["name"] == "RESUMES"]
    variable["value"] = f"{JOB_KINDS[target[0]].partition('.')[0]}/{target[1]}"
    if queue:
        container["args"] += ["--queue", queue]


def _rule(target: Key) -> Object:
    resource, _, group = JOB_KINDS[target[0]].partition(".")
    return {"apiGroups": [group], "resources": [resource], "resourceNames": [target[1]], "verbs": ["patch"]}


def _gang(item: Object, gang: str) -> None:
    """All pods of the training job at once, or none: a PodGroup, which its controller makes."""
    if item["kind"] == "PyTorchJob":
        replicas = item["spec"]["pytorchReplicaSpecs"].values()
        num = sum(replica["replicas"] for replica in replicas)
        policy = {"minAvailable": num, "scheduleTimeoutSeconds": _GANG_TIMEOUT_S}
        item["spec"]["runPolicy"]["schedulingPolicy"] = policy
    elif item["kind"] == "TrainingRuntime":
        settings = {"scheduleTimeoutSeconds": _GANG_TIMEOUT_S} if gang == "coscheduling" else {}
        item["spec"]["podGroupPolicy"] = {gang: settings}


def add_hashes(objects: list[Object]) -> None:
    """Annotate jobs, Deployments and their pods with the hash of all that they are made of."""
    config_maps = {item["metadata"]["name"]: item for item in objects if item["kind"] == "ConfigMap"}
    runtimes = {item["metadata"]["name"]: item for item in objects if item["kind"] == "TrainingRuntime"}
    hashes: dict[str, str] = {}
    for item in objects:
        if item["kind"] not in (*JOB_KINDS, "Deployment"):
            continue
        parts = [item]
        if item["kind"] == "TrainJob":
            parts.append(runtimes[item["spec"]["runtimeRef"]["name"]])
        names = sorted(set().union(*(config_maps_of(part) for part in parts)))
        parts += [config_maps[name] for name in names if name in config_maps]
        hashes[item["metadata"]["name"]] = hash_of(parts)
    for item in objects:
        name = item["metadata"]["name"]
        if item["kind"] in (*JOB_KINDS, "Deployment", "TrainingRuntime") and name in hashes:
            for part in (item, *pod_templates(item)):
                part["metadata"].setdefault("annotations", {})[HASH] = hashes[name]


def hash_of(parts: list[Object]) -> str:
    """A short hash of objects, whatever the order of their keys."""
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
