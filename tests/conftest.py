"""Fixtures that more than one suite needs: reference data, S3 servers, buckets. Sockets reach loopback alone."""

import os
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import pytest
from hypothesis import HealthCheck, settings

from tests.s3_proxy import S3Proxy
from tests.servers import ACCESS_KEY, SECRET_KEY, Seaweed, run_moto, run_seaweed

LOOPBACK = "127.0.0.1,::1"

# Before anything imports torch: two workers share two cores, and a second thread of each only waits for the other's.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples in each run, and no limits of time: a busy machine is no failure. Before test modules are imported:
# `@given` takes the profile of the moment in which it decorates.
settings.register_profile("nanosft", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("nanosft")


class MakeBucket(Protocol):
    """Makes a bucket, and lets the `AWS_…` variables name its server; returns `s3://bucket`."""

    def __call__(self, url: str, *, ca_file: Path | None = None) -> str: ...


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    # pytest-socket reads these when its own hook runs, after this one.
    config.option.allow_hosts = config.option.allow_hosts or LOOPBACK
    config.option.allow_unix_socket = True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The longest first: the chain of the cluster takes minutes, and one begun last has a core to itself at the end.
    folders = ("e2e", "contract")
    items.sort(key=lambda item: next((at for at, name in enumerate(folders) if name in item.path.parts), len(folders)))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reasons = sorted({report.longrepr[2] for report in terminalreporter.stats.get("skipped", [])})
    for reason in reasons:
        terminalreporter.write_line(f"NOT TESTED: {reason.removeprefix('Skipped: ')}", red=True)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The read-only reference data beside the checkout (or `SHARED_DIR`): golden files, a real base, conversations.

    Where it is not, tests that need it are skipped, and named in the summary. In CI that is a failure, unless
    `WITHOUT_SHARED=1` says that this CI has no such data.
    """
    folder = Path(os.environ.get("SHARED_DIR", Path(__file__).parents[2] / "shared"))
    if not (folder / "golden").is_dir():
        message = f"reference data is not at {folder}: set SHARED_DIR"
        if os.environ.get("CI") and os.environ.get("WITHOUT_SHARED") != "1":
            pytest.fail(message)
        pytest.skip(message)
    return folder


@pytest.fixture(scope="session")
def moto_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of an S3 server process (moto) of this test process."""
    with run_moto(tmp_path_factory.mktemp("moto")) as url:
        yield url


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """A SeaweedFS server process of this test process, HTTP and TLS; it checks signatures and checksums."""
    with run_seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture(scope="session")
def seaweed_url(seaweed: Seaweed) -> str:
    """URL of the S3 of `seaweed`, without TLS."""
    return seaweed.url


@pytest.fixture
def make_bucket(monkeypatch: pytest.MonkeyPatch) -> MakeBucket:
    """A function: server URL -> `s3://…` of a new bucket there; from then on the `AWS_…` variables name that server."""

    def make(url: str, *, ca_file: Path | None = None) -> str:
        use_endpoint(monkeypatch, url)
        if ca_file:
            monkeypatch.setenv("AWS_CA_BUNDLE", str(ca_file))
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        open_raw_client(url).create_bucket(Bucket=name)
        return f"s3://{name}"

    return make


@pytest.fixture
def bucket(moto_url: str, make_bucket: MakeBucket) -> str:
    """`s3://…` of a new bucket on moto, with the `AWS_…` variables set for it."""
    return make_bucket(moto_url)


@pytest.fixture(scope="session")
def _proxy_of_moto(moto_url: str) -> Iterator[S3Proxy]:
    with S3Proxy(moto_url) as proxy:
        yield proxy


@pytest.fixture
def proxy(_proxy_of_moto: S3Proxy) -> S3Proxy:
    """A proxy before moto that counts requests and makes faults; point `AWS_ENDPOINT_URL` at its `url`."""
    _proxy_of_moto.reset()
    return _proxy_of_moto


def use_endpoint(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Set the `AWS_…` variables for a server on loopback (none if empty), and hide those of this machine."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    if url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)


@cache
def open_raw_client(url: str) -> Any:
    """boto3 itself, without nanosft's adapter, for what the tests set up and check behind its back."""
    import boto3  # noqa: PLC0415 - takes 0.2 s, and most suites need none
    from botocore.config import Config  # noqa: PLC0415

    config = Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required")
    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=config,
    )
