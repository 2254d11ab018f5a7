"""`nanosft submit`: the Kubernetes manifests of a run, made of `k8s/` and one TOML file, so that nobody edits YAML.

    name = "second"                     # becomes a suffix of every object's name, a label, and the runs' prefix
    store = "s3://nanosft"              # s3://nanosft/second/generated, …/mixture, …/model, …/evaluation
    base = "s3://nanosft/base"
    overlay = "gpu"                     # base, or a directory of k8s/overlays: local, gpu
    recipe = "recipe.toml"              # beside this file; {generated} in it is the URI of this run's conversations

    [images]
    cpu = "images.example.org/nanosft-cpu:0.1.0"
    cuda = "images.example.org/nanosft-cuda:0.1.0"

    [generate]                          # any setting of `nanosft generate`; num_shards is the Job's completions too
    num = 5000
    num_shards = 8

    [train]                             # any setting of `nanosft train`
    epochs = 2

    [eval]                              # any setting of `nanosft eval`
    require = ["identity>=0.5"]

    [sft]
    nodes = 2
    ranks_per_node = 8

`run_file` checks that file; `overlay` makes a kustomization of it, which `kubectl` renders in a temporary directory;
`objects` adds to what was rendered what a run has of its own; `plan` says what applying it will do and cost.
"""

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from nanosft.errors import ConfigError
from nanosft.progress import write_result
from nanosft.settings.run import CHAIN, SubmitSettings
from nanosft.shipped import find_shipped
from nanosft.submit.kubectl import RunInCluster, find_digest, render
from nanosft.submit.objects import Object, containers_of, finish, key_of, pod_templates, read_objects, write_objects
from nanosft.submit.overlay import ACCOUNTS, Overlay, build_overlay, share_account
from nanosft.submit.plan import describe_costs, find_absent, find_hints, plan_jobs
from nanosft.submit.run_file import RunFile, parse_run

DEFAULT_RECIPE: Final = '[[sources]]\nname = "identity"\nuri = "{generated}"\n'
_log = logging.getLogger(__name__)


def run_submit(settings: SubmitSettings) -> None:
    """Print the run's manifests, apply them with kubectl, or look after what was applied.

    Raises:
        ConfigError: The run file cannot be right, kubectl is not there or refuses, or a job that runs would have to be
            replaced.
    """
    run = parse_run(_read(Path(settings.file)), where=settings.file)
    cluster = RunInCluster(run.namespace, run.name, settings.stages)
    if settings.action == "status":
        write_result(cluster.describe())
    elif settings.action == "logs":
        cluster.show_logs(follow=settings.follow)
    elif settings.action == "delete":
        write_result(cluster.delete())
    else:
        objects = make_objects(run, settings)
        if settings.pin:
            pin_images(objects)
        if settings.apply:
            _apply(objects, run, RunInCluster(run.namespace, run.name), force=settings.force)
        else:
            for line in describe_costs(objects):
                _log.info("%s", line)
            for line in find_hints(objects, run):
                _log.warning("%s", line)
            write_result(write_objects(objects))


def make_objects(run: RunFile, settings: SubmitSettings) -> list[Object]:
    """The objects of the stages that are asked for.

    Raises:
        ConfigError: A file that the run names is not there, or kubectl is not there or refuses.
    """
    where = Path(settings.file)
    recipe = DEFAULT_RECIPE if run.recipe is None else _read(where.parent / run.recipe)
    folder = Path(settings.manifests) if settings.manifests else find_shipped("k8s")
    target = folder / run.folder
    if not (target / "kustomization.yaml").is_file():
        raise ConfigError(f"{settings.file}: overlay: {target} has no kustomization.yaml")
    stages = settings.stages or CHAIN
    resources = [target, *([_find_part(folder, "serve")] if "serve" in stages else [])]
    is_held = run.hold and {"sft", "eval"} & set(stages)
    components = [_find_part(folder, "components/hold")] if is_held else []
    if run.is_batch and "generate" in stages:
        components.append(_find_part(folder, "components/batch"))
    names = sorted(folder.rglob("kustomize-config.yaml"))
    text = _render(build_overlay(run, recipe, stages=stages), resources, components, names=names)
    return finish(read_objects(text), run)


