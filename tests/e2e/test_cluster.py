"""The manifests of `k8s/`, run as processes by the test cluster on SeaweedFS: undisturbed, killed, with a wrong key."""

import copy
import shutil
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from botocore.exceptions import ClientError

from nanosft.data import read_conversations, read_manifest
from nanosft.manifest import Manifest
from nanosft.settings.run import Stage, SubmitSettings
from nanosft.store import open_store
from nanosft.submit import run_submit
from tests.cluster.cluster import Cluster
from tests.cluster.manifests import K8S, read, render_once
from tests.cluster.pod import Pod
from tests.conftest import open_raw_client, use_endpoint
from tests.servers import ACCESS_KEY, SECRET_KEY
from tests.stub_provider import run_stub

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not on this machine: no manifest is run"),
]

BUCKET = "nanosft"
API_KEY = "sk-or-the-key-of-the-secret"
SECRETS = {
    "nanosft": {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "OPENROUTER_API_KEY": API_KEY,
    }
}
# Of the run alone; what is not named here is what the overlay says.
SMALL = {
    "NANOSFT_MAX_SEQ_LEN": "256",
    "NANOSFT_TOTAL_BATCH_SIZE": "1024",
    "NANOSFT_DEVICE_BATCH_SIZE": "2",
    "NANOSFT_MAX_STEPS": "40",
    "NANOSFT_SAVE_EVERY": "5",
    "NANOSFT_NUM_THREADS": "1",
    "NANOSFT_EVAL_ROWS": "4",
    "NANOSFT_SAMPLE_TOKENS": "0",
}
SMALL_EVALUATION = {
    "NANOSFT_NUM_PROBES": "8",
    "NANOSFT_NUM_SAMPLED": "0",
    "NANOSFT_NUM_DOCUMENTS": "2",
    "NANOSFT_MAX_TOKENS": "4",
}
KILL_AFTER_STEP = 10
STOP_AFTER_STEP = 20


