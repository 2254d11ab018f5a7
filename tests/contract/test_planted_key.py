"""Planted keys and passwords are found nowhere: not in output, errors, tracebacks, logs, process lists or objects.

What else keeps the foreign from doing harm has its tests where it is done, and is not repeated here:

- scripts in data do not run in pages: tests/browser (test_report.py, test_page.py), tests/unit/report
- pickles run nothing: tests/unit/nanochat/test_tokenizer.py, test_tensors.py; tests/fuzz reads broken ones
- special tokens spelled out are text: tests/unit/nanochat/test_tokenizer.py
- keys and names leave no root: tests/contract/test_store.py (listings, keys), tests/unit/test_submit.py (run files)
- a key follows no redirect: tests/contract/test_client.py, test_catalogue.py
- passwords in URLs are refused: tests/unit/test_settings.py
- escape sequences reach no terminal: tests/unit/test_foreign.py
"""

import io
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from nanosft import cli
from nanosft.progress import configure_logging
from nanosft.store import join_uri, open_store
from tests.serving import serving
from tests.stub_provider import KNOWLEDGE
from tests.unit.train.make import GOLDEN, talk

PLANTED = {
    "OPENROUTER_API_KEY": "sk-or-v1-planted0key",
    "NANOSFT_API_KEY": "serve-planted1key",
    "AWS_SECRET_ACCESS_KEY": "planted2/secret+key",
    "AWS_SESSION_TOKEN": "planted3sessiontoken",
    "HF_TOKEN": "hf_planted4token",
    "WANDB_API_KEY": "planted5wandb",
    "KUBEFLOW_TRAINER_SERVER_TOKEN": "planted6kubeflow",
}
PASSWORD = "planted7password"
_BROKEN = 0
"""For an HTTP status: the answer's first line is none, and repeats the key."""
_LOGGERS = {"nanosft": logging.DEBUG, "": logging.INFO}
"""Those that are read, the root among them: with it a program that uses nanosft shows what httpx logs."""


class _Echo(BaseHTTPRequestHandler):
    """Answers with the key that it was sent, as it is or escaped, in an error or in an answer."""

    server: Any

    def do_POST(self) -> None:
        key = self.headers.get("authorization", "").removeprefix("Bearer ")
        status = self.server.status
        told = key if self.server.num % 2 else escape(key)
        self.server.num += 1
        message = f'{{"error":{{"message":"no such key: {told}","code":{status}}}}}'
        answer = f'{{"choices":[{{"message":{{"content":"I am {told}"}},"finish_reason":"stop"}}],"model":"m"}}'
        body = (answer if status == HTTPStatus.OK else message).encode()
        self.rfile.read(int(self.headers.get("content-length", 0)))
        if status == _BROKEN:
            self.close_connection = True
            self.wfile.write(f"HTTP/1.1 no key {key}\r\nx-key: {key}\r\n\r\n".encode())
            return
        self.send_response(status, f"no key {key}")
        self.send_header("content-length", str(len(body)))
        self.send_header("x-key", key)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.do_POST()

    def log_message(self, *_arguments: object) -> None:
        pass


def escape(text: str) -> str:
    return "".join(f"\\u{ord(char):04x}" for char in text)


@pytest.fixture
def echo() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), _Echo)
    server.num, server.status = 0, 200
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


