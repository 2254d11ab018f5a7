"""The long runs: what the generator, the mixture, the trainer and the server take while they do much of one thing.

Each is the command itself in a process of its own. Nothing is asserted about time.
"""

import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nanosft.conversation import Conversation, Message, to_line
from tests.bench.bench_mix import write_sources
from tests.servers import find_free_ports
from tests.soak.watch import MIB, Course, Watched, run_watched, summarize, watching
from tests.stub_provider import KNOWLEDGE, run_stub

_G5: Final = str(Path(__file__).parents[1] / "golden" / "nanochat" / "g5")
_TINY: Final = str(Path(__file__).parents[1] / "golden" / "begun" / "base")
IN_FLIGHT: Final = 2_000
LATENCY_S: Final = 8.0
"""More than two quiet cores need for 2,000 rows: with less, answers wait for a core, and fewer requests are open."""
_INDEX_BYTES: Final = 1_150
"""Of a row that generate has accepted: its index of near-duplicates, whose arrays double, is meant to grow."""
_NUM_CLIENTS: Final = 16
_MIX_LIMIT_MIB: Final = 256
_SAVE_EVERY: Final = 20


@dataclass(frozen=True)
class Load:
    """A long run that is over.

    Attributes:
        name: Of the command, and how much of what it did.
        watched: What it took meanwhile.
        elapsed_s: From the start of the process to its end.
        allowed_mib: Growth from the second quarter to the last one that is meant.
        limit_mib: What the command promises of each process, whose memory is then judged by nothing else: one that
            goes from one kind of work to the next has no level to keep.
    """

    name: str
    watched: Watched
    elapsed_s: float
    allowed_mib: float = 0.0
    limit_mib: float | None = None

    def courses(self) -> dict[str, tuple[Course, bool]]:
        """Of each measure: how it went, and whether it is flat."""
        found = {}
        for measure in self.watched.samples[0]:
            course = summarize([sample[measure] for sample in self.watched.samples])
            flat = course.is_flat(measure, self.allowed_mib if measure == "MiB" else 0.0)
            if measure == "MiB" and self.limit_mib is not None:
                flat = self.watched.largest_mib <= self.limit_mib
            found[measure] = course, flat
        return found


def load_generate(folder: Path, share: float, *, latency_s: float = LATENCY_S) -> Load:
    """100,000 rows, 2,000 requests in flight, every gate on."""
    num = round(100_000 * share)
    with run_stub(num=num, latency_s=latency_s) as stub:
        words = ["--out", str(folder / "set"), "--knowledge", KNOWLEDGE, "--num", str(num), "--model", "stub"]
        words += ["--base-url", stub.base_url, "--concurrency", str(IN_FLIGHT), "--row-timeout-s", "3600"]
        started_s = time.monotonic()
        found = run_watched(_nanosft("generate", *words), log=folder / "log")
    allowed = num * _INDEX_BYTES / MIB / 2  # half of the rows lie between the middles of the two quarters
    return Load(
        f"generate, {num:,} rows, {IN_FLIGHT:,} in flight, {latency_s:g} s an answer",
        found,
        time.monotonic() - started_s,
        allowed,
    )


def load_mix(folder: Path, share: float) -> Load:
    """A million rows with every check, and a quarter of the memory that a process may have by default."""
    num = round(1_000_000 * share)
    data = folder / "data"
    data.mkdir()
    write_sources(data, num)
    recipe = folder / "recipe.toml"
    recipe.write_text("".join(f'[[sources]]\nname = "{path.stem}"\nuri = "{path}"\n' for path in data.iterdir()))
    words = ["--recipe", str(recipe), "--out", str(folder / "out"), "--work-dir", str(folder)]
    started_s = time.monotonic()
    found = run_watched(_nanosft("mix", *words, "--memory-limit", str(_MIX_LIMIT_MIB)), log=folder / "log")
    return Load(f"mix, {num:,} rows", found, time.monotonic() - started_s, limit_mib=_MIX_LIMIT_MIB)


def load_train(folder: Path, share: float) -> Load:
    """2,000 steps with a state at every 20th."""
    num_steps = round(2_000 * share)
    data = folder / "data.jsonl"
    texts = ((f"Say {number}.", f"It is {number % 7} of {number}.") for number in range(2_000))
    data.write_bytes(b"".join(to_line(Conversation((Message("user", q), Message("assistant", a)))) for q, a in texts))
    words = ["--base", _TINY, "--data", str(data), "--val-data", str(data), "--out", str(folder / "run")]
    words += ["--max-seq-len", "128", "--total-batch-size", "512", "--max-steps", str(num_steps), "--eval-rows", "4"]
    words += ["--save-every", str(_SAVE_EVERY), "--device", "cpu", "--dtype", "float32", "--num-threads", "1"]
    started_s = time.monotonic()
    found = run_watched(_nanosft("train", *words), log=folder / "log")
    return Load(f"train, {num_steps:,} steps, a state every {_SAVE_EVERY}", found, time.monotonic() - started_s)


def load_serve(folder: Path, share: float) -> Load:
    """10,000 requests from 16 clients: whole, streamed, and streamed to clients that leave."""
    num = round(10_000 * share)
    (port,) = find_free_ports(1)
    command = _nanosft("serve", "--model", f"small={_G5}", "--device", "cpu", "--port", str(port))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log, stdout=log)
        try:
            _wait_for(f"http://127.0.0.1:{port}/v1/models", process)
            started_s = time.monotonic()
            with watching(process.pid) as found:
                _ask_all(f"http://127.0.0.1:{port}/v1/chat/completions", num)
            elapsed_s = time.monotonic() - started_s
            process.terminate()
            if (code := process.wait(60)) != 143:
                raise RuntimeError(f"serve ended with {code}")
        finally:
            process.kill()
    return Load(f"serve, {num:,} requests, {_NUM_CLIENTS} at a time", found, elapsed_s)


LOADS: Final[dict[str, Callable[[Path, float], Load]]] = {
    "serve": load_serve,
    "train": load_train,
    "mix": load_mix,
    "generate": load_generate,
}


def _nanosft(*words: str) -> list[str]:
    return [sys.executable, "-m", "nanosft", *words]


def _wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            if process.poll() is not None:
                raise
            time.sleep(0.1)
        else:
            return


def _ask_all(url: str, num: int) -> None:
    """As many requests, shared by the clients; an answer that is not whole is an error."""
    numbers, problems = iter(range(num)), list[Exception]()
    lock = threading.Lock()

    def ask() -> None:
        while not problems:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            try:
                _ask(url, number)
            except Exception as exc:  # noqa: BLE001 - of any kind: told by the thread that waits
                problems.append(exc)

    clients = [threading.Thread(target=ask) for _ in range(_NUM_CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    if problems:
        raise problems[0]


def _ask(url: str, number: int) -> None:
    is_streamed, leaves = number % 3 > 0, number % 3 == 2
    body = {
        "model": "small",
        "messages": [{"role": "user", "content": f"Who are you, number {number}?"}],
        "max_tokens": 64 if leaves else 4,
        "stream": is_streamed,
    }
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as reply:
        if leaves:
            reply.readline()
            return
        text = reply.read()
    if is_streamed:
        assert text.rstrip().endswith(b"data: [DONE]"), text[-200:]
    else:
        assert json.loads(text)["choices"][0]["finish_reason"], text
