"""Generating in processes of its own, against a stub that fails on purpose: nothing lost, nothing paid for twice."""

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest

from nanosft.data import read_conversations
from nanosft.generate.provider import LOCAL_MODEL
from nanosft.settings.gates import GATE_NAMES
from tests.stub_provider import KNOWLEDGE, PRICE_USD, RunningStub, run_stub

NUM = 2_000
_POLL_TIMEOUT_S = 120.0
FAULTS: dict[str, Any] = {
    "http_429": 0.10,
    "http_500": 0.05,
    "error_in_200": 0.03,
    "cut": 0.03,
    "broken_json": 0.02,
    "dropped": 0.01,
}


def command(out: Path, stub: RunningStub, num: int, *options: str) -> list[str]:
    arguments = ["--out", str(out), "--knowledge", KNOWLEDGE, "--num", str(num)]
    provider = ["--base-url", stub.base_url, "--model", "stub", "--json"]
    return [sys.executable, "-m", "nanosft", "generate", *arguments, *provider, *options]


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    """Poll until something is so; a run that hangs fails the test by what it waits for."""
    deadline_s = time.monotonic() + _POLL_TIMEOUT_S
    while not is_so():
        assert time.monotonic() < deadline_s, f"not within {_POLL_TIMEOUT_S:g} s: {what}"
        time.sleep(0.02)


def has_flushed(out: Path, num_rows: int, processes: list[subprocess.Popen[bytes]]) -> bool:
    """Whether more rows are in, or all processes have ended."""
    return len(accepted_rows(out)) > num_rows or all(process.poll() is not None for process in processes)


def has_asked(stub: RunningStub, num_requests: int, process: subprocess.Popen[bytes]) -> bool:
    """Whether as many requests have come, or the process has ended."""
    return len(stub.read_bill()["asked"]) >= num_requests or process.poll() is not None


def kill_all(processes: list[subprocess.Popen[bytes]]) -> set[int]:
    """SIGKILL to each; their exit codes."""
    for process in processes:
        process.kill()
    return {process.wait() for process in processes}


def accepted_rows(out: Path) -> set[int]:
    """Rows flushed so far, whatever the manifest says."""
    parts = out.glob("rows/*.jsonl")
    return {orjson.loads(line)["meta"]["row"] for part in parts for line in part.read_bytes().splitlines()}


def check_set(out: Path, num: int) -> None:
    conversations = list(read_conversations(str(out)))
    assert sorted(conversation.meta["row"] for conversation in conversations) == list(range(num))
    assert len({conversation.id for conversation in conversations}) == num


def test_every_answer_of_a_provider_that_fails_on_purpose_is_accounted_for(tmp_path):
    with run_stub(num=NUM, latency_s=0.01, **FAULTS) as stub:
        done = subprocess.run(command(tmp_path, stub, NUM, "--concurrency", "256"), capture_output=True, check=False)
        bill = stub.read_bill()
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    check_set(tmp_path, NUM)
    counts = json.loads(done.stdout)["counts"]
    served = bill["counts"]
    assert counts["answers"]["accepted"] == served["none"] == NUM
    expected = {
        "error_in_200": served["error_in_200"],
        "finish_length": served["cut"],
        "json_invalid": served["broken_json"],
        "never_received": served["dropped"],
    }
    assert counts["rejects"] == expected
    assert all(number > 0 for number in expected.values())
    cost = counts["cost"]
    assert cost["total_usd"] + cost["unknown_usd"] == pytest.approx(bill["billed_usd"], rel=1e-9)
    assert cost["unknown_usd"] == pytest.approx(served["dropped"] * PRICE_USD, rel=1e-9)
    records = [orjson.loads(line) for part in tmp_path.glob("rejects/*") for line in part.read_bytes().splitlines()]
    assert Counter(record["reason"] for record in records) == expected
    assert all(record["raw"] for record in records if record["reason"] != "never_received")


