"""The kustomization that makes a run of the manifests in `k8s/`. Pure."""

import json
from typing import Any, Final

from nanosft.settings.base import ENV_PREFIX
from nanosft.settings.run import CHAIN, Stage
from nanosft.store import join_uri
from nanosft.submit.run_file import RunFile, Sft

STAGES: Final[tuple[Stage, ...]] = (*CHAIN, "serve")
ACCOUNTS: Final = (*STAGES, "resume")
CPU_OVERLAYS: Final = frozenset({"local", "local-trainjob"})
"""Overlays whose sft pods ask for no GPU."""

_INSTANCE: Final = "app.kubernetes.io/instance"
_GPU: Final = "nvidia.com~1gpu"
_PYTORCHJOB_REPLICAS: Final = "/spec/pytorchReplicaSpecs"
_RUNTIME_POD: Final = "/spec/template/spec/replicatedJobs/0/template/spec/template/spec"

Overlay = dict[str, Any]
"""A kustomization, as the JSON that kustomize reads as well as YAML."""


def build_overlay(run: RunFile, recipe: str, *, stages: tuple[Stage, ...] = CHAIN) -> Overlay:
    """The kustomization that turns the manifests of run "first" into this run's; pure.

    Args:
        run: What the run file says.
        recipe: mix's recipe, with `{generated}` where the generated conversations' URI goes.
        stages: The stages whose objects are kept.
    """
    generated, mixture, model = (join_uri(run.prefix, name) for name in ("generated", "mixture", "model"))
    data = {
        "nanosft-generate": {
            "NANOSFT_OUT": generated,
            **({"NANOSFT_WAIT": "false"} if run.is_batch else {}),
            **_variables(run.generate),
        },
        "nanosft-mix": {"NANOSFT_OUT": mixture, "NANOSFT_URI": generated, **_variables(run.mix)},
        "nanosft-sft": {
            "NANOSFT_BASE": run.base or join_uri(run.store, "base"),
            "NANOSFT_DATA": mixture,
            "NANOSFT_OUT": model,
            **_variables(run.train),
        },
        "nanosft-eval": {
            "NANOSFT_MODEL": model,
            "NANOSFT_OUT": join_uri(run.prefix, "evaluation"),
            **_variables(run.eval),
        },
        "nanosft-report": {
            "NANOSFT_URI": join_uri(run.prefix, "evaluation"),
            "NANOSFT_URIS": model,
            "NANOSFT_OUT": join_uri(run.prefix, "report.html"),
            **_variables(run.report),
        },
    }
    if "serve" in stages:
        data["nanosft-serve"] = {"NANOSFT_MODEL": model, **_variables(run.serve)}
    if "knowledge" in run.generate:  # what the model is asked about is what it was made from
        data["nanosft-eval"].setdefault("NANOSFT_KNOWLEDGE", run.generate["knowledge"])
    texts = {name: {**variables, **run.env} for name, variables in data.items()}
    texts["nanosft-recipe"] = {"recipe.toml": recipe.replace("{generated}", generated)}
    patches = [_merge("v1", "ConfigMap", name, {"data": values}) for name, values in texts.items()]
    if "serve" in stages:
        patches += _serve_patches(run)
    patches += _generate_patches(run) + _network_patches(run) + (_sft_patches(run, run.sft) if run.sft else [])
    patches.append(_delete("Namespace"))  # it is there, and deleting a run must leave it and the others
    for stage in CHAIN:
        if stage not in stages:
            patches.append(_delete(None, f"app.kubernetes.io/component={stage}"))
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": run.namespace,
        "nameSuffix": f"-{run.name}",
        "labels": _labels(run),
        "images": [
            image
            for name, reference in (("nanosft-cpu", run.images.cpu), ("nanosft-cuda", run.images.cuda))
            if reference
            for image in [_image(name, reference)]
        ],
        "patches": patches,
    }


def _variables(settings: dict[str, Any]) -> dict[str, str]:
    return {ENV_PREFIX + name.upper(): _text(value) for name, value in settings.items()}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value) if isinstance(value, list) else str(value)


def _generate_patches(run: RunFile) -> list[Overlay]:
    if "num_shards" not in run.generate and run.parallelism is None:
        return []
    spec = {"completions": run.generate["num_shards"]} if "num_shards" in run.generate else {}
    spec["parallelism"] = run.parallelism or run.generate["num_shards"]
    return [_merge("batch/v1", "Job", "nanosft-generate", {"spec": spec})]


def _network_patches(run: RunFile) -> list[Overlay]:
    paths = {
        "nanosft": ["/spec/podSelector", "/spec/ingress/0/from/0/podSelector", "/spec/egress/0/to/0/podSelector"],
        "nanosft-resume": ["/spec/podSelector"],
        "nanosft-serve": ["/spec/podSelector"],
    }
    label = _INSTANCE.replace("/", "~1")
    return [
        _operations("NetworkPolicy", [_replace(f"{path}/matchLabels/{label}", run.name) for path in of_policy], name)
        for name, of_policy in paths.items()
    ]


