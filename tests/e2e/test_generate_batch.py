"""`nanosft generate --mode batch` as a process that is killed, stopped and started again."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nanosft.data import read_manifest
from nanosft.store import open_store
from tests.stub_batches import PICO, BatchStub, serve_batches
from tests.stub_provider import KNOWLEDGE

NUM = 40


def run(out: str, base_url: str, *options: str) -> "subprocess.Popen[bytes]":
    arguments = ["--out", out, "--num", str(NUM), "--knowledge", KNOWLEDGE, "--model", "stub", "--base-url", base_url]
    batches = ["--openrouter-fields", "--mode", "batch", "--batch-size", "20", *options]
    command = [sys.executable, "-m", "nanosft", "generate", *arguments, *batches]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[2])


def test_a_process_that_is_killed_and_stopped_goes_on_with_its_batches(tmp_path):
    out, stub = str(tmp_path / "set"), BatchStub(NUM, num_polls=4)
    with serve_batches(stub) as base_url:
        with run(out, base_url) as process:

            def kill(call: str) -> None:
                if call == "POST batches":  # the batch is taken, and its answer will never arrive
                    process.kill()

            stub.on_call = kill
            assert process.wait(60) == -signal.SIGKILL
        stub.on_call = lambda _call: None
        assert len(stub.batches) == 1

        with run(out, base_url, "--batch-poll-s", "60") as process:
            while stub.calls["GET batches"] < 2:
                time.sleep(0.05)
                assert process.poll() is None
            stopped_s = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 143
            assert time.monotonic() - stopped_s < 5
        assert len(stub.batches) == 2

        with run(out, base_url, "--batch-poll-s", "0.2") as process:
            assert process.wait(60) == 0
    manifest = read_manifest(open_store(out))
    assert manifest is not None
    assert manifest.counts["rows"]["accepted"] == NUM
    assert max(stub.answered.values()) == 1
    assert round((manifest.cost_usd or 0) * PICO) == stub.billed_pico == pytest.approx(NUM * PICO * 0.0003125, rel=1e-4)