class Run:
    """Runs commands as the command line does, and keeps all that can be seen of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capfd = monkeypatch, capfd
        self._log = io.StringIO()
        self._handler = logging.StreamHandler(self._log)
        for name, level in _LOGGERS.items():
            logging.getLogger(name).addHandler(self._handler)
            monkeypatch.setattr(logging.getLogger(name), "level", level)

    def __call__(self, *arguments: str) -> int:
        self._monkeypatch.setattr(sys, "argv", ["nanosft", *arguments])
        code = cli._run_in_job()
        found = self._capfd.readouterr()
        check_clean(found.out + found.err + self._log.getvalue(), f"what nanosft {arguments[0]} says")
        self.said = found.out + found.err
        return code

    def close(self) -> None:
        for name in _LOGGERS:
            logging.getLogger(name).removeHandler(self._handler)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    running = Run(monkeypatch, capfd)
    yield running
    running.close()


def plant(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)


def check_clean(text: str, where: str) -> None:
    for name, value in {**PLANTED, "password": PASSWORD}.items():
        assert value not in text, f"{name} stands in {where}"
        assert escape(value) not in text, f"{name} stands escaped in {where}"


def check_objects(*uris: str) -> None:
    for uri in uris:
        store = open_store(uri)
        infos = list(store.list())
        assert infos
        for info in infos:
            check_clean(f"{info.key} {store.read(info.key).decode(errors='replace')}", store.uri_of(info.key))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.jsonl").write_bytes(b"".join(talk(f"What is {n} and one?", f"It is {n + 1}.") for n in range(9)))
    (tmp_path / "recipe.toml").write_text('[[sources]]\nname = "a"\nuri = "data.jsonl"\n[deduplicate]\nnear = "off"\n')
    (tmp_path / "run.toml").write_text('name = "mine"\nstore = "s3://bucket"\n[generate]\nnum = 3\n')
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_no_stage_that_ends_well_or_fails_shows_or_keeps_a_planted_key(
    bucket: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    small = ("--max-steps", "1", "--total-batch-size", "64", "--max-seq-len", "64", "--sample-tokens", "0")
    train = ("train", "--base", str(GOLDEN / "g5"), "--data", "data.jsonl", *small, "--device", "cpu")
    out = join_uri(bucket, "set")
    assert run("generate", "--provider", "offline", "--knowledge", KNOWLEDGE, "--num", "3", "--out", out) == 0
    assert run("mix", "--recipe", "recipe.toml", "--out", join_uri(bucket, "mix"), "--workers", "1") == 0
    assert run(*train, "--out", "run") == 0
    assert run("audit", "data.jsonl", "--out", "audit") == 0
    assert run("export", "--data", "data.jsonl", "--to", "nanochat", "--out", "export") == 0
    assert run("report", "run", "--out", "pages/report.html") == 0
    assert run("describe", "run") == 0
    assert run("inspect", "data.jsonl") == 0
    run("submit", "run.toml", "--dry-run")
    for command in ("mix --recipe none.toml --out x", "eval --model nowhere", "export --model nowhere --to hf --out x"):
        assert run(*command.split(), "--debug") in (2, 3)
        assert "Traceback" in run.said
    check_objects(bucket, "run", "audit", "export", "pages")


@pytest.mark.usefixtures("folder")
def test_no_command_that_runs_a_model_shows_or_keeps_a_planted_key(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """eval and export of a model were tried where they fail alone, chat and serve not at all."""
    plant(monkeypatch)
    shutil.copytree(GOLDEN / "g5", "base")  # eval writes beside it
    base, cpu = "base", ("--device", "cpu")
    few = ("--num-probes", "2", "--num-sampled", "0", "--max-tokens", "4")
    assert run("eval", "--model", base, "--knowledge", KNOWLEDGE, "--out", "evaluation", *few, *cpu, "--debug") == 0
    assert run("export", "--model", base, "--to", "nanochat", "--out", "exported", "--debug") == 0
    assert run("chat", "--model", base, "--prompt", "Hi", "--max-tokens", "4", *cpu, "--debug") == 0
    check_objects("evaluation", "exported", "base")
    configure_logging(debug=True)
    key = PLANTED["NANOSFT_API_KEY"]
    with serving(api_key=key) as server:
        body = {"model": "small", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
        for sent in (key, f"{key}x", escape(key)):
            headers = {"authorization": f"Bearer {sent}", "x-key": sent}
            answer = httpx.post(f"{server.api}/chat/completions", json=body, headers=headers, timeout=60)
            assert answer.status_code == (200 if sent == key else 401)
            check_clean(f"{answer.text} {answer.headers}", "an answer of serve")
        for path in ("metrics", "v1/models", "", "none"):
            check_clean(httpx.get(f"{server.url}/{path}", timeout=60).text, f"/{path} of serve")
    assert run("serve", "--model", "nowhere", "--debug") == 3


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("status", "codes"), [(200, {0, 3, 75}), (401, {4}), (429, {75}), (500, {75}), (_BROKEN, {75})]
)
def test_a_provider_that_repeats_the_key_plainly_or_escaped_is_quoted_without_it(
    bucket: str, echo: Any, run: Run, monkeypatch: pytest.MonkeyPatch, status: int, codes: set[int]
) -> None:
    """In the body, in headers and in the status line, whose words httpx's own line in the log repeats."""
    plant(monkeypatch)
    echo.status = status
    url = f"http://127.0.0.1:{echo.server_address[1]}"
    asked = ("--base-url", url, "--model", "m", "--num", "2", "--max-attempts", "1", "--knowledge", KNOWLEDGE)
    out = join_uri(bucket, "set")
    code = run("generate", "--out", out, *asked, "--row-timeout-s", "5", "--max-retries", "1", "--debug")
    assert code in codes, run.said
    assert echo.num
    check_objects(out)
    code = run("models", "--base-url", url, "--knowledge", KNOWLEDGE, "--debug")
    assert code in {*codes, 75} - {0}, run.said
    draft = ("knowledge", "draft", "--from", KNOWLEDGE, "--out", "draft.md", "--base-url", url, "--max-retries", "0")
    run(*draft, "--debug")
    look = ("doctor", "--provider", "openrouter", "--base-url", url, "--ranks", "0", "--device", "cpu")
    assert run(*look) != 0


