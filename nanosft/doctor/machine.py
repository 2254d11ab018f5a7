"""Packages, devices, memory and disk of this machine, or of this container."""

import os
import re
import shutil
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Final

import torch

from nanosft.doctor.finding import Finding
from nanosft.errors import ConfigError
from nanosft.memory import find_free_memory_bytes, find_memory_bytes
from nanosft.nanochat.attention import probe_attention

_REQUIREMENT: Final = re.compile(r"(?P<name>[\w.-]+)(?:(?P<sign>==|>=)(?P<version>[\w.]+))?")
_NVIDIA: Final = Path("/proc/driver/nvidia/version")
_SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - looked at, not written to
_GIB: Final = 1 << 30
_LEAST_MEMORY_BYTES: Final = _GIB
_LEAST_DISK_BYTES: Final = 2 * _GIB
_LEAST_SHARED_BYTES: Final = _GIB


def check_versions() -> Finding:
    """Whether the packages that nanosft needs are there, in the versions that it needs."""
    wrong = []
    for text in requires("nanosft") or []:
        match = _REQUIREMENT.match(text)
        if match is None or ";" in text:  # of an extra
            continue
        try:
            there = version(match["name"])
        except PackageNotFoundError:
            wrong.append(f"{match['name']} is missing")
            continue
        if not _satisfies(there, match["sign"], match["version"]):
            wrong.append(f"{match['name']} is {there}, not {match['sign']}{match['version']}")
    python = ".".join(map(str, sys.version_info[:3]))
    found = f"nanosft {version('nanosft')}, Python {python}, torch {torch.__version__}"
    if wrong:
        remedy = "pip install --upgrade nanosft"
        return Finding("versions", "error", f"{found}; {', '.join(wrong)}", remedy, ConfigError.exit_code)
    return Finding("versions", "ok", found)


def _satisfies(there: str, sign: str | None, wanted: str | None) -> bool:
    if sign is None or wanted is None:
        return True
    one, other = _numbers(there), _numbers(wanted)
    return one[: len(other)] == other if sign == "==" else one >= other


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text.partition("+")[0])))


def check_device(name: str) -> Finding:
    """The device that runs will have, what it computes in, and the attention that it gets, tried out."""
    if name != "cpu" and not torch.cuda.is_available() and (name == "cuda" or _NVIDIA.exists()):
        why = f"torch {torch.__version__} is built without CUDA" if torch.version.cuda is None else "torch finds none"
        remedy = (
            f"pip install torch=={torch.__version__.partition('+')[0]} as the CUDA build, or a driver for it "
            "(nvidia-smi tells), or --device cpu"
        )
        found = f"a GPU is wanted and not usable: {why}"
        if name == "cuda":
            return Finding("device", "error", found, remedy, ConfigError.exit_code)
        return Finding("device", "warning", found, remedy)
    dtype = torch.float32
    if name == "cpu" or not torch.cuda.is_available():
        cores = len(os.sched_getaffinity(0))
        device, said = torch.device("cpu"), f"CPU, {cores} cores, {torch.get_num_threads()} threads"
    else:
        device = torch.device("cuda", 0)
        names = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        said = f"{len(names)} GPUs: " + ", ".join(f"{item.name} {item.total_memory / _GIB:.0f} GiB" for item in names)
        if torch.cuda.get_device_capability(device) >= (8, 0):
            dtype = torch.bfloat16
    try:
        attention = probe_attention(device, dtype)
    except RuntimeError as exc:
        reason = str(exc).splitlines()[0]
        remedy = "--dtype float32, or another build of torch"
        return Finding("device", "error", f"{said}: attention fails: {reason}", remedy, ConfigError.exit_code)
    return Finding("device", "ok", f"{said}; {str(dtype).removeprefix('torch.')}, attention: {attention}")


def check_memory() -> Finding:
    """What this process may use, its container's limit counted in."""
    whole, free = find_memory_bytes(), find_free_memory_bytes()
    found = f"{free / _GIB:.1f} GiB free of {whole / _GIB:.1f} GiB that this process may use"
    if free < _LEAST_MEMORY_BYTES:
        remedy = (
            "a larger memory limit of the container, or stop what else runs: mix needs 1 GiB, train --preflight tells"
        )
        return Finding("memory", "warning", found, remedy)
    return Finding("memory", "ok", found)


def check_disk(work_dir: str | None) -> Finding:
    """Free space where mix spills and checkpoints are copied to."""
    folder = Path(work_dir or tempfile.gettempdir())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"nanosft")
        free = shutil.disk_usage(folder).free
    except OSError as exc:
        remedy = "--work-dir DIRECTORY, or TMPDIR=DIRECTORY"
        return Finding("disk", "error", f"{folder}: {exc.strerror}", remedy, ConfigError.exit_code)
    found = f"{free / _GIB:.1f} GiB free under {folder}"
    if free < _LEAST_DISK_BYTES:
        remedy = "--work-dir on a larger disk: mix spills up to two and a half times its data"
        return Finding("disk", "warning", found, remedy)
    return Finding("disk", "ok", found)


def check_shared_memory() -> Finding | None:
    """Shared memory, through which NCCL's ranks of a node exchange; None where there is no GPU."""
    if not torch.cuda.is_available() or not _SHARED_MEMORY.is_dir():
        return None
    size = shutil.disk_usage(_SHARED_MEMORY).total
    found = f"{size / _GIB:.2f} GiB in {_SHARED_MEMORY}"
    if size < _LEAST_SHARED_BYTES:
        remedy = "docker run --shm-size=8g, or an emptyDir of medium Memory (k8s/base/sft-job.yaml)"
        return Finding("shared memory", "warning", found, remedy)
    return Finding("shared memory", "ok", found)
