"""SIGTERM ends every command at once with the contract's line and code, wherever it is and as a container's process 1.

The kernel gives the first process of a container no signal that it does not catch, and `report` caught none: it was
ended by SIGKILL, after the whole grace. Here each command waits for a server that never answers when SIGTERM comes.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from nanosft.cli import app
from nanosft.errors import EXIT_SIGTERM
from tests.servers import ACCESS_KEY, SECRET_KEY
from tests.stub_provider import KNOWLEDGE
from tests.unit.train.make import GOLDEN, talk

_TIMEOUT_S: Final = 60
_PATIENCE_S: Final = 50.0
"""Less than the 60 s after which a client of the store gives up a read: who has ended by then has not waited for it."""
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
    "nanosft.chat.stage nanosft.serve.stage nanosft.export.stage nanosft.evaluate.stage nanosft.demo"
)
_FORK: Final = f"""
import importlib, os, sys
for name in {_LIBRARIES.split()!r}:
    importlib.import_module(name)
for line in sys.stdin:
    if (pid := os.fork()) == 0:
        break
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
else:
    sys.exit()
said, *sys.argv = line.split()
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
def folder(tmp_path_factory: pytest.TempPathFactory, silent: Silent) -> Path:
    folder = tmp_path_factory.mktemp("sigterm")
    (folder / "data.jsonl").write_bytes(b"".join(talk(f"What is {n} and one?", f"It is {n + 1}.") for n in range(9)))
    (folder / "recipe.toml").write_text('[[sources]]\nname = "a"\nuri = "data.jsonl"\n[deduplicate]\nnear = "off"\n')
    (folder / "run.toml").write_text('name = "mine"\nstore = "s3://bucket"\n[generate]\nnum = 3\n')
    (folder / "kubectl").write_text(
        f"#!/bin/bash\nexec 3<>/dev/tcp/{silent.address.replace(':', '/')}\nexec sleep 60\n"
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


@pytest.fixture(scope="module")
def forks(folder: Path, environ: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", _FORK]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environ, cwd=folder) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


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
def test_a_command_that_waits_for_a_server_ends_at_once(
    forks: subprocess.Popen[str], silent: Silent, folder: Path, name: str
) -> None:
    assert forks.stdin is not None
    assert forks.stdout is not None
    silent.asked.clear()
    arguments = [item.format(server=silent.address) for item in _MIDDLE[name]]
    said = folder / f"{name.replace(' ', '-')}.txt"
    forks.stdin.write(" ".join([str(said), "nanosft", *name.partition(":")[0].split(), *arguments]) + "\n")
    forks.stdin.flush()
    pid = int(forks.stdout.readline())
    assert silent.asked.wait(_TIMEOUT_S), said.read_text()
    os.kill(pid, signal.SIGTERM)
    told_s = time.monotonic()
    code = int(forks.stdout.readline())
    assert time.monotonic() - told_s < _PATIENCE_S
    assert (code, "stopped by signal 15; " in said.read_text()) == (EXIT_SIGTERM, True), said.read_text()


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


def test_a_process_that_cannot_come_to_its_handler_ends_too() -> None:
    """A library that does not come back kept SIGTERM waiting: Python calls handlers between two of its own steps."""
    # The kernel gives it to the other thread, and so does not wake the first one from its sleep.
    lines = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]); print(flush=True); ctypes.CDLL(None).sleep(60)"
    script = f"import ctypes, signal\nfrom nanosft.signals import ending\nwith ending():\n  {lines}\n"
    command = [sys.executable, "-c", script]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
        _, said = process.communicate(timeout=_TIMEOUT_S)
    assert (process.returncode, said.count("stopped by signal 15; ")) == (EXIT_SIGTERM, 1), said
