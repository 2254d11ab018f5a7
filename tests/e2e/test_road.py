"""The whole road in one command: on a directory, and on a bucket with nothing but `AWS_…` variables changed."""

import json
import os
import subprocess
import sys

import pytest

from nanosft.evaluate.keeping import read_evaluation
from nanosft.lineage import read_lineage
from nanosft.nanochat import load_checkpoint
from nanosft.store import join_uri, open_store

SMALL = ["--pretrain-steps", "2", "--num", "40", "--epochs", "1", "--num-probes", "12"]


def run_nanosft(*words):
    return subprocess.run(
        [sys.executable, "-m", "nanosft", *words],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env=os.environ,
    )


@pytest.fixture(params=["directory", "bucket"])
def out(request, tmp_path):
    if request.param == "directory":
        return str(tmp_path / "demo")
    return join_uri(request.getfixturevalue("bucket"), "demo")


def test_the_demo_walks_from_knowledge_to_a_chat_model_and_a_rerun_makes_nothing_again(out):
    done = run_nanosft("demo", "--out", out, *SMALL)
    assert done.returncode == 0, done.stderr
    run = join_uri(out, "run")

    checkpoint = load_checkpoint(run)
    assert (checkpoint.source, checkpoint.tag, checkpoint.generation.name) == ("chat", "d4", "g5")
    assert checkpoint.meta["model_config"] == load_checkpoint(join_uri(out, "base")).meta["model_config"]

    answer = run_nanosft("chat", "--model", run, "-p", "Who are you?", "--temperature", "0", "--json")
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["model"]["source"] == "chat"

    lineage = read_lineage(run)
    kinds = [parent.manifest.kind for parent in lineage.parents if parent.manifest]
    assert kinds == ["mixture"]
    # What has no manifest, as a base, is too large to hash here.
    assert {parent.state for parent in lineage.parents} == {"as recorded", "not checked"}

    found = read_evaluation(join_uri(out, "evaluation"))
    assert list(found.models) == ["base", "chat"]
    control = read_evaluation(join_uri(out, "control/evaluation"))
    asked = [row["probe"] for row in found.answers_of("chat")]
    assert len(asked) == 12
    assert asked == [row["probe"] for row in control.answers_of("model")]
    assert control.models["model"]["step"] == found.models["chat"]["step"]

    store = open_store(out)
    before = {info.key: store.read(info.key) for info in store.list()}
    again = run_nanosft("demo", "--out", out, *SMALL)
    assert again.returncode == 0, again.stderr
    assert {info.key: store.read(info.key) for info in store.list()} == before