def _find_part(folder: Path, name: str) -> Path:
    """A directory among one's own manifests, or ours where those have none."""
    own = folder / name
    return own if own.exists() else find_shipped("k8s") / name


def pin_images(objects: Sequence[Object]) -> None:
    """Give every image its digest, as its registry has it now; those that have one keep it.

    Raises:
        ConfigError: No tool can ask the registry, or it has no such image.
    """
    containers = [
        container for item in objects for template in pod_templates(item) for container in containers_of(template)
    ]
    tags = {container["image"] for container in containers if "@" not in container["image"]}
    digests = {image: find_digest(image) for image in sorted(tags)}
    for container in containers:
        image = container["image"]
        if image in digests:
            path, colon, tag = image.rpartition(":")
            container["image"] = f"{path if colon and '/' not in tag else image}@{digests[image]}"


def _apply(objects: list[Object], run: RunFile, cluster: RunInCluster, *, force: bool) -> None:
    """Look first, say what will be done, and do it; nothing is done where anything is in the way."""
    resources = cluster.list_resources()
    if problems := find_absent(objects, run, resources):
        raise ConfigError("; ".join(problems))
    steps = plan_jobs(objects, cluster.find_jobs(resources), force=force)
    lines = [step.describe() for step in steps] + describe_costs(objects) + find_hints(objects, run, resources)
    write_result("".join(f"{line}\n" for line in lines))
    if refused := [step for step in steps if step.action == "refuse"]:
        raise ConfigError("; ".join(f"{step.key[0]}/{step.key[1]} {step.reason}" for step in refused))
    for step in steps:
        if step.action == "replace":
            cluster.delete_job(*step.key)
    # What is kept is not applied: a job that was suspended, and was resumed since, would be suspended again.
    kept = {step.key for step in steps if step.action == "keep"}
    write_result(cluster.apply(write_objects(item for item in objects if key_of(item) not in kept)))


def _render(overlay: Overlay, resources: Sequence[Path], components: Sequence[Path], *, names: Sequence[Path]) -> str:
    """The overlay on top of directories of `k8s/`, rendered by `kubectl kustomize`.

    Args:
        overlay: What `build_overlay` made.
        resources: The directories it stands on.
        components: Directories of components.
        names: Files that tell kustomize where custom resources name other objects; it reads none but those that the
            kustomization itself lists.

    Raises:
        ConfigError: kubectl is not there, or refuses.
    """
    with tempfile.TemporaryDirectory(prefix="nanosft-submit-") as name:
        folder = Path(name).resolve()
        (folder / "run").mkdir()
        configurations = [f"names-{index}.yaml" for index in range(len(names))]
        for copy, path in zip(configurations, names, strict=True):
            shutil.copyfile(path, folder / "run" / copy)
        inner = {
            **overlay,
            "resources": [
                os.path.relpath(path.resolve(), folder / "run") for path in resources
            ],  # as kustomize wants it
            "components": [os.path.relpath(path.resolve(), folder / "run") for path in components],
            "configurations": configurations,
        }
        _write(folder / "run" / "kustomization.yaml", inner)
        # A second layer, since a suffix is given last: accounts are a stage's, not a run's. A role trusts them by name.
        accounts = [share_account(f"nanosft-{stage}{overlay['nameSuffix']}", f"nanosft-{stage}") for stage in ACCOUNTS]
        outer = {
            "resources": ["run"],
            "configurations": [f"run/{name}" for name in configurations],
            "patches": accounts,
        }
        _write(folder / "kustomization.yaml", outer)
        return render(str(folder))


def _write(path: Path, kustomization: Overlay) -> None:
    path.write_text(json.dumps(kustomization), encoding="utf-8")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: cannot be read: {exc}") from exc
