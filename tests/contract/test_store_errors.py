"""What the S3 adapter says of an error: which object, and what to do."""

import pytest

from nanosft.errors import ConfigError, StoreError
from nanosft.store import MissingObjectError, Store, open_store
from tests.conftest import MakeBucket
from tests.s3_proxy import Fault, S3Proxy


@pytest.fixture
def store(proxy: S3Proxy, make_bucket: MakeBucket, monkeypatch: pytest.MonkeyPatch) -> Store:
    uri = make_bucket(proxy.url)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "3")  # three suffice, and no test need wait for eight
    return open_store(f"{uri}/prefix")


@pytest.mark.parametrize(
    ("status", "code", "kind", "says"),
    [
        (403, "AccessDenied", ConfigError, "may not do GetObject in bucket 'bucket-"),
        (403, "InvalidAccessKeyId", ConfigError, "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        (403, "SignatureDoesNotMatch", ConfigError, "does not accept the credentials"),
        (400, "ExpiredToken", ConfigError, "AWS_SESSION_TOKEN"),
        (301, "PermanentRedirect", ConfigError, "set AWS_REGION"),
        (400, "AuthorizationHeaderMalformed", ConfigError, "set AWS_REGION"),
        (403, "RequestTimeTooSkewed", ConfigError, "clock"),
        (404, "NoSuchBucket", ConfigError, "does not exist: create it"),
        (404, "NoSuchKey", MissingObjectError, "no such object"),
        (503, "SlowDown", StoreError, "try again later"),
        (500, "InternalError", StoreError, "try again later"),
        (400, "RequestTimeout", StoreError, "try again later"),
        (400, "InvalidBucketName", ConfigError, "refused GetObject"),
    ],
)
def test_answers(store: Store, proxy: S3Proxy, status: int, code: str, kind: type[Exception], says: str) -> None:
    proxy.inject("GET", Fault(status=status, error_code=code), times=9)
    proxy.inject("HEAD", Fault(status=status, error_code=code), times=9)  # botocore asks for a bucket's region
    with pytest.raises(kind, match=says) as caught:
        store.read("key")
    assert str(caught.value).startswith(f"{store.uri}/key: ")
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("bucket")
def test_a_bucket_that_does_not_exist_is_named() -> None:
    other = open_store("s3://no-such-bucket/prefix")
    for use in (lambda: other.read("key"), lambda: other.write("key", b""), lambda: list(other.list())):
        with pytest.raises(ConfigError, match="'no-such-bucket' does not exist"):
            use()


def test_no_credentials_names_the_variables(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(ConfigError, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        open_store(store.uri).read("key")


def test_wrong_credentials_are_told(seaweed_url: str, make_bucket: MakeBucket, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = make_bucket(seaweed_url)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    with pytest.raises(ConfigError, match="does not accept the credentials") as caught:
        open_store(uri).read("key")
    assert "not-the-secret" not in str(caught.value)


def test_no_server_may_pass(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match="check AWS_ENDPOINT_URL"):
        open_store(store.uri).read("key")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_ENDPOINT_URL", "no url"),
        ("AWS_ENDPOINT_URL", "http://me:hidden@127.0.0.1"),
        ("AWS_PROFILE", "absent"),
        ("AWS_MAX_ATTEMPTS", "many"),
        ("AWS_REGION", "a b"),
    ],
)
def test_settings_that_cannot_be_right(store: Store, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as raised:
        open_store(store.uri).read("key")
    assert "hidden" not in str(raised.value)


@pytest.mark.usefixtures("bucket")
def test_a_bucket_name_that_cannot_be() -> None:
    with pytest.raises(ConfigError):
        open_store("s3://No_Such Bucket!/prefix").read("key")
