"""`nanosft submit`: the Kubernetes manifests of a run, made of `k8s/` and one TOML file, so that nobody edits YAML.

    name = "second"                     # becomes a suffix of every object's name, a label, and the runs' prefix
    store = "s3://nanosft"              # s3://nanosft/second/generated, …/mixture, …/model, …/evaluation
    base = "s3://nanosft/base"
    overlay = "gpu"                     # base, or a directory of k8s/overlays: local, gpu, trainjob
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

It writes an overlay of its own into a temporary directory and lets `kubectl kustomize` render it.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from nanosft.errors import ConfigError
from nanosft.settings.run import SubmitSettings
from nanosft.shipped import find_shipped
from nanosft.submit.overlay import STAGES, Overlay, build_overlay, rename_account
from nanosft.submit.run_file import parse_run

DEFAULT_RECIPE: Final = '[[sources]]\nname = "identity"\nuri = "{generated}"\n'


def run_submit(settings: SubmitSettings) -> None:
    """Print the run's manifests, or apply them with kubectl.

    Raises:
        ConfigError: The run file cannot be right, or kubectl is not there or refuses.
    """
    path = Path(settings.run)
    run = parse_run(_read(path), where=settings.run)
    recipe = DEFAULT_RECIPE if run.recipe is None else _read(path.parent / run.recipe)
    folder = Path(settings.manifests) if settings.manifests else find_shipped("k8s")
    target = folder / "base" if run.overlay == "base" else folder / "overlays" / run.overlay
    if not (target / "kustomization.yaml").is_file():
        raise ConfigError(f"{settings.run}: overlay: {target} has no kustomization.yaml")
    names = sorted(folder.rglob("kustomize-config.yaml"))
    rendered = render(build_overlay(run, recipe, stages=settings.stages), target, names=names)
    if settings.apply:
        sys.stdout.write(_kubectl(["apply", "--namespace", run.namespace, "--filename", "-"], rendered))
    else:
        sys.stdout.write(rendered)


def render(overlay: Overlay, target: Path, *, names: Sequence[Path]) -> str:
    """The overlay on top of `target`, rendered by `kubectl kustomize`.

    Args:
        overlay: What `build_overlay` made.
        target: The directory it stands on.
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
        resources = [os.path.relpath(target.resolve(), folder / "run")]  # kustomize wants it relative
        inner = {**overlay, "resources": resources, "configurations": configurations}
        _write(folder / "run" / "kustomization.yaml", inner)
        # A second layer, since a suffix is given last: accounts are a stage's, not a run's. A role trusts them by name.
        accounts = [rename_account(f"nanosft-{stage}{overlay['nameSuffix']}", f"nanosft-{stage}") for stage in STAGES]
        outer = {
            "resources": ["run"],
            "configurations": [f"run/{name}" for name in configurations],
            "patches": accounts,
        }
        _write(folder / "kustomization.yaml", outer)
        return _kubectl(["kustomize", str(folder)], "")


def _write(path: Path, kustomization: Overlay) -> None:
    path.write_text(json.dumps(kustomization), encoding="utf-8")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: cannot be read: {exc}") from exc


def _kubectl(arguments: list[str], text: str, *, find: Callable[[str], str | None] = shutil.which) -> str:
    program = find("kubectl")
    if program is None:
        raise ConfigError("kubectl is not on the PATH: install it, or set PATH; submit renders and applies with it")
    done = subprocess.run([program, *arguments], input=text, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        raise ConfigError(f"kubectl {arguments[0]}: {' '.join(done.stderr.split()) or f'exit {done.returncode}'}")
    return done.stdout