def _serve_patches(run: RunFile) -> list[Overlay]:
    label = _INSTANCE.replace("/", "~1")
    selectors = {
        "Service": "/spec/selector",
        "Deployment": "/spec/selector/matchLabels",
        "PodDisruptionBudget": "/spec/selector/matchLabels",
    }
    return [_operations(kind, [_replace(f"{path}/{label}", run.name)]) for kind, path in selectors.items()]


def _sft_patches(run: RunFile, sft: Sft) -> list[Overlay]:
    with_gpu = run.overlay not in CPU_OVERLAYS
    sizes = _trainjob_operations if run.is_trainjob else _pytorchjob_operations
    return [_operations(kind, operations) for kind, operations in sizes(sft, with_gpu=with_gpu)]


def _pytorchjob_operations(sft: Sft, *, with_gpu: bool) -> list[tuple[str, list[Overlay]]]:
    operations = [_replace("/spec/nprocPerNode", str(sft.ranks_per_node))]
    for replica in ("Master", "Worker"):
        pod = f"{_PYTORCHJOB_REPLICAS}/{replica}/template/spec"
        operations += _preflight_operations(sft, pod)
        operations += _gpu_operations(sft, pod) if with_gpu else []
    if sft.nodes == 1:
        operations.append({"op": "remove", "path": f"{_PYTORCHJOB_REPLICAS}/Worker"})
    else:
        operations.append(_replace(f"{_PYTORCHJOB_REPLICAS}/Worker/replicas", sft.nodes - 1))
    return [("PyTorchJob", operations)]


def _trainjob_operations(sft: Sft, *, with_gpu: bool) -> list[tuple[str, list[Overlay]]]:
    trainer = [
        _replace("/spec/trainer/numNodes", sft.nodes),
        _replace("/spec/trainer/numProcPerNode", sft.ranks_per_node),
    ]
    runtime = [_replace("/spec/mlPolicy/numNodes", sft.nodes), *_preflight_operations(sft, _RUNTIME_POD)]
    if with_gpu:
        trainer += [
            _replace(f"/spec/trainer/resourcesPerNode/{kind}/{_GPU}", str(sft.ranks_per_node))
            for kind in ("requests", "limits")
        ]
        runtime += _gpu_operations(sft, _RUNTIME_POD)
    return [("TrainJob", trainer), ("TrainingRuntime", runtime)]


def _preflight_operations(sft: Sft, pod: str) -> list[Overlay]:
    env = f"{pod}/initContainers/1/env"
    return [_replace(f"{env}/0/value", str(sft.nodes)), _replace(f"{env}/1/value", str(sft.ranks_per_node))]


def _gpu_operations(sft: Sft, pod: str) -> list[Overlay]:
    return [
        _replace(f"{pod}/{container}/resources/{kind}/{_GPU}", str(sft.ranks_per_node))
        for container in ("initContainers/1", "containers/0")
        for kind in ("requests", "limits")
    ]


def _labels(run: RunFile) -> list[Overlay]:
    templates = {
        "PyTorchJob": [
            f"spec/pytorchReplicaSpecs/{replica}/template/metadata/labels" for replica in ("Master", "Worker")
        ],
        "TrainingRuntime": ["spec/template/spec/replicatedJobs/template/spec/template/metadata/labels"],
    }
    own = {
        "pairs": {_INSTANCE: run.name, "app.kubernetes.io/managed-by": "nanosft-submit"},
        "includeTemplates": True,
        "fields": [{"kind": kind, "path": path} for kind, paths in templates.items() for path in paths],
    }
    return [own]


def _image(name: str, reference: str) -> dict[str, str]:
    rest, found, digest = reference.partition("@")
    if found:
        return {"name": name, "newName": rest, "digest": digest}
    path, colon, tag = rest.rpartition(":")
    if colon and "/" not in tag:
        return {"name": name, "newName": path, "newTag": tag}
    return {"name": name, "newName": rest}


def _merge(version: str, kind: str, name: str, values: Overlay) -> Overlay:
    return {"patch": json.dumps({"apiVersion": version, "kind": kind, "metadata": {"name": name}, **values})}


def _operations(kind: str, operations: list[Overlay], name: str | None = None) -> Overlay:
    return {"target": {"kind": kind} | ({"name": name} if name else {}), "patch": json.dumps(operations)}


def _delete(kind: str | None, labels: str | None = None) -> Overlay:
    target = {"kind": kind} if kind else {"labelSelector": labels}
    body = {"$patch": "delete", "apiVersion": "v1", "kind": kind or "Any", "metadata": {"name": "any"}}
    return {"target": target, "patch": json.dumps(body)}


def _replace(path: str, value: str | int) -> Overlay:
    return {"op": "replace", "path": path, "value": value}


def share_account(name: str, new_name: str) -> Overlay:
    """A patch that gives a ServiceAccount its stage's name again, with all that refer to it, and takes its run's label.

    All runs share it: a role trusts it by its name, and each run would write its own label over the last one's.
    """
    operations = [_replace("/metadata/name", new_name)]
    operations.append({"op": "remove", "path": f"/metadata/labels/{_INSTANCE.replace('/', '~1')}"})
    return {
        "target": {"kind": "ServiceAccount", "name": name},
        "patch": json.dumps(operations),
        "options": {"allowNameChange": True},
    }