def test_killed_five_times_and_restarted_with_other_shard_counts_no_flushed_row_is_asked_for_again(tmp_path):
    draw = random.Random(3)
    with run_stub(num=NUM, latency_s=0.05, **FAULTS) as stub:
        for num_shards in (1, 1, 4, 4, 7):
            options = ("--num-shards", str(num_shards), "--concurrency", "64", "--flush-rows", "20")
            shards = [
                subprocess.Popen(
                    command(tmp_path, stub, NUM, *options, "--shard-index", str(index)),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
                for index in range(min(num_shards, 2))  # two pods of the job run at a time
            ]
            num_flushed = len(accepted_rows(tmp_path))
            try:
                wait_until(partial(has_flushed, tmp_path, num_flushed + 20, shards), "another 20 rows are flushed")
                time.sleep(draw.uniform(0, 0.3))
            finally:
                codes = kill_all(shards)
            assert -signal.SIGKILL in codes
            flushed, num_asked = accepted_rows(tmp_path), len(stub.read_bill()["asked"])
            assert num_flushed < len(flushed) < NUM
            assert not list(tmp_path.glob("manifest.json"))
        for index in range(7):
            done = subprocess.run(
                command(tmp_path, stub, NUM, "--num-shards", "7", "--shard-index", str(index), "--concurrency", "256"),
                capture_output=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr.decode()[-2000:]
        asked = stub.read_bill()["asked"]
    assert flushed.isdisjoint(asked[num_asked:])
    check_set(tmp_path, NUM)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_flushes_everything_that_was_paid_for(tmp_path, signum, code):
    with run_stub(num=NUM, latency_s=0.2) as stub:
        options = ("--concurrency", "16", "--flush-rows", "10000", "--flush-s", "600")
        process = subprocess.Popen(command(tmp_path, stub, NUM, *options), stderr=subprocess.PIPE)
        try:
            wait_until(partial(has_asked, stub, 100, process), "100 requests are made")
            process.send_signal(signum)
            _, errors = process.communicate(timeout=30)
        finally:
            kill_all([process])
        bill = stub.read_bill()
    assert process.returncode == code, errors.decode()[-2000:]
    assert b"the same command goes on from here" in errors
    rows = accepted_rows(tmp_path)
    assert len(rows) == bill["num_billed"] >= 84  # answers in flight were waited for
    shard = json.loads((tmp_path / "shards/1/00000.json").read_bytes())
    assert (shard["complete"], shard["counts"]["rows"]["accepted"]) == (False, len(rows))
    assert not (tmp_path / "manifest.json").exists()


def test_killed_pods_overspend_by_no_more_than_what_was_in_flight(tmp_path):
    """Each restart finds what the killed ones reserved, although they flushed nothing."""
    budget_usd = 200 * PRICE_USD
    with run_stub(num=NUM, latency_s=0.1) as stub:
        options = (
            "--openrouter-fields",
            "--budget-usd",
            str(budget_usd),
            "--concurrency",
            "16",
            "--flush-rows",
            "10000",
            "--flush-s",
            "600",
        )
        for _ in range(3):
            num_asked = len(stub.read_bill()["asked"])
            process = subprocess.Popen(command(tmp_path, stub, NUM, *options), stderr=subprocess.DEVNULL)
            try:
                wait_until(partial(has_asked, stub, num_asked + 40, process), "another 40 requests are made")
            finally:
                kill_all([process])
        done = subprocess.run(command(tmp_path, stub, NUM, *options), capture_output=True, check=False)
        assert done.returncode == 4, done.stderr.decode()[-2000:]
        assert stub.read_bill()["billed_usd"] <= budget_usd + 16 * PRICE_USD
        assert stub.read_bill()["num_billed"] >= 150


KNOWLEDGE_OF_ONE_FACT = """# nanochat
- Name: nanochat
- Maker: Andrej Karpathy

## Identity
- nanochat is a small chat model, and Andrej Karpathy made it.
"""
ONE_TURN = """
format = 1
max_opening_share = 1.0
user_names = ["Ada"]
[other_topics]
category = "other"
brief = "{subject}"
ask = ["what is {subject}"]
questions = ["What is {subject}?"]
[[topics]]
id = "name"
category = "identity"
sections = ["identity"]
names_itself = true
brief = "the assistant's name"
subject = "your name"
ask = ["what your name is"]
questions = ["What is your name?", "Who are you?"]
[[personas]]
id = "child"
description = "a curious child"
level = "simple"
reactions = ["Nice."]
[[dynamics]]
id = "one-turn"
description = "one short question and one short answer"
num_messages = 2
moves = ["ask"]
[[styles]]
id = "plain"
description = "plain"
first_messages = ["{question}", "Hello! {question}"]
rewrites = ["lowercase", "typo"]
"""


@pytest.mark.timeout(900)  # 20 s of CPU, however busy the machine is
def test_rows_of_a_real_model_are_accepted_or_in_rejects_with_a_reason(tmp_path):
    out, knowledge, dimensions = tmp_path / "set", tmp_path / "short.md", tmp_path / "one_turn.toml"
    knowledge.write_text(KNOWLEDGE_OF_ONE_FACT)
    dimensions.write_text(ONE_TURN)
    paths = ["--out", str(out), "--knowledge", str(knowledge), "--dimensions", str(dimensions)]
    # Without the identity gate, which it seldom passes, half as many answers are asked for.
    options = ["--provider", "local", "--num", "3", "--max-attempts", "1", "--skip-gates", "identity"]
    arguments = [sys.executable, "-m", "nanosft", "generate", *paths, *options, "--max-tokens", "80", "--json"]
    done = subprocess.run(arguments, capture_output=True, check=False, timeout=880)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    counts = json.loads(done.stdout)["counts"]
    assert counts["rows"]["planned"] == counts["rows"]["accepted"] + counts["rows"]["given_up"] == 3
    records = [orjson.loads(line) for part in out.glob("rejects/*") for line in part.read_bytes().splitlines()]
    given_up = {record["row"] for record in records if record["given_up"]}
    assert accepted_rows(out) | given_up == set(range(3))
    assert accepted_rows(out).isdisjoint(given_up)
    assert all(record["reason"] and record["detail"] and record["raw"] for record in records)
    assert counts["tokens"]["completion"] > 3 * 10


@pytest.mark.timeout(900)
def test_a_real_model_writes_a_row_and_scores_it(tmp_path):
    """Without gates, most of which it seldom passes: what it makes of its own row stands in its meta."""
    out, knowledge, dimensions = tmp_path / "set", tmp_path / "short.md", tmp_path / "one_turn.toml"
    knowledge.write_text(KNOWLEDGE_OF_ONE_FACT)
    dimensions.write_text(ONE_TURN)
    paths = ["--out", str(out), "--knowledge", str(knowledge), "--dimensions", str(dimensions)]
    skipped = [word for gate in GATE_NAMES for word in ("--skip-gates", gate)]
    options = ["--provider", "local", "--judge-model", "local", "--num", "1", "--max-tokens", "200", "--json"]
    arguments = [sys.executable, "-m", "nanosft", "generate", *paths, *options, *skipped]
    done = subprocess.run(arguments, capture_output=True, check=False, timeout=880)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    judge = json.loads(done.stdout)["counts"]["judge"]
    assert judge["rows"] == {"scored": 1, "unscored": 0, "refused": 0}  # the grammar holds it to the schema
    assert judge["tokens"]["completion"] > 10
    (conversation,) = read_conversations(str(out))
    assert {conversation.meta["model"], conversation.meta["judge"]["model"]} == {LOCAL_MODEL}
    scores = conversation.meta["judge"]["scores"]
    assert set(scores) == {"faithful", "responsive", "in_course", "natural"}
    assert all(1 <= score <= 5 for score in scores.values())
