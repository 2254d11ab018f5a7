"""SIGTERM ends every command at once with the contract's line and code, wherever it is and as a container's process 1.

The kernel gives the first process of a container no signal that it does not catch, and `report` caught none: it was
ended by SIGKILL, after the whole grace. Here each command waits for a server that never answers when SIGTERM comes.
"""

import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from nanosft.cli import app
from nanosft.errors import EXIT_SIGTERM
from tests.servers import ACCESS_KEY, SECRET_KEY
from tests.stub_provider import KNOWLEDGE
from tests.unit.train.make import GOLDEN, talk

_TIMEOUT_S: Final = 120
_READ_TIMEOUT_S: Final = 600
"""After it a client of the store gives up a read."""
_PATIENCE_S: Final = 240.0
"""Less than that, and more than busy cores take: who has ended by then has not waited for the store."""
_NUM_AT_ONCE: Final = 6
_OUT: Final = "s3://bucket/out"
_MIDDLE: Final[dict[str, list[str]]] = {
    "generate": ["--provider", "offline", "--num", "3", "--out", _OUT],
    "generate: catalogue": ["--base-url", "http://{server}", "--model", "m", "--num", "3", "--out", "out"],
    "models": ["--base-url", "http://{server}"],
    "mix": ["--recipe", "recipe.toml", "--out", _OUT, "--workers", "1"],
    "train": ["--base", str(GOLDEN / "g5"), "--data", "data.jsonl", "--out", _OUT, "--device", "cpu"],
    "launch": ["--nnodes", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", "{server}", "train"],
    "chat": ["--model", _OUT, "--prompt", "Hi"],
    "serve": ["--model", _OUT, "--port", "0"],
    "export": ["--data", _OUT, "--to", "nanochat", "--out", "out"],
    "eval": ["--model", _OUT],
    "eval compare": [_OUT, _OUT],
    "audit": [_OUT],
    "inspect": [_OUT],
    "describe": [_OUT],
    "report": [_OUT],
    "knowledge check": ["s3://bucket/knowledge.md"],
    "knowledge draft": ["--from", "s3://bucket/README.md", "--out", "mine.md"],
    "doctor": ["--out", _OUT],
    "wait": [_OUT],
    "submit": ["run.toml", "--apply"],
    "demo": ["--out", _OUT],
}
_LIBRARIES: Final = (
    "boto3 httpx nanosft.cli nanosft.generate.stage nanosft.mix.stage nanosft.train.stage nanosft.train.launch "
    "nanosft.chat.stage nanosft.serve.stage nanosft.export.stage nanosft.evaluate.stage nanosft.demo "
    "nanosft.store.s3_client"
)
_FORK: Final = f"""
import gc, importlib, os, sys
for name in {_LIBRARIES.split()!r}:
    importlib.import_module(name)
sys.modules["nanosft.store.s3_client"]._READ_TIMEOUT_S = {_READ_TIMEOUT_S}
gc.freeze()  # a copy that looks through all this at its end would have it copied
pids = []
for line in sys.stdin:
    if (pid := os.fork()) == 0:
        break
    print(pid, flush=True)
    pids.append(pid)
else:
    print(*(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids))
    sys.exit()
said, server, *sys.argv = line.split()
os.environ["AWS_ENDPOINT_URL"] = f"http://{{server}}"
os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
os.dup2(1, 2)
importlib.import_module("nanosft.__main__").main()
"""
"""Imports the libraries once, and runs each line's command in a copy of itself: they would cost 40 s of CPU."""


class Silent:
    """Takes connections and never answers.

    Attributes:
        address: Host and port.
        asked: Set when somebody has sent something.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.asked = threading.Event()
        self._taken: list[socket.socket] = []
        threading.Thread(target=self._take, daemon=True).start()

    def _take(self) -> None:
        while True:
            try:
                taken, _ = self._listener.accept()
            except OSError:
                return
            self._taken.append(taken)
            self.asked.set()

    def close(self) -> None:
        self._listener.close()
        for taken in self._taken:
            taken.close()


@pytest.fixture(scope="module")
def silent() -> Iterator[Silent]:
    server = Silent()
    yield server
    server.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sigterm")
    (folder / "data.jsonl").write_bytes(b"".join(talk(f"What is {n} and one?", f"It is {n + 1}.") for n in range(9)))
    (folder / "recipe.toml").write_text('[[sources]]\nname = "a"\nuri = "data.jsonl"\n[deduplicate]\nnear = "off"\n')
    (folder / "run.toml").write_text('name = "mine"\nstore = "s3://bucket"\n[generate]\nnum = 3\n')
    (folder / "kubectl").write_text(
        "#!/bin/bash\naddress=${AWS_ENDPOINT_URL#http://}\nexec 3<>/dev/tcp/${address/://}\nexec sleep 600\n"
    )
    (folder / "kubectl").chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def environ(silent: Silent, folder: Path) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "NANOSFT_"))},
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "AWS_ENDPOINT_URL": f"http://{silent.address}",
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "OPENROUTER_API_KEY": "a-key",
        "NANOSFT_KNOWLEDGE": KNOWLEDGE,
        "OMP_NUM_THREADS": "1",
    }


class Ended(NamedTuple):
    """How a command has ended: its code, what it has said, and after how many seconds."""

    code: int
    said: str
    after_s: float


@pytest.fixture(scope="module")
def ended(folder: Path, environ: dict[str, str]) -> dict[str, Ended]:
    """Every command, some at a time, each with a server of its own, told to end as soon as it has asked that."""
    command, pipe = [sys.executable, "-c", _FORK], subprocess.PIPE
    starting = threading.Lock()
    with (
        subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environ, cwd=folder) as forks,
        ThreadPoolExecutor(_NUM_AT_ONCE) as pool,
    ):
        lines, told = forks.stdin, forks.stdout
        assert lines is not None
        assert told is not None
        pids: list[int] = []

        def run(name: str) -> tuple[int, str, float]:
            with closing(Silent()) as server:
                arguments = [item.format(server=server.address) for item in _MIDDLE[name]]
                said = folder / f"{name.replace(' ', '-')}.txt"
                words = [str(said), server.address, "nanosft", *name.partition(":")[0].split(), *arguments]
                with starting:
                    print(*words, file=lines, flush=True)
                    pid = int(told.readline())
                    pids.append(pid)
                server.asked.wait(_TIMEOUT_S)
                os.kill(pid, signal.SIGTERM)
                told_s = time.monotonic()
                process = os.pidfd_open(pid)
                select.select([process], [], [], _PATIENCE_S)
                os.close(process)
                return pid, said.read_text(), time.monotonic() - told_s

        runs = dict(zip(_MIDDLE, pool.map(run, _MIDDLE), strict=True))
        lines.close()
        codes = dict(zip(pids, map(int, told.readline().split()), strict=True))
    return {name: Ended(codes[pid], said, after_s) for name, (pid, said, after_s) in runs.items()}


def find_commands(group: Any, before: str = "") -> Iterator[str]:
    for item in group.registered_commands:
        yield f"{before}{item.name}"
    for item in group.registered_groups:
        if item.typer_instance.registered_callback:
            yield f"{before}{item.typer_instance.info.name}"
        yield from find_commands(item.typer_instance, f"{before}{item.typer_instance.info.name} ")


def test_every_command_is_tried() -> None:
    assert sorted({name.partition(":")[0] for name in _MIDDLE}) == sorted(find_commands(app))


@pytest.mark.parametrize("name", _MIDDLE)
def test_a_command_that_waits_for_a_server_ends_at_once(ended: dict[str, Ended], name: str) -> None:
    code, said, after_s = ended[name]
    assert (code, said.count("stopped by signal 15; ")) == (EXIT_SIGTERM, 1), said
    assert after_s < _PATIENCE_S


def catches_sigterm(pid: int) -> bool:
    match = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return match is not None and bool(int(match[1], 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.parametrize("name", ["report", "train"])
def test_a_command_that_has_hardly_begun_ends_at_once(environ: dict[str, str], folder: Path, name: str) -> None:
    command = [sys.executable, "-m", "nanosft", name, *_MIDDLE[name]]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environ, cwd=folder) as process:
        while process.poll() is None and not catches_sigterm(process.pid):
            time.sleep(0.001)
        process.terminate()
        _, said = process.communicate(timeout=_TIMEOUT_S)
    assert (process.returncode, said.count("stopped by signal 15; ")) == (EXIT_SIGTERM, 1), said


def test_report_as_process_1_ends_at_once(environ: dict[str, str], folder: Path, silent: Silent) -> None:
    alone = ["unshare", "--pid", "--fork", "--kill-child"]
    try:
        subprocess.run([*alone, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("SIGTERM for process 1: this machine makes no namespace of processes")
    silent.asked.clear()
    command = [*alone, sys.executable, "-m", "nanosft", "report", _OUT]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environ, cwd=folder) as process:
        assert silent.asked.wait(_TIMEOUT_S)
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGTERM)
        _, said = process.communicate(timeout=_TIMEOUT_S)
    assert (process.returncode, "stopped by signal 15; " in said) == (EXIT_SIGTERM, True), said


_HANGS: Final = {
    # The kernel gives it to the other thread, and so does not wake the first one from its sleep.
    "in a library": """
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        print(flush=True)
        ctypes.CDLL(None).sleep(600)""",
    "on a thread": """
        with ThreadPoolExecutor(1) as pool:
            pool.submit(time.sleep, 600)
            print(flush=True)
            time.sleep(600)""",
    "on a thread at the end": """
        threading.Thread(target=time.sleep, args=[600]).start()
        print(flush=True)
        time.sleep(600)""",
}


@pytest.mark.parametrize("way", ["nullcontext()", "signals.raising('half is left')", "signals.collecting()"])
@pytest.mark.parametrize("hang", _HANGS)
def test_a_process_that_hangs_at_sigterm_ends_with_one_line(way: str, hang: str) -> None:
    """A library that does not come back, or a thread that waits for a server, kept SIGTERM waiting in every stage.

    And where the command had said its last line, and then waited for its threads, it was said once more.
    """
    script = f"""
import ctypes, signal, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from nanosft import __main__, signals, wait

def hang(_settings):
    with {way} as caught:
        if caught is not None:
            caught.ends = True{_HANGS[hang]}

wait.run_wait = hang
signals._CLEANUP_S = signals._UNWIND_S = 0.5
sys.argv = ["nanosft", "wait", "folder"]
__main__.main()
"""
    command, pipe = [sys.executable, "-c", script], subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
        _, said = process.communicate(timeout=_PATIENCE_S)
    assert (process.returncode, said.count("stopped by signal 15; ")) == (EXIT_SIGTERM, 1), said
    assert ("half is left" in said) == ("half is left" in way), said
