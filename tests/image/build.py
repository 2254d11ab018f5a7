"""The image, built by buildah from the repository's Dockerfile."""

import configparser
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

ROOT = Path(__file__).parents[2]
BASE = "docker.io/library/debian:bookworm-slim"
NEEDED = ("buildah", "podman", "runc", "debootstrap")
# What Debian's slim images leave out as well.
NOT_IN_SLIM = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "var/cache/apt",
    "var/lib/apt/lists",
)


def missing_tools() -> list[str]:
    """Programs that are needed and not there."""
    return [name for name in NEEDED if shutil.which(name) is None]


def run(command: Sequence[str], *, env: dict[str, str] | None = None, quiet: bool = True) -> str:
    """Run a program; what it wrote to standard output, or else to standard error.

    Raises:
        SystemExit: It failed; its output has been printed.
    """
    done = subprocess.run(
        list(command), capture_output=quiet, text=True, check=False, env={**os.environ, **(env or {})}, cwd=ROOT
    )
    if done.returncode != 0:
        raise SystemExit(
            f"{' '.join(command[:3])} … exited with {done.returncode}\n{done.stdout or ''}{done.stderr or ''}"
        )
    return done.stdout or done.stderr or ""


def ensure_base(console: Console) -> None:
    """Have the Dockerfile's base image: pulled, or made by debootstrap and tagged as the real one."""
    if subprocess.run(["podman", "image", "exists", BASE], check=False).returncode == 0:
        console.print(f"base       {BASE} is there")
        return
    if subprocess.run(["podman", "pull", "--quiet", BASE], capture_output=True, check=False).returncode == 0:
        console.print(f"base       {BASE} pulled")
        return
    with tempfile.TemporaryDirectory(prefix="nanosft-base-") as name:
        rootfs = Path(name) / "rootfs"
        run(["debootstrap", "--variant=minbase", "bookworm", str(rootfs)])
        for folder in NOT_IN_SLIM:
            shutil.rmtree(rootfs / folder, ignore_errors=True)
            (rootfs / folder).mkdir(parents=True)
        (rootfs / "etc/apt/apt.conf.d/docker-clean").write_text(
            'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/*.bin || true"; };\n'
            'Dir::Cache::pkgcache ""; Dir::Cache::srcpkgcache "";\n'
        )
        (rootfs / "etc/dpkg/dpkg.cfg.d/docker").write_text(
            "path-exclude /usr/share/doc/*\npath-exclude /usr/share/man/*\npath-exclude /usr/share/locale/*\n"
        )
        archive = Path(name) / "rootfs.tar"
        run(["tar", "--directory", str(rootfs), "--create", "--file", str(archive), "."])
        run(["podman", "import", "--quiet", str(archive), BASE])
    console.print(f"base       {BASE}: no registry in reach, made by debootstrap and tagged as the real one")


def build(tag: str, console: Console) -> None:
    """Build the cpu target. This machine's pip configuration, its CA and its wheels are mounts, never layers."""
    with tempfile.TemporaryDirectory(prefix="nanosft-build-") as name:
        settings, mounts = machine_pip_settings()
        config = Path(name) / "pip.conf"
        parser = configparser.ConfigParser(interpolation=None)
        parser["global"] = settings
        with config.open("w", encoding="utf-8") as file:
            parser.write(file)
        volumes = [f"--volume={source}:{target}:ro" for source, target in mounts]
        options = ["--network=host", "--isolation=chroot", "--layers", "--pull=never", "--target=cpu", f"--tag={tag}"]
        secret = f"--secret=id=pip_conf,src={config}"
        run(["buildah", "build", *options, secret, *volumes, "."])
    console.print(f"built      {tag}")


def machine_pip_settings() -> tuple[dict[str, str], list[tuple[str, str]]]:
    """What a pip.conf in the build needs of this machine's: (settings, mounts from here to there)."""
    settings, mounts = {}, []
    listed = run([shutil.which("python3") or "python3", "-m", "pip", "config", "list"])
    found = dict(line.split("=", 1) for line in listed.splitlines() if "=" in line)
    values = {name.rpartition(".")[2]: value.strip("'\"") for name, value in found.items()}
    if (certificates := values.get("cert")) and Path(certificates).is_file():
        mounts.append((str(Path(certificates).resolve()), "/run/build-ca.pem"))
        settings["cert"] = "/run/build-ca.pem"
    if (wheels := values.get("find-links")) and Path(wheels).is_dir():
        mounts.append((wheels, wheels))
        settings["find-links"] = wheels
    if (index := values.get("index-url")) and index.startswith("http"):
        settings["index-url"] = index
    return settings, mounts
