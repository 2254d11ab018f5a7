"""How much memory this process may use: the machine's, or what its container is allowed, under cgroup v1 and v2."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Final

_AVAILABLE: Final = re.compile(r"^MemAvailable: +([0-9]+) kB$", re.MULTILINE)
_V1: Final = ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
_V2: Final = ("sys/fs/cgroup", "memory.max")


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
