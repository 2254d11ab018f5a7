"""The S3 adapter's requests, one by one, and what it makes of faults: moto behind a proxy that counts and harms."""

import hashlib
import http.client
import os
import signal
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest

from nanosft.errors import ConfigError, DataError, StoreError
from nanosft.store import MissingObjectError, Store, open_store
from nanosft.store.s3_write import part_bytes
from tests.conftest import MakeBucket, open_raw_client
from tests.s3_proxy import Fault, S3Proxy

MIB = 1 << 20
Use = Callable[[], object]
BODY = hashlib.sha256(b"body").digest() * (3 * MIB // 32)


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Botocore repeats a request after up to a second, which would be most of what these tests take."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda _self, _context: 0.01)


@pytest.fixture
def store(proxy: S3Proxy, make_bucket: MakeBucket, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A prefix in a new bucket, through the proxy, whose requests so far are forgotten."""
    uri = make_bucket(proxy.url)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "3")  # three suffice, and no test need wait for eight
    proxy.count()
    return open_store(f"{uri}/prefix")


def count(**operations: int) -> Counter[str]:
    names = {"uploads": "POST uploads", "part": "PUT partNumber", "complete": "POST uploadId", "list_": "GET list-type"}
    return Counter({names.get(name, name): number for name, number in operations.items()})


def raw(store: Store, key: str) -> dict[str, str]:
    """Bucket and full key of an object, for boto3 itself."""
    bucket, _, prefix = store.uri.removeprefix("s3://").partition("/")
    return {"Bucket": bucket, "Key": f"{prefix}/{key}"}


class TestRequests:
    """Each use sends what it must and no more."""

    def test_opening_a_store_sends_nothing(self, store: Store, proxy: S3Proxy) -> None:
        assert store.uri.endswith("/prefix")
        assert proxy.count() == count()

    def test_small_reads_and_writes_are_one_request(self, store: Store, proxy: S3Proxy) -> None:
        store.write("key", BODY)
        assert proxy.count() == count(PUT=1)
        assert store.read("key") == BODY
        assert proxy.count() == count(GET=1)
        assert store.read_range("key", 5, 5) == BODY[5:10]
        assert proxy.count() == count(GET=1)
        with store.open_read("key") as stream:
            assert stream.read() == BODY
        assert proxy.count() == count(GET=1)
        assert store.exists("key")
        assert not store.exists("absent")
        assert proxy.count() == count(HEAD=2)
        store.delete("key")
        assert proxy.count() == count(DELETE=1)
        with store.open_write("streamed") as writer:
            for start in range(0, len(BODY), 1000):
                writer.write(BODY[start : start + 1000])
        assert proxy.count() == count(PUT=1)

    def test_a_large_write_is_its_parts_and_two_more(self, store: Store, proxy: S3Proxy) -> None:
        store.write("key", b"x" * (20 * MIB))
        assert proxy.count() == count(uploads=1, part=3, complete=1)

    def test_a_listing_is_a_request_for_each_thousand(self, store: Store, proxy: S3Proxy, moto_url: str) -> None:
        keys = [f"{number:05}" for number in range(1010)]
        server = http.client.HTTPConnection(moto_url.removeprefix("http://"))  # boto3 would take ten times as long
        for key in keys:
            server.request("PUT", "/{Bucket}/{Key}".format(**raw(store, key)), b"x")
            assert server.getresponse().read() == b""
        server.close()
        assert [info.key for info in store.list()] == keys
        assert proxy.count() == count(list_=2)
        assert [info.key for info in store.list("0009")] == keys[90:100]
        assert proxy.count() == count(list_=1)

    def test_a_directory_is_one_request_however_deep(self, store: Store, proxy: S3Proxy) -> None:
        for number in range(20):
            store.write(f"rows/{number}/deep", b"x")
        proxy.count()
        assert store.list_directory().names == ("rows",)
        assert proxy.count() == count(list_=1)

    def test_a_write_if_absent_probes_once(self, store: Store, proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_EXECUTION_ENV", "other")  # an endpoint of which nothing is known
        assert store.write_if_absent("one", b"x")
        assert proxy.count() == count(HEAD=1, PUT=2)
        assert store.write_if_absent("two", b"x")
        assert not store.write_if_absent("one", b"y")
        assert open_store(f"{store.uri}/other").write_if_absent("three", b"x")
        assert proxy.count() == count(PUT=3)

    def test_a_request_that_is_refused_is_not_repeated(self, store: Store, proxy: S3Proxy) -> None:
        proxy.inject("GET", Fault(status=403, error_code="AccessDenied"), times=99)
        with pytest.raises(ConfigError):
            store.read("key")
        assert proxy.count() == count(GET=1)


class TestReads:
    """A read ends with the whole object as it was, or with an error."""

    @pytest.mark.parametrize("cut_at", [0, 1, MIB + 17, len(BODY) - 1])
    def test_a_connection_that_breaks_is_resumed(self, store: Store, proxy: S3Proxy, cut_at: int) -> None:
        store.write("key", BODY)
        proxy.count()
        proxy.inject("GET", Fault(cut_body_at=cut_at))
        with store.open_read("key") as stream:
            assert stream.read() == BODY
        first, second = proxy.requests
        assert "range" not in first.headers
        assert second.headers["range"].startswith("bytes=")
        assert int(second.headers["range"][6:].split("-")[0]) <= cut_at
        assert second.headers["if-match"]

    def test_a_range_that_breaks_is_resumed_within_it(self, store: Store, proxy: S3Proxy) -> None:
        store.write("key", BODY)
        proxy.inject("GET", Fault(cut_body_at=10))
        assert store.read_range("key", 100, 50) == BODY[100:150]

    def test_a_connection_may_break_often_if_it_goes_on(self, store: Store, proxy: S3Proxy) -> None:
        store.write("key", BODY)
        proxy.inject("GET", Fault(cut_body_at=600_000), times=4)
        assert store.read("key") == BODY

    def test_one_that_only_breaks_is_an_error(
        self, store: Store, proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("nanosft.store.s3_read._FIRST_WAIT_S", 0.001)
        store.write("key", BODY)
        proxy.inject("GET", Fault(cut_body_at=0), times=99)
        with pytest.raises(StoreError, match=r"prefix/key: broke at byte 0 of 3145728 7 times"):
            store.read("key")

    def test_two_versions_are_never_mixed(self, store: Store, proxy: S3Proxy, moto_url: str) -> None:
        store.write("key", BODY)

        def replace() -> None:
            open_raw_client(moto_url).put_object(**raw(store, "key"), Body=bytes(len(BODY)))

        proxy.inject("GET", Fault(cut_body_at=MIB))
        proxy.inject_when(lambda request: "range" in request.headers, Fault(before=replace))
        with pytest.raises(StoreError, match="replaced while it was being read"):
            store.read("key")

    def test_one_deleted_meanwhile_is_an_error(self, store: Store, proxy: S3Proxy) -> None:
        store.write("key", BODY)
        proxy.inject("GET", Fault(cut_body_at=MIB))
        proxy.inject_when(lambda request: "range" in request.headers, Fault(before=lambda: store.delete("key")))
        with pytest.raises(MissingObjectError):
            store.read("key")

    def test_a_byte_changed_on_the_way_is_no_damage_of_the_object(self, store: Store, proxy: S3Proxy) -> None:
        store.write("key", BODY)
        proxy.inject("GET", Fault(flip_body_at=12345))
        assert store.read("key") == BODY
        proxy.inject("GET", Fault(flip_body_at=12345))
        with pytest.raises(StoreError, match="damaged on its way"), store.open_read("key") as stream:
            stream.read()

    def test_a_byte_that_is_always_another_is_damage(self, store: Store, proxy: S3Proxy) -> None:
        store.write("key", BODY)
        proxy.inject("GET", Fault(flip_body_at=12345), times=99)
        with pytest.raises(DataError, match="prefix/key: SHA-256 is"):
            store.read("key")

    def test_others_objects_are_held_to_their_etag(self, store: Store, proxy: S3Proxy, moto_url: str) -> None:
        open_raw_client(moto_url).put_object(**raw(store, "key"), Body=BODY)
        proxy.inject("GET", Fault(flip_body_at=12345))
        assert store.read("key") == BODY
        proxy.inject("GET", Fault(flip_body_at=12345), times=99)  # as where the ETag is no MD5
        assert store.read("key") != BODY

    @pytest.mark.parametrize("operation", ["GET", "HEAD", "PUT", "DELETE"])
    @pytest.mark.parametrize(
        "fault", [Fault(status=503), Fault(status=500), Fault(drop_before=True)], ids=["503", "500", "drop"]
    )
    def test_requests_are_repeated(self, store: Store, proxy: S3Proxy, operation: str, fault: Fault) -> None:
        store.write("key", BODY)
        proxy.count()
        proxy.inject(operation, fault)
        uses: dict[str, Use] = {
            "GET": lambda: store.read("key"),
            "HEAD": lambda: store.exists("key"),
            "PUT": lambda: store.write("key", BODY),
            "DELETE": lambda: store.delete("key"),
        }
        uses[operation]()
        assert proxy.count() == Counter({operation: 2})

    def test_a_listing_is_repeated_page_by_page(self, store: Store, proxy: S3Proxy) -> None:
        store.write("key", b"x")
        proxy.inject("GET list-type", Fault(status=503))
        assert [info.key for info in store.list()] == ["key"]

    def test_what_stays_broken_may_pass(self, store: Store, proxy: S3Proxy) -> None:
        proxy.inject("GET", Fault(status=503), times=99)
        with pytest.raises(StoreError, match=r"prefix/key: the endpoint answered SlowDown"):
            store.read("key")
        assert proxy.count() == count(GET=3)


class TestWrites:
    """A write puts the whole object, or nothing."""

    @pytest.mark.parametrize(
        "fault", [Fault(status=503), Fault(drop_before=True), Fault(drop_after=True)], ids=["503", "before", "after"]
    )
    @pytest.mark.parametrize("operation", ["POST uploads", "PUT partNumber", "POST uploadId"])
    def test_each_step_of_an_upload_is_repeated(
        self, seaweed_url: str, make_bucket: MakeBucket, operation: str, fault: Fault
    ) -> None:
        # Against SeaweedFS: of a completion that had come through, moto answers the repetition 500 where S3 says 404.
        data = b"012345678" * MIB  # two parts
        with S3Proxy(seaweed_url) as proxy:
            store = open_store(make_bucket(proxy.url))
            proxy.inject(operation, fault)
            written = store.write("key", data)
            assert written.sha256 == hashlib.sha256(data).hexdigest()
            assert store.read("key") == data

    def test_an_upload_that_fails_is_aborted(self, store: Store, proxy: S3Proxy, moto_url: str) -> None:
        store.write("key", b"before")
        proxy.count()
        proxy.inject("PUT partNumber", Fault(status=403, error_code="AccessDenied"))
        with pytest.raises(ConfigError, match="may not do UploadPart"):
            store.write("key", b"x" * 20 * MIB)
        assert proxy.count()["DELETE uploadId"] == 1
        assert store.read("key") == b"before"
        bucket = raw(store, "key")["Bucket"]
        assert "Uploads" not in open_raw_client(moto_url).list_multipart_uploads(Bucket=bucket)

    def test_a_failed_abort_does_not_hide_the_reason(
        self, store: Store, proxy: S3Proxy, caplog: pytest.LogCaptureFixture
    ) -> None:
        proxy.inject("PUT partNumber", Fault(status=403, error_code="AccessDenied"))
        proxy.inject("DELETE uploadId", Fault(status=403, error_code="AccessDenied"))
        with pytest.raises(ConfigError, match="may not do UploadPart"):
            store.write("key", b"x" * 20 * MIB)
        assert "could not be aborted" in caplog.text

    def test_bytes_changed_on_the_way_are_refused(self, seaweed_url: str, make_bucket: MakeBucket) -> None:
        with S3Proxy(seaweed_url) as proxy:
            store = open_store(make_bucket(proxy.url))
            for operation, size_bytes in (("PUT", MIB), ("PUT partNumber", 9 * MIB)):
                proxy.inject(operation, Fault(flip_request_at=1000))
                with pytest.raises(StoreError, match="try again later"):
                    store.write("key", b"x" * size_bytes)
                assert not store.exists("key")

    def test_a_writer_killed_midway_leaves_no_object(self, store: Store, proxy: S3Proxy) -> None:
        program = """
import sys, time
from nanosft.store import open_store
with open_store(sys.argv[1]).open_write("key") as writer:
    writer.write(b"x" * (20 << 20))
    print("writing", flush=True)
    time.sleep(60)
"""
        command = [sys.executable, "-c", program, store.uri]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"writing\n"
            process.send_signal(signal.SIGKILL)
            process.wait(30)
        assert proxy.count()["POST uploads"] == 1
        assert not store.exists("key")
        assert list(store.list()) == []

    def test_memory_is_bounded(self, bucket: str) -> None:
        store = open_store(bucket)
        piece = b"x" * (4 * MIB)
        tracemalloc.start()
        try:
            with store.open_write("key") as writer:
                for _ in range(25):
                    writer.write(piece)
            with store.open_read("key") as stream:
                assert sum(map(len, iter(partial(stream.read, MIB), b""))) == 100 * MIB
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak_bytes < 64 * MIB  # 32 MiB under way, the part that fills, the piece, and copies of a part

    def test_parts_grow_until_the_largest_object_fits(self) -> None:
        sizes = [part_bytes(number) for number in range(1, 10_001)]
        assert sum(sizes) > 5 * 1024**4
        assert len(set(sizes[:1000])) == 1
        assert max(sizes) <= 5 * 1024**3
        assert min(sizes) >= 5 * MIB