@pytest.fixture
def store_url(seaweed_url: str, shared: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A SeaweedFS whose bucket holds a small nanochat base."""
    use_endpoint(monkeypatch, seaweed_url)
    client = open_raw_client(seaweed_url)
    try:
        client.create_bucket(Bucket=BUCKET)
    except ClientError as exc:
        if exc.response["Error"]["Code"] not in ("BucketAlreadyExists", "BucketAlreadyOwnedByYou"):
            raise
    base = shared / "golden" / "g5"
    for folder in ("base_checkpoints", "tokenizer"):
        for path in (base / folder).rglob("*"):
            if path.is_file():
                client.upload_file(str(path), BUCKET, f"base/{path.relative_to(base)}")
    return seaweed_url


def _local_overlay(url: str) -> list[dict[str, Any]]:
    """The local overlay as it stands, with the endpoint that its store.yaml leaves to the user, and smaller still."""
    manifests = copy.deepcopy(list(render_once(K8S / "overlays" / "local")))
    for item in manifests:
        if item["kind"] == "ConfigMap" and "AWS_ENDPOINT_URL" in item["data"]:
            item["data"] |= {"AWS_ENDPOINT_URL": url, "NANOSFT_INTERVAL_S": "1"}
        if item["kind"] == "ConfigMap" and item["metadata"]["name"] == "nanosft-sft":
            item["data"] |= SMALL
        if item["kind"] == "ConfigMap" and item["metadata"]["name"] == "nanosft-eval":
            item["data"] |= SMALL_EVALUATION
    return manifests


def _submit(
    folder: Path, run: str, url: str, capsys: pytest.CaptureFixture[str], *stages: Stage, hold: str = "hold = false"
) -> list[dict[str, Any]]:
    path = folder / "run.toml"
    env = f'[env]\nAWS_ENDPOINT_URL = "{url}"\nNANOSFT_INTERVAL_S = "1"\n'
    path.write_text(f"{hold}\n{textwrap.dedent(run)}\n{env}")
    run_submit(SubmitSettings(run=(str(path),), stages=stages))
    return read(capsys.readouterr().out)


def _manifest(uri: str) -> Manifest:
    found = read_manifest(open_store(uri))
    assert found is not None, f"{uri}: no manifest"
    return found


def _weights(uri: str) -> dict[str, str]:
    """Key to SHA-256 of the finished model's parameters."""
    return {
        item.key: item.sha256 for item in _manifest(uri).objects if item.key.endswith(".pt") and "model_" in item.key
    }


def test_the_chain_makes_a_model_and_a_run_that_is_killed_and_stopped_makes_the_same(
    store_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Cluster(tmp_path / "chain", SECRETS) as cluster:
        cluster.apply(_local_overlay(store_url))
        outcomes = cluster.wait(timeout_s=400)
        assert set(outcomes.values()) == {"complete"}, cluster.report()
        assert len(cluster.job("nanosft-generate").pods) == 4
        assert cluster.pytorch_job("nanosft-sft").restarts == []
    weights = _weights(f"s3://{BUCKET}/first/model")
    assert len(weights) == 1
    evaluation = _manifest(f"s3://{BUCKET}/first/evaluation")
    assert evaluation.kind == "evaluation"
    assert [parent.uri for parent in evaluation.parents][:1] == [f"s3://{BUCKET}/first/model"]
    assert evaluation.counts["probes_asked"] == 8
    assert evaluation.counts["training_conversations_looked_through"] > 100

    small = "\n".join(f"{name.removeprefix('NANOSFT_').lower()} = {value}" for name, value in SMALL.items())
    run = f'name = "killed"\noverlay = "local"\n[train]\ndata = "s3://{BUCKET}/first/mixture"\n{small}'
    with Cluster(tmp_path / "killed", SECRETS) as cluster:
        cluster.apply(_submit(tmp_path, run, store_url, capsys, "sft"))
        job = cluster.pytorch_job("nanosft-sft-killed")
        store = open_store(f"s3://{BUCKET}/killed/model")

        def saved(step: int) -> bool:
            return any(
                f"state/step_{step:06d}" in item.key and item.key.endswith("manifest.json") for item in store.list()
            )

        cluster.run_until(lambda: saved(KILL_AFTER_STEP), timeout_s=200)
        worker = job.pod("worker-0")
        assert worker is not None
        worker.kill()
        cluster.run_until(lambda: saved(STOP_AFTER_STEP), timeout_s=200)
        stopped = [pod for pod in (job.pod("master-0"), job.pod("worker-0")) if pod is not None]
        for pod in stopped:
            pod.terminate()
        assert set(cluster.wait(timeout_s=300).values()) == {"complete"}, cluster.report()
        assert "worker-0: pytorch exited with 137" in job.restarts
        assert "master-0: pytorch exited with 138" in job.restarts
        assert [pod.exit_code for pod in stopped] == [143, 143], cluster.report()
    assert _weights(f"s3://{BUCKET}/killed/model") == weights


def test_a_killed_and_a_stopped_generator_lose_nothing(
    store_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    num = 160
    with run_stub(num=num, latency_s=0.25) as stub, Cluster(tmp_path / "pods", SECRETS) as cluster:
        run = f"""
            name = "paid"
            overlay = "local"

            [generate]
            provider = "openrouter"
            base_url = "{stub.base_url}"
            model = "stub"
            openrouter_fields = true
            num = {num}
            concurrency = 2
            flush_rows = 4
        """
        cluster.apply(_submit(tmp_path, run, store_url, capsys, "generate"))
        job = cluster.job("nanosft-generate-paid")
        store = open_store(f"s3://{BUCKET}/paid/generated")

        def flushing_pod(index: int) -> Pod:
            cluster.run_until(lambda: job.outcome or list(store.list(f"rows/{index:05d}-")), timeout_s=120)
            pod = job.pod(index)
            assert pod is not None
            assert pod.exit_code is None, cluster.report()
            return pod

        flushing_pod(1).kill()
        flushing_pod(2).terminate()
        assert cluster.wait(timeout_s=200) == {"nanosft-generate-paid": "complete"}, cluster.report()
        codes = sorted(pod.exit_code or 0 for pod in job.pods)
        bill = stub.read_bill()
    assert codes == [0, 0, 0, 0, 137, 143]
    rows = [conversation.meta["row"] for conversation in read_conversations(f"s3://{BUCKET}/paid/generated")]
    assert sorted(rows) == list(range(num))
    assert bill["num_billed"] <= num + 8, "what was flushed was paid for again"


def test_a_wrong_key_ends_the_job_and_those_that_wait_for_it_with_a_message(
    store_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with _run_refusing_api() as (base_url, requests), Cluster(tmp_path / "pods", SECRETS) as cluster:
        run = f"""
            name = "refused"
            overlay = "local"

            [generate]
            provider = "openrouter"
            base_url = "{base_url}"
            openrouter_fields = true
        """
        cluster.apply(_submit(tmp_path, run, store_url, capsys, "generate", "mix", "sft"))
        outcomes = cluster.wait(timeout_s=120)
        outcome, job = outcomes["nanosft-generate-refused"], cluster.job("nanosft-generate-refused")
        cluster.run_until(lambda: all(pod.exit_code is not None for pod in job.pods), timeout_s=60)
        logs = "".join(pod.log() for pod in job.pods)
    assert "(generate exited with 4) matched a FailJob rule" in outcome
    assert len(job.pods) <= 4, "no pod was tried again"
    assert {pod.exit_code for pod in job.pods} <= {4, 143}
    assert requests
    (message, *_) = [line for line in logs.splitlines() if line.startswith("error: ")]
    assert "key" in message
    assert API_KEY not in logs
    assert "(wait-for-generated exited with 4) matched a FailJob rule" in outcomes["nanosft-mix-refused"]
    assert outcomes["nanosft-sft-refused"].endswith("exited with 4"), "no GPU is held for what will never be"


def test_a_batch_that_cannot_be_ends_the_training_job_at_once_with_preflights_message(
    store_url: str, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = shared / "data" / "identity_b.jsonl"
    open_raw_client(store_url).upload_file(str(data), BUCKET, "sources/identity.jsonl")
    run = f"""
        name = "wrong"
        overlay = "local"

        [train]
        data = "s3://{BUCKET}/sources/identity.jsonl"
        max_seq_len = 256
        total_batch_size = 256
    """
    with Cluster(tmp_path / "pods", SECRETS) as cluster:
        cluster.apply(_submit(tmp_path, run, store_url, capsys, "sft"))
        outcome = cluster.wait(timeout_s=200)["nanosft-sft-wrong"]
        job = cluster.pytorch_job("nanosft-sft-wrong")
        logs = "".join(pod.log("preflight") for pod in job.pods)
    assert outcome.endswith("exited with 2"), cluster.report()
    assert job.restarts == []
    assert "2 ranks do not divide the 1 rows" in logs


@contextmanager
def _run_refusing_api() -> Iterator[tuple[str, list[str]]]:
    """A chat API that accepts no key; yields its base URL and the paths that were asked for."""
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            requests.append(self.path)
            self.rfile.read(int(self.headers.get("content-length", 0)))
            body = b'{"error": {"message": "No auth credentials found", "code": 401}}'
            self.send_response(401)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1", requests
        finally:
            server.shutdown()
            thread.join()
