"""Installed from its wheel, nanosft works from an empty folder: it needs neither a checkout nor a working directory."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from nanosft.data import read_conversations
from tests.release import ROOT, wheel_command

RECIPE = """\
[[sources]]
name = "identity"
uri = "generated"
"""
RUN = """\
name = "second"
store = "s3://bucket/runs"
base = "s3://bucket/base"
overlay = "gpu"
[images]
cpu = "images.example.org/nanosft-cpu:1"
cuda = "images.example.org/nanosft-cuda:1"
"""


@pytest.fixture(scope="module")
def nanosft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command in a new environment with nanosft's wheel; its dependencies are those of this environment."""
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"  # what the Dockerfile copies, and nothing of the checkout's caches
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        source.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    for name in ("k8s", "knowledge", "nanosft"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(wheel_command(folder / "dist"), cwd=source, check=True)
    shutil.rmtree(source)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    python = folder / "venv" / "bin" / "python"
    (wheel,) = (folder / "dist").glob("*.whl")
    options = ["--no-deps", "--no-index", "--quiet", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", "--python", str(python), "install", *options], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = folder / "venv" / "lib" / version / "site-packages"
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "venv" / "bin" / "nanosft"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("empty")


def run(nanosft: Path, folder: Path, *words: str) -> str:
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([nanosft, *words], cwd=folder, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_package_is_the_installed_one_is_typed_and_holds_the_recipe_example(nanosft, folder):
    code = (
        "import nanosft, importlib.resources as r; f = r.files('nanosft'); print(f, f.joinpath('py.typed').is_file())"
    )
    code += "; print(f.joinpath('mix/recipe.example.toml').is_file())"
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [nanosft.with_name("python"), "-c", code]
    shown = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=True).stdout
    assert shown.split() == [str(next(nanosft.parents[1].glob("lib/*/site-packages/nanosft"))), "True", "True"]


def test_conversations_are_generated_from_the_shipped_knowledge_and_dimensions_and_mixed(nanosft, folder):
    run(nanosft, folder, "generate", "--provider", "offline", "--num", "5", "--out", "generated")
    assert len(list(read_conversations(str(folder / "generated")))) == 5
    assert "knowledge/self_knowledge.md  (as shipped)" in run(nanosft, folder, "describe", "generated")
    (folder / "recipe.toml").write_text(RECIPE)
    run(nanosft, folder, "mix", "--recipe", "recipe.toml", "--out", "mixture", "--workers", "1")
    assert len(list(read_conversations(str(folder / "mixture")))) == 5


def test_the_shipped_knowledge_base_is_checked(nanosft, folder):
    assert "nanochat" in run(nanosft, folder, "knowledge", "check")


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not on this machine")
def test_submit_renders_the_shipped_manifests(nanosft, folder):
    (folder / "run.toml").write_text(RUN)
    assert "images.example.org/nanosft-cuda:1" in run(nanosft, folder, "submit", "run.toml")
