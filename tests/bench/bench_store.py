"""Store and data set: bytes and conversations per second, and memory, beside the plainest way to do the same.

Each figure is taken in a process of its own, whose peak memory is that of the task. The plain way is the
standard library's file, boto3's own upload and body (moto is the server of both), and `json.loads` of each line.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.conftest import open_raw_client
from tests.servers import ACCESS_KEY, SECRET_KEY, run_moto

_MIB = 1 << 20
_SHARED = Path(os.environ.get("SHARED_DIR", Path(__file__).parents[3] / "shared"))
_BUCKET = "bench"

_TASK = """
import os, resource, sys, time
{setup}
start_s = time.perf_counter()
{task}
elapsed_s = time.perf_counter() - start_s
with open("/proc/self/status") as status:
    peak_kib = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(elapsed_s, peak_kib)
"""
_OPEN = "from nanosft.store import open_store; store = open_store({uri!r}); store.exists('x')"
_WRITE = """
piece = os.urandom(1 << 20)
with store.open_write('large') as writer:
    for _ in range({num_mib}):
        writer.write(piece)
"""
_READ = """
with store.open_read('large') as stream:
    while stream.read(1 << 20):
        pass
"""
_RAW_OPEN = "from tests.conftest import open_raw_client; client = open_raw_client({url!r}); client.list_buckets()"
_PLAIN_WRITE = """
piece = os.urandom(1 << 20)
with open({path!r}, 'wb') as file:
    for _ in range({num_mib}):
        file.write(piece)
    file.flush()
    os.fsync(file.fileno())
"""
_PLAIN_READ = """
with open({path!r}, 'rb') as file:
    while file.read(1 << 20):
        pass
"""
_PARSE = """
num = sum(1 for _ in read_conversations({path!r}))
"""
_PLAIN_PARSE = """
with open({path!r}, 'rb') as file:
    num = sum(1 for line in file if json.loads(line))
"""


def run(console: Console, *, quick: bool) -> None:
    """Print the tables."""
    num_mib = 50 if quick else 200
    with tempfile.TemporaryDirectory() as name, run_moto(Path(name)) as url:
        folder = Path(name)
        open_raw_client(url).create_bucket(Bucket=_BUCKET)
        _bench_bytes(console, folder, url, num_mib)
        _bench_conversations(console, folder, num_copies=10 if quick else 50)


def _bench_bytes(console: Console, folder: Path, url: str, num_mib: int) -> None:
    table = Table("task", "nanosft MiB/s", "plain MiB/s", "ratio", "peak MiB", title=f"{num_mib} MiB, one object")
    path = str(folder / "plain")
    big = folder / "big"
    local, s3 = _OPEN.format(uri=str(folder / "store")), _OPEN.format(uri=f"s3://{_BUCKET}")
    raw = _RAW_OPEN.format(url=url)
    send = f"client.upload_file({str(big)!r}, {_BUCKET!r}, 'raw')"
    fetch = f"for _ in client.get_object(Bucket={_BUCKET!r}, Key='large')['Body'].iter_chunks(1 << 20): pass"
    with big.open("wb") as file:
        for _ in range(num_mib):
            file.write(os.urandom(_MIB))
    for task, ours, plain in (
        ("directory, write and sync", (local, _WRITE), ("", _PLAIN_WRITE)),
        ("directory, read", (local, _READ), ("", _PLAIN_READ)),
        ("S3, write", (s3, _WRITE), (raw, send)),
        ("S3, read", (s3, _READ), (raw, fetch)),
    ):
        seconds, peak_bytes = _measure(*ours, url, num_mib=num_mib)
        plain_seconds, _ = _measure(*plain, url, path=path, num_mib=num_mib)
        table.add_row(
            task,
            f"{num_mib / seconds:,.0f}",
            f"{num_mib / plain_seconds:,.0f}",
            f"{plain_seconds / seconds:.2f}",
            f"{peak_bytes / _MIB:.0f}",
        )
    shutil.rmtree(folder / "store")
    console.print(table)


def _bench_conversations(console: Console, folder: Path, *, num_copies: int) -> None:
    source = _SHARED / "data" / "identity_a.jsonl"
    if not source.exists():
        console.print(f"[red]not measured: {source} is not there")
        return
    path = folder / "copies.jsonl"
    text = source.read_bytes()
    with path.open("wb") as file:
        for _ in range(num_copies):
            file.write(text)
    num = num_copies * text.count(b"\n")
    table = Table("task", "conversations/s", "MB/s", "ratio", "peak MiB", title=f"{num:,} conversations, one process")
    plain_s, plain_bytes = _measure("import json", _PLAIN_PARSE.format(path=str(path)), "")
    ours_s, ours_bytes = _measure("from nanosft.data import read_conversations", _PARSE.format(path=str(path)), "")
    size_mb = path.stat().st_size / 1e6
    for task, seconds, peak_bytes in (
        ("read_conversations (checked)", ours_s, ours_bytes),
        ("json.loads of each line", plain_s, plain_bytes),
    ):
        ratio, peak = f"{plain_s / seconds:.2f}", f"{peak_bytes / _MIB:.0f}"
        table.add_row(task, f"{num / seconds:,.0f}", f"{size_mb / seconds:.0f}", ratio, peak)
    console.print(table)


def _measure(setup: str, task: str, url: str, **values: object) -> tuple[float, int]:
    """Seconds of the task alone, and the process's peak memory in bytes."""
    program = _TASK.format(setup=setup, task=task.format(**values) if values else task)
    env = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_ENDPOINT_URL": url,
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    done = subprocess.run([sys.executable, "-c", program], env=env, check=True, capture_output=True, text=True)
    seconds, peak_kib = done.stdout.split()
    return float(seconds), int(peak_kib) << 10
