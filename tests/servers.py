"""Real servers as child processes on loopback: S3 by moto and by SeaweedFS."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

ACCESS_KEY = "test-access-key"
SECRET_KEY = "test-secret-key"
START_TIMEOUT_S = 120  # SeaweedFS takes 3 s alone, and a minute beside other test suites


def find_free_ports(num: int) -> list[int]:
    """Ports that no one listened on a moment ago, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(num)]
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [item.getsockname()[1] for item in sockets]


@contextmanager
def run_process(
    command: list[str], *, ports: list[int], log: Path, env: Mapping[str, str] | None = None
) -> Iterator[int]:
    """A child process, from the moment all its ports answer until the context ends; yields its process id."""
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output, env=env) as process:
        try:
            deadline_s = time.monotonic() + START_TIMEOUT_S
            while not all(_answers(port) for port in ports):
                if process.poll() is not None or time.monotonic() > deadline_s:
                    raise RuntimeError(f"{command[0]} did not start: {log.read_text()[-2000:]}")
                time.sleep(0.05)
            yield process.pid
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def run_moto(folder: Path) -> Iterator[str]:
    """A moto server; yields its URL. It takes any credentials."""
    (port,) = find_free_ports(1)
    command = [str(_script("moto_server")), "-H", "127.0.0.1", "-p", str(port)]
    with run_process(command, ports=[port], log=folder / "moto.log"):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def run_seaweed(folder: Path, *, certificate: Path | None = None, private_key: Path | None = None) -> Iterator[str]:
    """A SeaweedFS server (`weed server -filer -s3`); yields the URL of its S3, https with a certificate.

    It checks signatures: `ACCESS_KEY` and `SECRET_KEY` are its only credentials.
    """
    ports = find_free_ports(10)
    s3, s3_grpc, master, master_grpc, volume, volume_grpc, filer, filer_grpc, iceberg, lance = ports
    identity = {
        "name": "test",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
    data = folder / "data"
    data.mkdir(exist_ok=True)
    options = {
        "dir": data,
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "master.port": master,
        "master.port.grpc": master_grpc,
        "master.volumeSizeLimitMB": 64,
        "volume.max": 40,
        "volume.port": volume,
        "volume.port.grpc": volume_grpc,
        "filer.port": filer,
        "filer.port.grpc": filer_grpc,
        "s3.config": config,
        "s3.port": s3,
        "s3.port.grpc": s3_grpc,
        "s3.port.iceberg": iceberg,
        "s3.port.lance": lance,
    }
    if certificate and private_key:
        options |= {"s3.cert.file": certificate, "s3.key.file": private_key}
    command = [str(_script("weed")), "server", "-filer", "-s3", *(f"-{key}={value}" for key, value in options.items())]
    with run_process(command, ports=[s3, filer, volume, master], log=folder / "weed.log"):
        yield f"http{'s' if certificate else ''}://127.0.0.1:{s3}"


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _script(name: str) -> Path:
    return Path(sys.executable).with_name(name)
