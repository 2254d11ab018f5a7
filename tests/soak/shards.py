"""Many rows by many shards: what they ask of their store, a row, and what the one that finishes the set takes.

The store is S3 (moto), whose requests are counted. The shards run a few at a time; the last one, which finds all rows
made and writes the set, runs alone.
"""

import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.conftest import open_raw_client, use_endpoint
from tests.s3_proxy import S3Proxy
from tests.servers import run_moto
from tests.soak.watch import ROOT, run_watched
from tests.soak.world import manifest_of, nanosft
from tests.stub_batches import BatchStub, serve_batches
from tests.stub_provider import KNOWLEDGE, run_stub

_OUT: Final = "s3://soak/shards"


@dataclass(frozen=True)
class Shards:
    """What a set of many shards took.

    Attributes:
        num_rows: In all.
        num_shards: Processes that made them.
        delivered: Rows of the finished set.
        requests: To the store, of all shards but the last, by method and kind.
        last_requests: Of the last one.
        elapsed_s: Of all but the last, a few at a time.
        last_s: Of the last one, from its start to its end.
        last_mib: Its largest memory.
    """

    num_rows: int
    num_shards: int
    delivered: int
    requests: Counter[str]
    last_requests: Counter[str]
    elapsed_s: float
    last_s: float
    last_mib: float


def make_in_shards(
    folder: Path,
    *,
    num_rows: int,
    num_shards: int,
    mode: str,
    jobs: int,
    on_done: Callable[[int], object] = lambda _num: None,
) -> Shards:
    """Generate a set in shards against a stub of the API.

    Args:
        folder: For logs.
        num_rows: In all.
        num_shards: Processes.
        mode: `sync` or `batch`.
        jobs: Shards at a time.
        on_done: Told how many shards are done.

    Raises:
        RuntimeError: One has failed.
    """
    with ExitStack() as stack:
        url = stack.enter_context(run_moto(folder))
        use_endpoint(stack.enter_context(pytest.MonkeyPatch.context()), url)
        open_raw_client(url).create_bucket(Bucket="soak")
        proxy = stack.enter_context(S3Proxy(url))
        stack.enter_context(pytest.MonkeyPatch.context()).setenv("AWS_ENDPOINT_URL", proxy.url)
        words = ["--out", _OUT, "--knowledge", KNOWLEDGE, "--num", num_rows, "--model", "stub"]
        if mode == "batch":
            api_url = stack.enter_context(serve_batches(BatchStub(num_rows)))
            words += ["--mode", "batch", "--openrouter-fields", "--batch-rest", 0, "--batch-poll-s", 1]
        else:
            api_url = stack.enter_context(run_stub(num=num_rows)).base_url
        words += ["--base-url", api_url, "--num-shards", num_shards, "--concurrency", 256]
        commands = [nanosft("generate", *words, "--shard-index", shard) for shard in range(num_shards)]
        started_s = time.monotonic()
        _run_some_at_a_time(commands[:-1], jobs, folder, on_done)
        elapsed_s, requests = time.monotonic() - started_s, proxy.count()
        started_s = time.monotonic()
        last = run_watched(commands[-1], log=folder / "last.log")
        last_s, last_requests = time.monotonic() - started_s, proxy.count()
        delivered = manifest_of(_OUT).num_rows
    return Shards(num_rows, num_shards, delivered, requests, last_requests, elapsed_s, last_s, last.largest_mib)


def _run_some_at_a_time(
    commands: Sequence[Sequence[str]], jobs: int, folder: Path, on_done: Callable[[int], object]
) -> None:
    waiting, running, num_done = list(enumerate(commands)), dict[int, "subprocess.Popen[bytes]"](), 0
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                number, command = waiting.pop(0)
                with (folder / f"{number}.log").open("wb") as log:
                    running[number] = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)
            time.sleep(0.05)
            for number in [number for number, process in running.items() if process.poll() is not None]:
                if code := running.pop(number).returncode:
                    text = (folder / f"{number}.log").read_text()
                    raise RuntimeError(f"shard {number}: exit code {code}: {text[-2000:]}")
                num_done += 1
                on_done(num_done)
    finally:
        for process in running.values():
            process.kill()
