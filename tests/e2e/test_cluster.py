"""The manifests of `k8s/`, run as processes by the test cluster on SeaweedFS: killed, stopped, with a wrong key."""

import shutil
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError

from nanosft.data import read_conversations, read_manifest
from nanosft.manifest import Manifest
from nanosft.settings.run import Stage, SubmitSettings
from nanosft.store import open_object, open_store
from nanosft.submit import run_submit
from tests.cluster.cluster import Cluster
from tests.cluster.manifests import read
from tests.cluster.pod import Pod
from tests.conftest import open_raw_client, use_endpoint
from tests.servers import ACCESS_KEY, SECRET_KEY, find_free_ports
from tests.stub_provider import run_stub

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not on this machine: no manifest is run"),
]

BUCKET = "nanosft"
API_KEY = "sk-or-the-key-of-the-secret"
SERVE_KEY = "key-of-those-that-ask"
SECRETS = {
    "nanosft": {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "OPENROUTER_API_KEY": API_KEY,
        "NANOSFT_API_KEY": SERVE_KEY,
    }
}
# Of the run alone; what is not named here is what the overlay says.
SMALL = {
    "NANOSFT_MAX_SEQ_LEN": "256",
    "NANOSFT_TOTAL_BATCH_SIZE": "1024",
    "NANOSFT_DEVICE_BATCH_SIZE": "2",
    "NANOSFT_MAX_STEPS": "24",
    "NANOSFT_SAVE_EVERY": "4",
    "NANOSFT_NUM_THREADS": "1",
    "NANOSFT_EVAL_ROWS": "4",
    "NANOSFT_SAMPLE_TOKENS": "0",
}
SMALL_EVALUATION = {
    "NANOSFT_NUM_PROBES": "4",
    "NANOSFT_NUM_SAMPLED": "0",
    "NANOSFT_NUM_DOCUMENTS": "2",
    "NANOSFT_MAX_TOKENS": "4",
}


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


def test_the_chain_ends_with_a_served_model_and_other_kills_under_another_trainer_make_the_same(
    store_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A PyTorchJob of two nodes loses a worker, a TrainJob of two ranks is stopped: bit for bit the same."""
    train, evaluation = _table("train", SMALL), _table("eval", SMALL_EVALUATION)
    run = f'name = "first"\noverlay = "local"\n{train}\n{evaluation}\n[generate]\nnum = 120\nnum_shards = 2'
    with Cluster(tmp_path / "chain", SECRETS) as cluster:
        cluster.apply(_submit(tmp_path, run, store_url, capsys, hold=""))
        job, mix = cluster.pytorch_job("nanosft-sft-first"), cluster.job("nanosft-mix-first")
        cluster.run_until(lambda: mix.pods, timeout_s=120)
        mix.pods[0].kill()
        cluster.run_until(lambda: _has_begun(f"s3://{BUCKET}/first/generated"), timeout_s=120)
        assert job.pods == [], "nothing of it runs before its mixture is there"
        worker = _run_until_saved(cluster, f"s3://{BUCKET}/first/model", lambda: job.pod("worker-0"))
        worker.kill()
        evaluation_job = cluster.job("nanosft-eval-first")
        cluster.run_until(lambda: evaluation_job.pods, timeout_s=400)
        evaluation_job.pods[0].kill()
        outcomes = cluster.wait(timeout_s=600)
        assert set(outcomes.values()) == {"complete"}, cluster.report()
        assert "worker-0: pytorch exited with 137" in job.restarts
        assert "master-0: pytorch exited with 138" in job.restarts
        assert [len(job.pods) for job in (mix, evaluation_job)] == [2, 2]
        answer = _ask_served_model(cluster, _submit(tmp_path, run, store_url, capsys, "serve", hold=""))
    assert answer["choices"][0]["message"]["role"] == "assistant"
    weights = _weights(f"s3://{BUCKET}/first/model")
    assert len(weights) == 1
    found = _manifest(f"s3://{BUCKET}/first/evaluation")
    assert found.kind == "evaluation"
    assert [parent.uri for parent in found.parents][:1] == [f"s3://{BUCKET}/first/model"]
    assert found.counts["probes_asked"] == 4
    assert found.counts["training_conversations_looked_through"] > 50
    store, key = open_object(f"s3://{BUCKET}/first/report.html")
    assert b"<html" in store.read(key)[:1000]

    mixture = f'data = "s3://{BUCKET}/first/mixture"'
    size = "[sft]\nnodes = 1\nranks_per_node = 2"
    run = f'name = "other"\noverlay = "local"\ntrainer = "trainjob"\n{train}\n{mixture}\n{size}'
    with Cluster(tmp_path / "other", SECRETS) as cluster:
        cluster.apply(_submit(tmp_path, run, store_url, capsys, "sft"))
        train_job = cluster.train_job("nanosft-sft-other")
        pod = _run_until_saved(cluster, f"s3://{BUCKET}/other/model", lambda: train_job.pods[-1])
        pod.terminate()
        assert set(cluster.wait(timeout_s=400).values()) == {"complete"}, cluster.report()
        assert (pod.exit_code, len(train_job.restarts)) == (143, 1), cluster.report()
    assert _weights(f"s3://{BUCKET}/other/model") == weights


def _table(name: str, variables: dict[str, str]) -> str:
    lines = [f"{key.removeprefix('NANOSFT_').lower()} = {value}" for key, value in variables.items()]
    return "\n".join([f"[{name}]", *lines])


def _has_begun(uri: str) -> bool:
    return any(True for _ in open_store(uri).list())


def _run_until_saved(cluster: Cluster, model: str, find_pod: Callable[[], Pod | None]) -> Pod:
    """Run until a first state is saved; returns the pod that runs then."""
    store = open_store(model)

    def is_saved() -> bool:
        return any("state/step_" in item.key and item.key.endswith("manifest.json") for item in store.list())

    cluster.run_until(is_saved, timeout_s=400)
    pod = find_pod()
    assert pod is not None
    assert pod.exit_code is None, cluster.report()
    return pod


def _ask_served_model(cluster: Cluster, manifests: list[dict[str, Any]]) -> dict[str, Any]:
    """Apply serve, wait until it is healthy, and ask it."""
    (port,) = find_free_ports(1)
    (config,) = [item for item in manifests if item["kind"] == "ConfigMap"]
    config["data"] |= {"NANOSFT_PORT": str(port), "NANOSFT_HOST": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    cluster.apply(manifests)
    url = f"http://127.0.0.1:{port}"

    def is_healthy() -> bool:
        try:
            return httpx.get(f"{url}/health", timeout=5).is_success
        except httpx.TransportError:
            return False

    cluster.run_until(is_healthy, timeout_s=300)
    body = {"model": "model", "max_tokens": 4, "messages": [{"role": "user", "content": "Who are you?"}]}
    headers = {"Authorization": f"Bearer {SERVE_KEY}"}
    assert httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).status_code == 401
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=60)
    assert answer.is_success, answer.text
    found: dict[str, Any] = answer.json()
    return found


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
