"""What every store does, over each of them: a directory, moto, and SeaweedFS, which checks signatures and checksums."""

import hashlib
import io
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest

from nanosft.errors import DataError, StoreError
from nanosft.store import MissingObjectError, ObjectInfo, Store, Written, join_uri, open_object, open_store
from nanosft.store.s3 import S3Store

MIB = 1 << 20
Use = Callable[[], object]
STORES = ["local", "moto", "seaweed"]
AWKWARD_KEYS = ["a b/ü+%20&?#=.jsonl", "a/b~!'()*;:@,.txt", "日本/語"]


@pytest.fixture(params=STORES)
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URI of an empty prefix of each kind of store."""
    if request.param == "local":
        return str(tmp_path / "store root")
    make_bucket = request.getfixturevalue("make_bucket")
    return join_uri(make_bucket(request.getfixturevalue(f"{request.param}_url")), "some/prefix")


@pytest.fixture
def store(root: str) -> Store:
    return open_store(root)


def test_what_is_written_is_read(store: Store) -> None:
    data = bytes(range(256)) * 40
    assert store.write("a/b.bin", data) == Written("a/b.bin", len(data), hashlib.sha256(data).hexdigest())
    assert store.read("a/b.bin") == data
    assert store.stat("a/b.bin") == ObjectInfo("a/b.bin", len(data))
    assert store.exists("a/b.bin")


def test_an_object_replaced_since_it_was_listed_is_an_error_that_names_it(store: Store) -> None:
    """Half of a bare input was the old object and half the new one, and nobody knew."""
    store.write("a/b.bin", b"one")
    (info,) = store.list()
    (beside,) = store.list_directory("a").objects
    assert {info.etag, beside.etag} == {(store.stat("a/b.bin") or info).etag}
    with store.open_read("a/b.bin", etag=info.etag) as stream:
        assert stream.read() == b"one"
    assert store.read_range("a/b.bin", 1, 2, etag=info.etag) == b"ne"
    time.sleep(0.02)  # a local file's clock is a tick of the kernel's
    store.write("a/b.bin", b"two")
    for read in (
        lambda: store.read_range("a/b.bin", 0, 3, etag=info.etag),
        lambda: store.open_read("a/b.bin", etag=info.etag).__enter__().read(),
    ):
        with pytest.raises(StoreError, match=r"a/b\.bin: was replaced while it was being read, or since it was listed"):
            read()


def test_an_empty_object_is_an_object(store: Store) -> None:
    store.write("empty", b"")
    with store.open_write("streamed"):
        pass
    assert store.read("empty") == store.read("streamed") == b""
    assert list(store.list()) == [ObjectInfo("empty", 0), ObjectInfo("streamed", 0)]


def test_a_write_replaces(store: Store) -> None:
    store.write("key", b"long before")
    store.write("key", b"after")
    assert store.read("key") == b"after"


@pytest.mark.parametrize("key", AWKWARD_KEYS)
def test_keys_are_taken_as_they_are(store: Store, key: str) -> None:
    store.write(key, b"x")
    assert [info.key for info in store.list()] == [key]
    assert store.read(key) == b"x"
    same_store, name = open_object(store.uri_of(key))
    assert same_store.read(name) == b"x"


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "../a", "a/../b", ".", "a/./b", "a\0b"])
def test_keys_that_leave_the_root_are_refused(store: Store, key: str) -> None:
    uses: list[Use] = [
        lambda: store.read(key),
        lambda: store.read_range(key, 0, 1),
        lambda: store.open_read(key).__enter__(),
        lambda: store.write(key, b""),
        lambda: store.open_write(key).__enter__(),
        lambda: store.write_if_absent(key, b""),
        lambda: store.exists(key),
        lambda: store.delete(key),
    ]
    for use in uses:
        with pytest.raises(DataError, match="is no object key"):
            use()


def test_an_absent_object_is_named(store: Store) -> None:
    store.write("there", b"x")
    assert store.stat("absent") is None
    assert not store.exists("there/below")
    uses: list[Use] = [
        lambda: store.read("absent"),
        lambda: store.read_range("absent", 0, 4),
        lambda: store.open_read("absent").__enter__(),
    ]
    for use in uses:
        with pytest.raises(MissingObjectError) as caught:
            use()
        assert str(caught.value) == f"{store.uri_of('absent')}: no such object"


def test_a_prefix_is_no_object(store: Store) -> None:
    store.write("folder/object", b"x")
    assert not store.exists("folder")
    with pytest.raises(MissingObjectError):
        store.read("folder")


@pytest.mark.parametrize(
    ("start", "length", "expected"),
    [(0, 4, b"0123"), (3, 4, b"3456"), (8, 4, b"89"), (9, 1, b"9"), (10, 1, b""), (50, 5, b""), (0, 99, b"0123456789")],
)
def test_a_range_ends_where_the_object_ends(store: Store, start: int, length: int, expected: bytes) -> None:
    store.write("digits", b"0123456789")
    assert store.read_range("digits", start, length) == expected


def test_large_objects_are_streamed_both_ways(store: Store, tmp_path: Path) -> None:
    piece = hashlib.sha256(b"seed").digest() * 8192  # 256 KiB
    expected = hashlib.sha256()
    with store.open_write("large") as writer:
        for _ in range(80):  # 20 MiB: three parts
            assert writer.write(memoryview(piece)) == len(piece)
            expected.update(piece)
    assert writer.written == Written("large", 80 * len(piece), expected.hexdigest())

    found = hashlib.sha256()
    with store.open_read("large") as stream:
        assert stream.read(10) == piece[:10]
        found.update(piece[:10])
        while chunk := stream.read(100_000):
            found.update(chunk)
    assert found.digest() == expected.digest()
    (info,) = store.list()
    assert store.read_range("large", 8 * MIB - 3, 6, etag=info.etag) == (piece * 33)[8 * MIB - 3 : 8 * MIB + 3]

    copy = tmp_path / "copy"
    copy.write_bytes(store.read("large"))
    assert store.write_file("again", copy).sha256 == expected.hexdigest()


@pytest.mark.parametrize("size_bytes", [8 * MIB - 1, 8 * MIB, 8 * MIB + 1, 16 * MIB])
def test_sizes_around_that_of_a_part(store: Store, size_bytes: int) -> None:
    data = b"\x5a" * size_bytes
    assert store.write("key", data).size_bytes == size_bytes
    assert store.read("key") == data
    with store.open_write("streamed") as writer:
        writer.write(data)
    assert store.stat("streamed") == ObjectInfo("streamed", size_bytes)


def test_a_stream_reads_lines(store: Store) -> None:
    store.write("lines", b"one\ntwo\nthree")
    with store.open_read("lines") as stream:
        assert list(stream) == [b"one\n", b"two\n", b"three"]


@pytest.mark.parametrize("size_bytes", [10, 20 * MIB])
def test_a_write_left_on_an_exception_puts_nothing(store: Store, size_bytes: int) -> None:
    store.write("before", b"old")

    def fail(key: str) -> None:
        with store.open_write(key) as writer:
            writer.write(b"x" * size_bytes)
            raise KeyboardInterrupt

    for key in ("new", "before"):
        with pytest.raises(KeyboardInterrupt):
            fail(key)
    assert list(store.list()) == [ObjectInfo("before", 3)]
    assert store.read("before") == b"old"


def test_nothing_is_seen_of_a_write_that_goes_on(store: Store) -> None:
    with store.open_write("key") as writer:
        writer.write(b"x" * 9 * MIB)
        assert not store.exists("key")
        assert list(store.list()) == []
    assert store.exists("key")


def test_a_file_that_is_not_there_cannot_be_put(store: Store, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        store.write_file("key", tmp_path / "absent")
    assert not store.exists("key")


def test_a_write_if_absent_lets_the_first_win(store: Store) -> None:
    assert store.write_if_absent("key", b"first")
    assert not store.write_if_absent("key", b"second")
    assert not store.write_if_absent("key", b"first")
    assert store.read("key") == b"first"
    store.delete("key")
    assert store.write_if_absent("key", b"third")


def test_of_writers_that_race_one_wins(store: Store) -> None:
    num_writers = 4  # SeaweedFS makes each that loses wait a second or two
    barrier = threading.Barrier(num_writers)

    def write(number: int) -> bool:
        barrier.wait()
        return store.write_if_absent("race/key", b"%d" % number)

    with ThreadPoolExecutor(num_writers) as threads:
        won = list(threads.map(write, range(num_writers)))
    assert won.count(True) == 1
    assert store.read("race/key") == b"%d" % won.index(True)
    assert len(list(store.list())) == 1


def test_a_listing_is_in_key_order(store: Store) -> None:
    keys = ["a-b", "a.x", "a/b", "a/b2/c", "a0", "B", "é", "z/y/x"]
    for key in reversed(keys):
        store.write(key, key.encode())
    expected = [ObjectInfo(key, len(key.encode())) for key in sorted(keys)]
    assert list(store.list()) == expected
    assert [info.key for info in store.list("a")] == ["a-b", "a.x", "a/b", "a/b2/c", "a0"]
    assert [info.key for info in store.list("a/")] == ["a/b", "a/b2/c"]
    assert [info.key for info in store.list("a/b")] == ["a/b", "a/b2/c"]
    assert list(store.list("nothing/here")) == []


def test_a_directory_is_one_level(store: Store) -> None:
    for key in ("a", "b.jsonl", "rows/1", "rows/2", "deep/er/3"):
        store.write(key, b"x")
    found = store.list_directory()
    assert [info.key for info in found.objects] == ["a", "b.jsonl"]
    assert found.names == ("deep", "rows")
    below = store.list_directory("rows")
    assert [info.key for info in below.objects] == ["rows/1", "rows/2"]
    assert below.names == ()
    assert store.list_directory("absent").objects == ()


def test_stores_see_their_own_prefix_alone(root: str) -> None:
    open_store(join_uri(root, "one")).write("key", b"1")
    open_store(join_uri(root, "one-more")).write("key", b"2")
    assert [info.key for info in open_store(join_uri(root, "one")).list()] == ["key"]
    assert [info.key for info in open_store(root).list()] == ["one-more/key", "one/key"]
    assert open_store(f"{root}/").uri == open_store(root).uri


def test_an_empty_prefix_lists_nothing(store: Store) -> None:
    assert list(store.list()) == []
    assert store.list_directory().names == ()


def test_deleting_is_final_and_idempotent(store: Store) -> None:
    store.write("folder/key", b"x")
    store.delete("folder/key")
    store.delete("folder/key")
    store.delete("folder")
    assert list(store.list()) == []


def test_threads_share_a_store(store: Store) -> None:
    def copy(number: int) -> int:
        store.write(f"{number:02}", b"%d" % number)
        return int(store.read(f"{number:02}"))

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(copy, range(24))) == list(range(24))


def test_a_stream_can_be_left_early(store: Store) -> None:
    store.write("large", b"x" * 3 * MIB)
    for _ in range(20):  # more than there are pooled connections
        with store.open_read("large") as stream:
            assert isinstance(stream, io.BufferedIOBase)
            stream.read(1)
    assert store.read_range("large", 0, 1) == b"x"


@pytest.mark.parametrize("folder", ["..", "a/../..", "./a"])
def test_listings_stay_under_the_root(store: Store, folder: str) -> None:
    with pytest.raises(DataError, match="is no object key"):
        store.list_directory(folder)
    with pytest.raises(DataError, match="is no object key"):
        list(store.list(f"{folder}/"))


def test_what_killed_writers_left_under_a_prefix_is_discarded(store: Store, root: str) -> None:
    store.write("out/kept.jsonl", b"x")
    leave_unfinished(root, "out/half.jsonl")
    leave_unfinished(root, "out/deep/half.jsonl")
    assert count_unfinished(root) == 2
    store.discard_unfinished("out")
    assert count_unfinished(root) == isinstance(store, S3Store)  # there a writer may be at work on the deeper one
    assert [info.key for info in store.list()] == ["out/kept.jsonl"]
    store.discard_unfinished("nothing/here")


def leave_unfinished(root: str, key: str) -> None:
    """What a writer leaves that was killed in the middle of an object."""
    store, full_key = open_object(join_uri(root, key))
    if isinstance(store, S3Store):
        client = store._open().client
        client.create_multipart_upload(Bucket=store._bucket, Key=store._root + full_key)
        return
    writer = store.open_write(full_key)
    writer.__enter__().write(b"half")
    cast("Any", writer)._file.close()  # no rename


def count_unfinished(root: str) -> int:
    store = open_store(root)
    if not isinstance(store, S3Store):
        return len(list(Path(root).rglob(".nanosft-tmp-*")))
    found = store._open().client.list_multipart_uploads(Bucket=store._bucket, Prefix=store._root)
    return len(found.get("Uploads", []))