@pytest.mark.usefixtures("folder")
def test_a_store_that_refuses_and_a_password_in_any_url_are_told_without_secrets(
    bucket: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    secret_url = f"http://me:{PASSWORD}@127.0.0.1:9"
    assert run("describe", f"s3://me:{PASSWORD}@bucket/x", "--debug") == 2
    assert run("generate", "--base-url", secret_url, "--out", "x", "--num", "1", "--knowledge", KNOWLEDGE) == 2
    assert run("generate", "--base-url", f"ftp://me:{PASSWORD}@h", "--out", "x", "--num", "1", "--debug") == 2
    assert run("describe", join_uri(bucket, "nothing")) == 3
    monkeypatch.setenv("AWS_ENDPOINT_URL", secret_url)
    assert run("describe", "s3://bucket/x", "--debug") in (2, 75)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"{secret_url}/%%bad host")
    assert run("describe", "s3://bucket/x", "--debug") in (2, 75)


@pytest.mark.usefixtures("folder")
def test_the_traceback_of_a_defect_shows_no_planted_key(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)

    def fail(settings: Any, *_arguments: object) -> None:
        raise RuntimeError(f"a defect: {settings!r} {settings.model_dump()} {settings.model_dump_json()}")

    monkeypatch.setattr("nanosft.generate.stage.run_generate", fail)
    assert run("generate", "--out", "x", "--num", "1", "--debug") == 1
    assert "Traceback" in run.said
    assert "a defect" in run.said


def find_family(pid: int) -> Iterator[Path]:
    """A process and all that it has begun, as the process list shows them now."""
    folder = Path(f"/proc/{pid}")
    yield folder
    for children in folder.glob("task/*/children"):
        for child in children.read_text().split():
            yield from find_family(int(child))


@pytest.mark.usefixtures("folder")
def test_processes_have_their_keys_in_their_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of mix, which has others work for it: their arguments and titles, all the time that they run."""
    plant(monkeypatch)
    command = [sys.executable, "-m", "nanosft", "mix", "--recipe", "recipe.toml", "--out", "mixed", "--workers", "2"]
    seen: dict[str, bytes] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=dict(os.environ)) as process:
        while process.poll() is None:
            with suppress(OSError):  # it has ended meanwhile
                for folder in find_family(process.pid):
                    seen[folder.name] = (folder / "cmdline").read_bytes() + (folder / "comm").read_bytes()
            time.sleep(0.01)
        assert process.stdout is not None
        said = process.stdout.read()
    assert process.returncode == 0, said
    assert len(seen) > 2, "mix has begun no others"
    check_clean((b"".join(seen.values()) + said).decode(errors="replace"), "the process list or what the process says")
