"""Endpoints that do less than AWS does: each kind is made from moto by a proxy, or is SeaweedFS itself."""

import logging
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nanosft.errors import ConfigError, DataError, StoreError
from nanosft.store import Store, open_store
from nanosft.store.s3_client import make_client
from nanosft.store.s3_endpoint import Endpoint
from tests.conftest import MakeBucket, open_raw_client, use_endpoint
from tests.s3_proxy import Fault, Request, S3Proxy
from tests.servers import Seaweed, write_certificate

MIB = 1 << 20
ALWAYS = 10_000
CHECKSUM_HEADERS = {"x-amz-checksum-sha256", "x-amz-checksum-algorithm"}


def forget_endpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Change the `AWS_…` variables: other variables are another endpoint, of which nothing is known."""
    monkeypatch.setenv("AWS_EXECUTION_ENV", uuid.uuid4().hex)


@pytest.fixture
def store(proxy: S3Proxy, make_bucket: MakeBucket, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr("nanosft.store.s3_endpoint.SETTLE_S", 0.3)
    uri = make_bucket(proxy.url)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "3")
    forget_endpoints(monkeypatch)
    proxy.count()
    return open_store(uri)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "nanosft.store")
    return caplog


def is_conditional(request: Request) -> bool:
    return request.method == "PUT" and "if-none-match" in request.headers


MakeSo = Callable[[S3Proxy], None]


def ignore_conditions(proxy: S3Proxy) -> None:
    proxy.inject_when(is_conditional, Fault(drop_headers=frozenset({"if-none-match"})), times=ALWAYS)


def refuse_conditions(proxy: S3Proxy) -> None:
    proxy.inject_when(is_conditional, Fault(status=501, error_code="NotImplemented"), times=ALWAYS)


class TestConditionalPut:
    """The first write-if-absent finds out, one line says it, and the first writer wins everywhere."""

    def test_honoured_by_moto(self, store: Store, log: pytest.LogCaptureFixture) -> None:
        assert store.write_if_absent("key", b"first")
        assert not store.write_if_absent("key", b"second")
        (line,) = log.messages
        assert "conditional put honoured; listing shows a new object at once; SHA-256 of puts sent" in line

    def test_honoured_by_seaweed(
        self,
        seaweed_url: str,
        make_bucket: MakeBucket,
        monkeypatch: pytest.MonkeyPatch,
        log: pytest.LogCaptureFixture,
    ) -> None:
        store = open_store(make_bucket(seaweed_url))
        forget_endpoints(monkeypatch)
        assert store.write_if_absent("key", b"first")
        assert not store.write_if_absent("key", b"second")
        assert "conditional put honoured" in log.messages[0]

    @pytest.mark.parametrize(("make_so", "word"), [(ignore_conditions, "ignored"), (refuse_conditions, "refused")])
    def test_where_it_is_not_the_first_still_wins(
        self, store: Store, proxy: S3Proxy, log: pytest.LogCaptureFixture, make_so: MakeSo, word: str
    ) -> None:
        make_so(proxy)
        assert store.write_if_absent("key", b"first")
        assert not store.write_if_absent("key", b"second")
        assert store.write_if_absent("other", b"third")
        assert store.read("key") == b"first"
        (line,) = log.messages
        assert f"conditional put {word} (instead: look, put, wait 0.3 s, look again)" in line

    @pytest.mark.parametrize("make_so", [ignore_conditions, refuse_conditions])
    def test_finding_out_never_overwrites(self, store: Store, proxy: S3Proxy, make_so: MakeSo) -> None:
        store.write("key", b"before")
        make_so(proxy)
        assert not store.write_if_absent("key", b"after")
        assert store.read("key") == b"before"

    @pytest.mark.parametrize("make_so", [ignore_conditions, refuse_conditions])
    def test_of_writers_that_race_one_wins_there_too(
        self, store: Store, proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch, make_so: MakeSo
    ) -> None:
        make_so(proxy)
        store.write_if_absent("probe", b"")
        monkeypatch.setattr("nanosft.store.s3_endpoint.SETTLE_S", 1.5)  # a busy machine's threads start late
        barrier = threading.Barrier(6)

        def write(number: int) -> bool:
            barrier.wait()
            return store.write_if_absent("key", b"%d" % number)

        with ThreadPoolExecutor(6) as threads:
            won = list(threads.map(write, range(6)))
        assert won.count(True) == 1
        assert store.read("key") == b"%d" % won.index(True)

    def test_an_answer_lost_on_the_way_is_still_ours(self, store: Store, proxy: S3Proxy) -> None:
        store.write_if_absent("probe", b"")
        proxy.inject_when(is_conditional, Fault(drop_after=True))
        assert store.write_if_absent("key", b"ours")
        assert store.read("key") == b"ours"

    def test_an_answer_lost_by_one_who_came_late_is_not(self, store: Store, proxy: S3Proxy) -> None:
        store.write_if_absent("probe", b"")
        store.write("key", b"theirs")
        proxy.inject_when(is_conditional, Fault(drop_after=True))
        assert not store.write_if_absent("key", b"ours")
        assert store.read("key") == b"theirs"

    def test_one_put_by_another_tool_is_compared_by_its_bytes(
        self, store: Store, proxy: S3Proxy, moto_url: str
    ) -> None:
        store.write_if_absent("probe", b"")
        bucket = store.uri.removeprefix("s3://")
        open_raw_client(moto_url).put_object(Bucket=bucket, Key="key", Body=b"theirs")
        proxy.inject_when(is_conditional, Fault(status=503), times=2)
        assert not store.write_if_absent("key", b"ours")

    def test_a_conflict_is_tried_again(self, store: Store, proxy: S3Proxy) -> None:
        store.write_if_absent("probe", b"")
        proxy.count()
        proxy.inject_when(is_conditional, Fault(status=409, error_code="ConditionalRequestConflict"), times=2)
        assert store.write_if_absent("key", b"ours")
        assert proxy.count()["PUT"] == 3

    def test_a_conflict_that_stays_may_pass(
        self, store: Store, proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.write_if_absent("probe", b"")
        monkeypatch.setattr("nanosft.store.s3_endpoint._FIRST_WAIT_S", 0.001)
        proxy.inject_when(is_conditional, Fault(status=409, error_code="ConditionalRequestConflict"), times=ALWAYS)
        with pytest.raises(StoreError, match="ConditionalRequestConflict"):
            store.write_if_absent("key", b"ours")

    def test_no_permission_is_not_taken_for_a_refusal(self, store: Store, proxy: S3Proxy) -> None:
        proxy.inject_when(is_conditional, Fault(status=403, error_code="AccessDenied"))
        with pytest.raises(ConfigError, match="may not do PutObject"):
            store.write_if_absent("key", b"x")
        assert not store.exists("key")

    def test_aws_is_not_asked(self, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture) -> None:
        use_endpoint(monkeypatch, "")
        monkeypatch.setenv("AWS_REGION", "eu-central-1")
        client = make_client()
        assert client.meta.endpoint_url == "https://s3.eu-central-1.amazonaws.com"
        assert Endpoint(client).conditional == "honoured"
        assert "AWS: conditional put, listing and checksums are honoured" in log.messages[0]


class TestListing:
    """A listing that lags is waited for."""

    def test_a_listing_that_lags(self, store: Store, proxy: S3Proxy, log: pytest.LogCaptureFixture) -> None:
        # For its first two listings this endpoint has not heard of the new object.
        proxy.inject("GET list-type", Fault(path="/bucket-of-nothing"), times=2)
        open_raw_client(proxy.url).create_bucket(Bucket="bucket-of-nothing")
        assert store.write_if_absent("key", b"x")
        assert "listing lags: each waits 0." in log.messages[0]
        assert [info.key for info in store.list()] == ["key"]

    def test_a_role_that_may_not_list(self, store: Store, proxy: S3Proxy, log: pytest.LogCaptureFixture) -> None:
        proxy.inject("GET list-type", Fault(status=403, error_code="AccessDenied"))
        assert store.write_if_absent("key", b"x")
        assert "listing not tried (AccessDenied)" in log.messages[0]


class TestChecksums:
    """Where checksums are refused, puts go without, and reads still check."""

    @pytest.mark.parametrize(("status", "code"), [(501, "NotImplemented"), (400, "InvalidArgument")])
    def test_an_endpoint_that_refuses_them(
        self, store: Store, proxy: S3Proxy, log: pytest.LogCaptureFixture, status: int, code: str
    ) -> None:
        proxy.inject_when(
            lambda request: not CHECKSUM_HEADERS.isdisjoint(request.headers),
            Fault(status=status, error_code=code),
            times=ALWAYS,
        )
        store.write("large", b"x" * 20 * MIB)
        store.write("small", b"y")
        assert store.write_if_absent("absent", b"z")
        assert store.read("large") == b"x" * 20 * MIB
        assert [line for line in log.messages if "refuses checksums" in line] == log.messages[:1]
        proxy.inject("GET", Fault(flip_body_at=0))
        with pytest.raises(DataError, match="SHA-256 is"):
            store.read("small")


class TestTls:
    """A server with a certificate of its own CA."""

    def test_with_its_ca(self, seaweed: Seaweed, make_bucket: MakeBucket) -> None:
        store = open_store(make_bucket(seaweed.tls_url, ca_file=seaweed.ca_file))
        data = b"0123456789abcdef" * MIB
        store.write("large", data)
        assert store.read("large") == data
        assert store.write_if_absent("key", b"first")
        assert not store.write_if_absent("key", b"second")
        assert [info.key for info in store.list()] == ["key", "large"]

    def test_without_its_ca_at_once(
        self,
        seaweed: Seaweed,
        make_bucket: MakeBucket,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        uri = make_bucket(seaweed.tls_url, ca_file=seaweed.ca_file)
        write_certificate(tmp_path / "other.pem", tmp_path / "other.key")
        monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "other.pem"))
        with pytest.raises(ConfigError, match="AWS_CA_BUNDLE"):
            open_store(uri).read("key")


class TestSettings:
    """Endpoint, region and addressing come the standard way."""

    @pytest.fixture(autouse=True)
    def _no_endpoint(self, monkeypatch: pytest.MonkeyPatch) -> None:
        use_endpoint(monkeypatch, "")

    def test_the_variable_for_s3_goes_before_the_general_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://general:1")
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://special:2")
        client = make_client()
        assert client.meta.endpoint_url == "http://special:2"
        assert client.meta.region_name == "us-east-1"
        assert vars(client.meta.config)["s3"] == {"addressing_style": "path"}

    def test_an_endpoint_of_the_profile(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        config = tmp_path / "config"
        config.write_text(
            "[default]\nservices = mine\nregion = eu-west-3\n[services mine]\ns3 =\n  endpoint_url = http://minio:9000\n"
        )
        monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
        client = make_client()
        assert client.meta.endpoint_url == "http://minio:9000"
        assert client.meta.region_name == "eu-west-3"
        assert vars(client.meta.config)["s3"] == {"addressing_style": "path"}

    def test_an_addressing_style_of_the_profile(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        config = tmp_path / "config"
        config.write_text("[default]\nendpoint_url = https://oss.example\ns3 =\n  addressing_style = virtual\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
        assert vars(make_client().meta.config)["s3"] == {"addressing_style": "virtual"}

    @pytest.mark.parametrize("variable", ["AWS_REGION", "AWS_DEFAULT_REGION"])
    def test_either_variable_of_a_region(self, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
        monkeypatch.setenv(variable, "ap-south-1")
        client = make_client()
        assert client.meta.endpoint_url == "https://s3.ap-south-1.amazonaws.com"
        assert vars(client.meta.config)["s3"] == {"addressing_style": "auto"}
