"""Endpoints that do less than AWS does: each kind is made from moto by a proxy, or is SeaweedFS itself."""

import logging
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from nanosft.errors import ConfigError, DataError, StoreError
from nanosft.store import NoConditionalPutError, Store, open_store
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
    """The first writer wins, or it is an error; the first write-if-absent finds out which."""

    def test_honoured_by_moto(self, store: Store, log: pytest.LogCaptureFixture) -> None:
        assert store.write_if_absent("key", b"first")
        assert not store.write_if_absent("key", b"second")
        assert log.messages == []

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
        assert log.messages == []

    @pytest.mark.parametrize("make_so", [ignore_conditions, refuse_conditions])
    def test_where_it_is_not_it_is_an_error_and_said_once(
        self, store: Store, proxy: S3Proxy, log: pytest.LogCaptureFixture, make_so: MakeSo
    ) -> None:
        make_so(proxy)
        for key in ("key", "other"):
            with pytest.raises(NoConditionalPutError, match=f"{key}: the endpoint does not honour If-None-Match"):
                store.write_if_absent(key, b"first")
        (line,) = log.messages
        assert "does not honour If-None-Match" in line
        store.write("key", b"put without")
        assert store.read("key") == b"put without"

    @pytest.mark.parametrize("make_so", [ignore_conditions, refuse_conditions])
    def test_finding_out_never_overwrites(self, store: Store, proxy: S3Proxy, make_so: MakeSo) -> None:
        store.write("key", b"before")
        make_so(proxy)
        assert not store.write_if_absent("key", b"after")
        assert store.read("key") == b"before"

    def test_a_put_that_another_writer_preceded_tells_too(self, store: Store, proxy: S3Proxy) -> None:
        theirs = Fault(before=lambda: store.write("key", b"theirs"))
        proxy.inject_when(is_conditional, theirs)
        assert not store.write_if_absent("key", b"ours")
        assert store.read("key") == b"theirs"
        assert store.write_if_absent("other", b"ours")

    def test_nothing_is_claimed_before_the_credentials_are_accepted(
        self, store: Store, proxy: S3Proxy, log: pytest.LogCaptureFixture
    ) -> None:
        refuse_conditions(proxy)
        proxy.inject("HEAD", Fault(status=403, error_code="InvalidAccessKeyId"))
        with pytest.raises(ConfigError):
            store.write_if_absent("key", b"x")
        assert log.messages == []

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

    def test_of_aws_nothing_is_said_before_it_was_asked(
        self, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
    ) -> None:
        use_endpoint(monkeypatch, "")
        monkeypatch.setenv("AWS_REGION", "eu-central-1")
        client = make_client()
        assert client.meta.endpoint_url == "https://s3.eu-central-1.amazonaws.com"
        Endpoint(client)
        assert log.messages == []


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
        proxy.inject("GET", Fault(flip_body_at=0), times=ALWAYS)
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
