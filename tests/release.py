"""`make release VERSION=1.2.3`: the wheel, the images and the changelog's date of a version.

    python -m tests.release 1.2.3 [--dry-run]

Looks first whether all that names the version agrees and nothing is uncommitted; `--dry-run` ends there and prints the
commands. The changelog is dated last, when everything is built; committing, tagging and pushing are a person's.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]
TARGETS = ("cpu", "cuda")
_IMAGE = re.compile(r"nanosft-(?:cpu|cuda):(\d[\w.]*)")
_LABEL = re.compile(r'app\.kubernetes\.io/version: "([^"]+)"')
_UNRELEASED = "unreleased"


def find_problems(root: Path, version: str) -> list[str]:
    """What stands against releasing `version` from the checkout at `root`, one sentence each."""
    problems = []
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        problems.append(f"{version!r} is no version: write three numbers, such as 1.2.3")
    declared = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    if declared != version:
        problems.append(f"pyproject.toml has version {declared}")
    for path in [root / "Dockerfile", *sorted(root.glob("k8s/**/*.*")), *sorted(root.glob("infra/*.*"))]:
        text = path.read_text(encoding="utf-8")
        found = set(_IMAGE.findall(text)) | set(re.findall(r"^ARG VERSION=(.+)$", text, re.MULTILINE))
        found |= set(_LABEL.findall(text))
        problems += [f"{path.relative_to(root)} has {other}" for other in sorted(found - {version})]
    if f"\n## {version} ({_UNRELEASED})\n" not in (root / "CHANGELOG.md").read_text(encoding="utf-8"):
        problems.append(f"CHANGELOG.md has no heading '## {version} ({_UNRELEASED})'")
    if changed := _run(["git", "status", "--porcelain"], root):
        problems.append(f"uncommitted: {', '.join(line[3:] for line in changed.splitlines())}")
    return problems


def date_changelog(text: str, version: str, date: str) -> str:
    """The changelog with the version's date in place of its "unreleased"."""
    return text.replace(f"\n## {version} ({_UNRELEASED})\n", f"\n## {version} ({date})\n")


def wheel_command(folder: Path) -> list[str]:
    """What builds the wheel into `folder`, from the locked build backend and without a network."""
    options = ["--no-build-isolation", "--no-deps", "--no-index", "--quiet", "--wheel-dir", str(folder)]
    return [sys.executable, "-m", "pip", "wheel", *options, "."]


def image_command(target: str, version: str, revision: str) -> list[str]:
    """What builds and tags the image of one of the Dockerfile's targets."""
    arguments = ["--build-arg", f"VERSION={version}", "--build-arg", f"REVISION={revision}"]
    return ["docker", "build", "--target", target, *arguments, "--tag", f"nanosft-{target}:{version}", "."]


def signing_commands(image: str) -> list[list[str]]:
    """What lists an image's packages, signs it, and attests that list; a person runs it, with an identity of theirs."""
    return [
        ["syft", image, "--output", "spdx-json=sbom.spdx.json"],
        ["cosign", "sign", image],
        ["cosign", "attest", "--type", "spdxjson", "--predicate", "sbom.spdx.json", image],
    ]


def release(root: Path, version: str, *, dry_run: bool) -> None:
    """Check, build, date.

    Raises:
        SystemExit: There are problems, or a build failed.
    """
    problems = find_problems(root, version)
    if not dry_run and shutil.which("docker") is None:
        problems.append("docker is not on the PATH: the images cannot be built")
    if problems:
        raise SystemExit("\n".join([f"{version} cannot be released:", *problems]))
    revision = _run(["git", "rev-parse", "HEAD"], root).strip()
    commands = [wheel_command(root / "dist"), *(image_command(target, version, revision) for target in TARGETS)]
    for command in commands:
        _say(" ".join(command))
        if not dry_run and subprocess.run(command, cwd=root, check=False).returncode != 0:
            raise SystemExit(f"{version} is not released: {' '.join(command[:4])} … failed")
    date = datetime.now(UTC).date().isoformat()
    _say(f"CHANGELOG.md: {version} ({date})")
    if not dry_run:
        path = root / "CHANGELOG.md"
        path.write_text(date_changelog(path.read_text(encoding="utf-8"), version, date), encoding="utf-8")
        _say(f"Now: git commit -a -m 'Release {version}' && git tag v{version}, and push both, dist/ and the images")
    _say("Then, for each image by the digest that its registry gave it (a tag may be moved, a digest may not):")
    for command in signing_commands("images.example.org/nanosft-cpu@sha256:…"):
        _say(f"    {' '.join(command)}")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _run(command: list[str], root: Path) -> str:
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.release")
    parser.add_argument("version")
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args()
    release(ROOT, options.version, dry_run=options.dry_run)
