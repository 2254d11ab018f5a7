"""What a release refuses, and what it leaves; docker is a script here, the wheel is real."""

import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from nanosft import __version__
from tests.release import ROOT, date_changelog, find_problems, release


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small repository with all that names a version, and the real packaging."""
    root = tmp_path / "checkout"
    for name in ("pyproject.toml", "README.md", "LICENSE", "Dockerfile"):
        root.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    for name in ("k8s", "knowledge", "infra"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("terraform"))
    (root / "nanosft").mkdir()
    (root / "nanosft" / "__init__.py").touch()
    (root / "CHANGELOG.md").write_text("# Changelog\n\n## 0.1.0 (unreleased)\n\n- First.\n")
    (root / ".gitignore").write_text("dist/\n")
    author = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    for words in (["init", "--quiet"], ["add", "--all"], [*author, "commit", "--quiet", "--message", "All"]):
        subprocess.run(["git", *words], cwd=root, check=True)
    return root


def test_this_repository_names_one_version_everywhere():
    passing = ("uncommitted", "CHANGELOG.md")  # of this working tree, and of the time after a release
    assert [problem for problem in find_problems(ROOT, __version__) if not problem.startswith(passing)] == []


def test_what_disagrees_with_the_version_is_named(checkout):
    (checkout / "k8s/base/mix-job.yaml").write_text("image: nanosft-cpu:0.0.9\n")
    assert find_problems(checkout, "0.1.0") == ["k8s/base/mix-job.yaml has 0.0.9", "uncommitted: k8s/base/mix-job.yaml"]
    problems = find_problems(checkout, "0.2.0")
    assert problems[0] == "pyproject.toml has version 0.1.0"
    assert "Dockerfile has 0.1.0" in problems
    assert "CHANGELOG.md has no heading '## 0.2.0 (unreleased)'" in problems
    assert find_problems(checkout, "v1")[0].startswith("'v1' is no version")


def test_a_dry_run_prints_the_commands_and_changes_nothing(checkout, capsys):
    release(checkout, "0.1.0", dry_run=True)
    shown = capsys.readouterr().out
    assert shown.count("docker build --target") == 2
    assert "nanosft-cuda:0.1.0" in shown
    assert shown.index("cosign sign images.example.org/nanosft-cpu@sha256:") > shown.index("spdx-json=sbom.spdx.json")
    assert find_problems(checkout, "0.1.0") == []
    assert not (checkout / "dist").exists()


def test_a_release_builds_the_wheel_and_both_images_and_dates_the_changelog(checkout, monkeypatch, tmp_path):
    docker = tmp_path / "docker"
    docker.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/docker.log\n')
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    release(checkout, "0.1.0", dry_run=False)
    (wheel,) = (checkout / "dist").glob("nanosft-0.1.0-*.whl")
    assert "nanosft/knowledge/self_knowledge.md" in zipfile.ZipFile(wheel).namelist()
    calls = (tmp_path / "docker.log").read_text().splitlines()
    assert [call.split()[2] for call in calls] == ["cpu", "cuda"]
    assert "(unreleased)" not in (checkout / "CHANGELOG.md").read_text()
    assert find_problems(checkout, "0.1.0")[-1] == "uncommitted: CHANGELOG.md"


def test_a_build_that_fails_leaves_the_changelog_undated(checkout, monkeypatch, tmp_path):
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\nexit 1\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(SystemExit, match="is not released"):
        release(checkout, "0.1.0", dry_run=False)
    assert "(unreleased)" in (checkout / "CHANGELOG.md").read_text()


def test_only_the_versions_own_heading_is_dated():
    text = "# Changelog\n\n## 0.2.0 (unreleased)\n\n## 0.1.0 (2026-01-01)\n"
    assert date_changelog(text, "0.2.0", "2026-02-02") == text.replace("unreleased", "2026-02-02")
