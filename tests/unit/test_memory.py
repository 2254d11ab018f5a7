"""Memory as a container has it: cgroup v1 and v2, nested, unlimited, absent."""

import os

import pytest

from nanosft.memory import find_free_memory_bytes, find_memory_bytes

GIB = 1 << 30
PHYSICAL = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def make(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V2, V1 = "sys/fs/cgroup", "sys/fs/cgroup/memory"
CASES = {
    "v2 in a container": ({f"{V2}/memory.max": f"{GIB}\n", "proc/self/cgroup": "0::/\n"}, GIB),
    "v1 in a container, whose path is the host's": (
        {f"{V1}/memory.limit_in_bytes": f"{GIB}\n", "proc/self/cgroup": "5:cpu:/a\n4:cpuset,memory:/docker/1\n"},
        GIB,
    ),
    "v2 on a host, the limit above our group": (
        {
            f"{V2}/user.slice/memory.max": f"{GIB}\n",
            f"{V2}/user.slice/app/memory.max": "max\n",
            "proc/self/cgroup": "0::/user.slice/app\n",
        },
        GIB,
    ),
    "v1 without a limit": ({f"{V1}/memory.limit_in_bytes": "9223372036854771712\n"}, PHYSICAL),
    "v2 without a limit": ({f"{V2}/memory.max": "max\n"}, PHYSICAL),
    "no control groups": ({}, PHYSICAL),
}


@pytest.mark.parametrize("case", CASES)
def test_the_smallest_limit_counts(tmp_path, case):
    files, expected = CASES[case]
    assert find_memory_bytes(make(tmp_path, files)) == expected


def test_free_memory_is_within_the_limit(tmp_path):
    root = make(tmp_path, {"proc/meminfo": "MemFree: 1 kB\nMemAvailable:    2048 kB\n"})
    assert find_free_memory_bytes(root) == 2 << 20
    assert find_free_memory_bytes(make(root, {f"{V2}/memory.max": str(1 << 20)})) == 1 << 20
    assert find_free_memory_bytes(tmp_path / "nowhere") <= PHYSICAL
