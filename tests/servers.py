"""Real servers as child processes on loopback: S3 by moto and by SeaweedFS."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

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


class LoopbackServer(ThreadingHTTPServer):
    """A server in threads of the test, whose clients may be killed: that is no error of its own."""

    daemon_threads = True
    request_queue_size = 1024  # many connections at once

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print a traceback, unless the client has gone."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


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
            process.kill()  # their data is of no use, and SeaweedFS takes its time to stop in order


@contextmanager
def run_moto(folder: Path) -> Iterator[str]:
    """A moto server; yields its URL. It takes any credentials."""
    (port,) = find_free_ports(1)
    command = [str(_script("moto_server")), "-H", "127.0.0.1", "-p", str(port)]
    with run_process(command, ports=[port], log=folder / "moto.log"):
        yield f"http://127.0.0.1:{port}"


@dataclass(frozen=True)
class Seaweed:
    """A running SeaweedFS: its S3 over HTTP, and over TLS with a certificate that `ca_file` vouches for."""

    url: str
    tls_url: str
    ca_file: Path


@contextmanager
def run_seaweed(folder: Path) -> Iterator[Seaweed]:
    """A SeaweedFS server (`weed server -filer -s3`). It checks signatures: its only keys are those of this module."""
    s3, https, s3_grpc, master, master_grpc, volume, volume_grpc, filer, filer_grpc = find_free_ports(9)
    identity = {
        "name": "test",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config, certificate, private_key, data = (folder / name for name in ("s3.json", "ca.pem", "key.pem", "data"))
    config.write_text(json.dumps({"identities": [identity]}))
    write_certificate(certificate, private_key)
    data.mkdir(exist_ok=True)
    options = {
        "dir": data,
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "master.port": master,
        "master.port.grpc": master_grpc,
        "master.telemetry": "false",
        "master.volumeSizeLimitMB": 64,
        "volume.max": 1000,  # each bucket has its own
        "volume.port": volume,
        "volume.port.grpc": volume_grpc,
        "filer.port": filer,
        "filer.port.grpc": filer_grpc,
        "s3.config": config,
        "s3.port": s3,
        "s3.port.grpc": s3_grpc,
        "s3.port.https": https,
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.cert.file": certificate,
        "s3.key.file": private_key,
    }
    command = [str(_script("weed")), "server", "-filer", "-s3", *(f"-{key}={value}" for key, value in options.items())]
    env = {**os.environ, "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}  # volumes made at once for a new bucket, of 7
    with run_process(command, ports=[s3, https, filer, volume, master], log=folder / "weed.log", env=env):
        yield Seaweed(f"http://127.0.0.1:{s3}", f"https://127.0.0.1:{https}", certificate)


def write_certificate(certificate: Path, private_key: Path) -> None:
    """A self-signed certificate of 127.0.0.1, valid for a day, that is its own CA."""
    from cryptography import x509  # noqa: PLC0415 - few tests need it
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "nanosft test")])
    now, day = datetime.now(UTC), timedelta(days=1)
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - day, now + day)
    builder = builder.add_extension(address, critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    pem = serialization.Encoding.PEM
    certificate.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(pem))
    private_key.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _script(name: str) -> Path:
    return Path(sys.executable).with_name(name)
