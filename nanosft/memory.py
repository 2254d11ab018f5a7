"""How much memory this process may use: the machine's, or what its container is allowed, under cgroup v1 and v2.

And what the C library does with memory that was freed.
"""

import ctypes
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Final

_AVAILABLE: Final = re.compile(r"^MemAvailable: +([0-9]+) kB$", re.MULTILINE)
_V1: Final = ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
_V2: Final = ("sys/fs/cgroup", "memory.max")
_M_TRIM_THRESHOLD: Final = -1
_M_TOP_PAD: Final = -2
_M_MMAP_THRESHOLD: Final = -3
_M_MMAP_MAX: Final = -4
_TOP_PAD_BYTES: Final = 64 << 20


def find_memory_bytes(root: Path = Path("/")) -> int:
    """The machine's memory, or the smallest limit of the control groups that this process is in.

    Args:
        root: Where /proc and /sys are; tests have their own.
    """
    return min([os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *_find_limits(root)])


def find_free_memory_bytes(root: Path = Path("/")) -> int:
    """What new pages the machine can still give, or the control groups' limit if that is less."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError):
        if found := _AVAILABLE.search((root / "proc/meminfo").read_text(encoding="ascii")):
            free = int(found[1]) * 1024
    return min([free, *_find_limits(root)])


def _find_limits(root: Path) -> Iterator[int]:
    """The limits of the process's control groups and all those above them. "max", or no file, is none."""
    for folder, name, path in _find_groups(root):
        for above in (path, *path.parents):
            with suppress(OSError, ValueError):
                yield int((root / folder / str(above).lstrip("/") / name).read_text(encoding="ascii"))


def _find_groups(root: Path) -> Iterator[tuple[str, str, PurePosixPath]]:
    """Folder, file and path of each hierarchy that may limit memory.

    In a container the path is often the host's, which is not there: the container's own group is then at the root.
    """
    lines = ["0::/", "0:memory:/"]
    with suppress(OSError):
        lines += (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield *_V2, PurePosixPath(path)
        elif "memory" in controllers.split(","):
            yield *_V1, PurePosixPath(path)


def keep_freed_memory(most_bytes: int | None = None, environ: Mapping[str, str] = os.environ) -> bool:
    """Have glibc keep what is freed for the next allocation, for the rest of the process; whether it does now.

    Where the same tensors or batches are made and dropped again and again, glibc takes each from the kernel and gives
    it back, and the kernel fills every page with zeros at its first touch. That was a sixth of the time of workers that
    look for near duplicates, and 8 to 14 % of a train step on CPU (`nanochat_base`, rows of 2,048 tokens, two quiet
    cores), whose peak memory grew by 3 to 6 %. A user's own `MALLOC_…` or `GLIBC_TUNABLES` stays, and other C libraries
    are left alone. Source: mallopt(3).

    Args:
        most_bytes: What is kept at the most, in free memory and in one allocation, up to 32 MiB; None: everything.
        environ: Where the user's own settings are.
    """
    if "GLIBC_TUNABLES" in environ or any(name.startswith("MALLOC_") for name in environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None:
        return False
    limits = ((_M_TRIM_THRESHOLD, most_bytes), (_M_MMAP_THRESHOLD, most_bytes))
    everything = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_TOP_PAD, _TOP_PAD_BYTES))
    return all(mallopt(parameter, value) == 1 for parameter, value in (limits if most_bytes else everything))
