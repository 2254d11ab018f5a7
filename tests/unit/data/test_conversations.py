"""What a URI of data means, and that nothing of it is lost, added or believed that should not be."""

import gzip
import io
import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from nanosft.conversation import Conversation, Message, to_line, to_list_line
from nanosft.data import (
    DataObject,
    ShardWriter,
    iter_lines,
    list_data_objects,
    pin_objects,
    put_manifest,
    read_batches,
    read_blocks,
    read_conversations,
    read_manifest,
)
from nanosft.data.lines import BLANK, MAX_LINE_BYTES, _split_lines
from nanosft.errors import DataError, StoreError
from nanosft.manifest import Kind, Manifest, ManifestObject
from nanosft.store import Store, open_store

PACK: dict[str, Callable[[bytes], bytes]] = {
    ".jsonl": bytes,
    ".jsonl.gz": gzip.compress,
    ".jsonl.zst": zstandard.compress,
}


def to_parquet(data: bytes) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([orjson.loads(line) for line in data.splitlines()]), sink)
    return sink.getvalue()


def make(number: int, padding: int = 0) -> Conversation:
    turns = (Message("user", f"What is {number}?"), Message("assistant", f"{number}." + "x" * padding))
    return Conversation(turns, {"row": number})


def lines(*numbers: int) -> bytes:
    return b"".join(to_line(make(number)) for number in numbers)


def read(uri: object) -> list[int]:
    return [conversation.meta["row"] for conversation in read_conversations(str(uri))]


def write_shard(store: Store, key: str, *numbers: int) -> ManifestObject:
    with ShardWriter(store, key) as shard:
        for number in numbers:
            shard.write(make(number))
    return shard.object


def finish(store: Store, *objects: ManifestObject, kind: Kind = "mixture", complete: bool = True) -> None:
    put_manifest(store, Manifest(kind=kind, name="test", objects=objects, complete=complete))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


class TestMeaning:
    """A file, a finished prefix, an unfinished one, or a folder of files."""

    def test_a_file_is_itself(self, store: Store, tmp_path: Path) -> None:
        store.write("a.jsonl", lines(1, 2))
        store.write("b.jsonl", lines(3))
        assert read(tmp_path / "a.jsonl") == [1, 2]
        (item,) = list_data_objects(store.uri_of("a.jsonl"))
        assert (item.uri, item.sha256, item.num_rows) == (store.uri_of("a.jsonl"), None, None)
        assert item.size_bytes == len(lines(1, 2))

    def test_a_file_may_have_any_name(self, store: Store, tmp_path: Path) -> None:
        store.write("rows", lines(1))
        assert read(tmp_path / "rows") == [1]

    def test_a_file_is_itself_even_beside_a_manifest(self, store: Store, tmp_path: Path) -> None:
        finish(store, write_shard(store, "train-00000.jsonl", 1), write_shard(store, "val-00000.jsonl", 2))
        assert read(tmp_path / "val-00000.jsonl") == [2]

    def test_a_finished_prefix_is_exactly_its_objects(self, store: Store, tmp_path: Path) -> None:
        objects = [write_shard(store, key, number) for number, key in enumerate(["rows/2", "b.jsonl", "rows/1.jsonl"])]
        metrics = ManifestObject(key="metrics.json", size_bytes=0, sha256="0" * 64)
        finish(store, *objects[1:], metrics)
        store.write("stray.jsonl", lines(99))
        store.write("rows/stray.jsonl", lines(98))
        assert read(tmp_path) == [1, 2]
        assert [(item.key, item.num_rows) for item in list_data_objects(str(tmp_path))] == [
            ("b.jsonl", 1),
            ("rows/1.jsonl", 1),
        ]

    @pytest.mark.parametrize("folder", ["rows", "shards", "state"])
    def test_one_without_a_manifest_is_unfinished(self, store: Store, tmp_path: Path, folder: str) -> None:
        store.write(f"{folder}/0.jsonl", lines(1))
        store.write("a.jsonl", lines(2))
        with pytest.raises(DataError, match=f"unfinished: it has {folder}/ but no manifest.json"):
            read(tmp_path)

    def test_a_folder_is_its_own_files(self, store: Store, tmp_path: Path) -> None:
        store.write("b.jsonl", lines(1))
        store.write("a.jsonl.gz", gzip.compress(lines(2)))
        store.write("c.jsonl.zst", zstandard.compress(lines(3)))
        store.write("notes.txt", b"not data")
        store.write("deeper/d.jsonl", lines(4))
        assert read(tmp_path) == [2, 1, 3]
        assert read(f"{tmp_path}/") == [2, 1, 3]
        assert read(tmp_path.as_uri()) == [2, 1, 3]

    def test_a_folder_may_be_called_as_a_file(self, store: Store, tmp_path: Path) -> None:
        store.write("set.jsonl/a.jsonl", lines(1))
        assert read(tmp_path / "set.jsonl") == [1]

    def test_nothing_is_an_error(self, store: Store, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="nothing is there"):
            read(tmp_path / "absent")
        with pytest.raises(DataError, match="nothing is there"):
            read(tmp_path / "absent.jsonl")
        store.write("notes.txt", b"x")
        with pytest.raises(DataError, match=r"holds no conversations: expected a file, a manifest\.json, or \.jsonl"):
            read(tmp_path)

    @pytest.mark.parametrize("kind", ["model", "state"])
    def test_a_model_is_no_data(self, store: Store, tmp_path: Path, kind: Kind) -> None:
        finish(store, write_shard(store, "a.jsonl", 1), kind=kind)
        with pytest.raises(DataError, match=f"manifest.json: is a {kind}, which holds no conversations"):
            read(tmp_path)

    def test_a_set_with_rows_missing_is_no_data(self, store: Store, tmp_path: Path) -> None:
        finish(store, write_shard(store, "a.jsonl", 1), complete=False)
        with pytest.raises(DataError, match="unfinished: rows are missing"):
            read(tmp_path)

    def test_a_broken_manifest_is_not_taken_for_none(self, store: Store, tmp_path: Path) -> None:
        store.write("a.jsonl", lines(1))
        store.write("manifest.json", b"{")
        with pytest.raises(DataError, match=r"manifest\.json: not a manifest"):
            read(tmp_path)

    def test_a_manifest_may_not_point_outside(self, store: Store, tmp_path: Path) -> None:
        store.write("secret.jsonl", lines(1))
        finish(open_store(str(tmp_path / "set")), ManifestObject(key="../secret.jsonl", size_bytes=1, sha256="0" * 64))
        with pytest.raises(DataError, match="is no object key"):
            read(tmp_path / "set")


class TestManifest:
    """Readers believe the manifest, and check what it says."""

    def test_is_read_as_it_was_put(self, store: Store) -> None:
        assert read_manifest(store) is None
        item = write_shard(store, "a.jsonl", 1, 2)
        finish(store, item)
        found = read_manifest(store)
        assert found is not None
        assert found.objects == (item,)
        assert (item.num_rows, item.size_bytes) == (2, len(lines(1, 2)))

    def test_an_object_that_was_changed(self, store: Store, tmp_path: Path) -> None:
        finish(store, write_shard(store, "a.jsonl", 1, 2))
        store.write("a.jsonl", lines(1, 3))
        with pytest.raises(DataError, match=r"a\.jsonl: SHA-256 is .* its manifest says"):
            read(tmp_path)

    def test_an_object_that_was_cut(self, store: Store, tmp_path: Path) -> None:
        finish(store, write_shard(store, "a.jsonl", 1, 2))
        store.write("a.jsonl", lines(1))
        with pytest.raises(DataError, match=r"a\.jsonl: has \d+ bytes, \d+ are expected"):
            read(tmp_path)

    def test_an_object_that_is_gone(self, store: Store, tmp_path: Path) -> None:
        finish(store, write_shard(store, "a.jsonl", 1))
        store.delete("a.jsonl")
        with pytest.raises(DataError, match=r"a\.jsonl: no such object"):
            read(tmp_path)

    def test_a_number_of_rows_that_is_wrong(self, store: Store, tmp_path: Path) -> None:
        item = write_shard(store, "a.jsonl", 1, 2)
        finish(store, item.model_copy(update={"num_rows": 3}))
        with pytest.raises(DataError, match=r"a\.jsonl: has 2 rows, its manifest says 3"):
            read(tmp_path)


class TestLines:
    """Every line once, with its number, whatever its end, its length, its packing."""

    def write(self, store: Store, data: bytes, key: str = "a.jsonl") -> DataObject:
        store.write(key, data)
        (item,) = list_data_objects(store.uri_of(key))
        return item

    @pytest.mark.parametrize(
        ("data", "expected"),
        [
            (b"", []),
            (b"\n\n", []),
            (b"a", [(1, b"a")]),
            (b"a\n", [(1, b"a")]),
            (b"a\nb", [(1, b"a"), (2, b"b")]),
            (b"\na\n \t\n\nb\n", [(2, b"a"), (5, b"b")]),
            (b"a\r\n\r\nb\r\n", [(1, b"a"), (3, b"b")]),
            (b"\xef\xbb\xbfa\nb\n", [(1, b"a"), (2, b"b")]),
            (b"\xef\xbb\xbf", []),
            ("a\u2028b\x0bc\x85d\n".encode(), [(1, "a\u2028b\x0bc\x85d".encode())]),
        ],
    )
    def test_numbers_and_ends(self, store: Store, data: bytes, expected: list[tuple[int, bytes]]) -> None:
        assert list(iter_lines(self.write(store, data))) == expected
        assert list(iter_lines(self.write(store, gzip.compress(data), "b.jsonl.gz"))) == expected

    @given(st.lists(st.binary(max_size=6).map(lambda data: data.replace(b"\n", b"")), max_size=6), st.data())
    def test_blocks_may_end_anywhere(self, texts: list[bytes], draw: st.DataObject) -> None:
        data = b"\n".join(texts)
        cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=5)))
        blocks = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        lines = [texts[0].removeprefix(b"\xef\xbb\xbf"), *texts[1:]] if texts else []
        item = DataObject(open_store("unread"), "a.jsonl", len(data))
        found = [(number, line.strip(BLANK)) for number, line in _split_lines(iter(blocks), item)]
        expected = [(number, line.strip(BLANK)) for number, line in enumerate(lines, 1)]
        assert [pair for pair in found if pair[1]] == [pair for pair in expected if pair[1]]

    @pytest.mark.parametrize("suffix", PACK)
    def test_lines_longer_than_many_blocks(self, store: Store, suffix: str) -> None:
        data = b"".join(to_line(make(number, padding)) for number, padding in enumerate([3_000_000, 0, 5_000_000]))
        item = self.write(store, PACK[suffix](data), f"a{suffix}")
        assert [number for number, _ in iter_lines(item)] == [1, 2, 3]
        assert b"".join(line + b"\n" for _, line in iter_lines(item)) == data

    @pytest.mark.parametrize("suffix", PACK)
    def test_a_line_longer_than_any_conversation_is_refused_before_it_is_in_memory(
        self, store: Store, suffix: str
    ) -> None:
        """328 KB of .zst, 10 MB of .gz: over 5 GB before."""
        item = self.write(store, PACK[suffix](lines(1) + b"x" * (MAX_LINE_BYTES + 2_000_000)), f"a{suffix}")
        read_lines = (
            lambda: list(iter_lines(item)),
            lambda: [batch.size_bytes for batch in read_batches(item, source=0)],
        )
        for read_all in read_lines:
            with pytest.raises(DataError, match=r"line \d( and on)?: is longer than 64 MiB"):
                read_all()

    @pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst"])
    def test_few_bytes_never_expand_into_a_large_block(self, store: Store, suffix: str) -> None:
        item = self.write(store, PACK[suffix](b"\n" * 50_000_000), f"a{suffix}")
        assert item.size_bytes < 60_000
        sizes = [len(block) for block in read_blocks(item)]
        assert (sum(sizes), max(sizes)) == (50_000_000, 1 << 18)

    def test_newlines_alone_take_no_time_a_line(self, store: Store) -> None:
        """40 KB of .zst held 2^28 of them, and `inspect` was busy for more than a minute."""
        item = self.write(store, zstandard.compress(lines(1) + b"\n" * 50_000_000 + lines(2)), "a.jsonl.zst")
        blocks = read_blocks(item)
        assert [number for number, _ in _split_lines(blocks, item)][-1] == 50_000_002
        assert sum(1 for _ in _split_lines(read_blocks(item), item)) < 1_000_000
        batches = [list(batch.iter_lines()) for batch in read_batches(item, source=0)]
        assert [len(found) for found in batches if found] == [1, 1]

    @pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst"])
    def test_an_object_of_no_bytes_is_no_compressed_set(self, store: Store, suffix: str) -> None:
        with pytest.raises(DataError, match="cannot be decompressed: it ends early"):
            list(iter_lines(self.write(store, b"", f"a{suffix}")))

    def test_an_object_that_changes_after_it_was_hashed_is_an_error(self, store: Store) -> None:
        """`audit x.jsonl --out o` while x shrank: 11,397 of 400,000 rows, exit 0, the whole file's hash as parent."""
        for key in ("a.jsonl", "a.parquet"):
            pack = to_parquet if key == "a.parquet" else bytes
            (pinned,) = pin_objects([self.write(store, pack(lines(1, 2)), key)])
            store.write(key, pack(lines(1, 3)))
            with pytest.raises(StoreError, match=f"{key}: was replaced"):
                list(iter_lines(pinned))
            with pytest.raises(DataError, match="SHA-256 is"):
                list(iter_lines(replace(pinned, size_bytes=len(store.read(key)), etag=None)))

    @pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst"])
    def test_members_one_after_the_other(self, store: Store, suffix: str) -> None:
        key, compress = f"a{suffix}", PACK[suffix]
        self.write(store, compress(lines(1)[:20]) + compress(b"") + compress(lines(1)[20:] + lines(2)), key)
        assert read(store.uri_of(key)) == [1, 2]

    @pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst"])
    def test_one_that_ends_early_is_an_error(self, store: Store, suffix: str) -> None:
        key, compress = f"a{suffix}", PACK[suffix]
        whole = compress(lines(*range(100)))
        for data in (whole[:-1], whole[: len(whole) // 2], whole + whole[:9]):
            self.write(store, data, key)
            with pytest.raises(DataError, match=f"{key}: cannot be decompressed: it ends early"):
                read(store.uri_of(key))
        self.write(store, b"no such packing", key)
        with pytest.raises(DataError, match=f"{key}: cannot be decompressed: "):
            read(store.uri_of(key))

    def test_bad_ones_are_named(self, store: Store) -> None:
        for bad, says in (
            (b"{", "not JSON"),
            (b"[]", "the conversation has no user message"),
            (
                b'{"messages": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]}',
                "message 0 is",
            ),
        ):
            self.write(store, lines(1) + b"\n" + bad + b"\n" + lines(2))
            with pytest.raises(DataError, match=rf"a\.jsonl:line 3: .*{says}") as caught:
                read(store.uri_of("a.jsonl"))
            assert str(caught.value).startswith(store.uri_of("a.jsonl"))

    def test_a_format_can_be_asked_for(self, store: Store) -> None:
        self.write(store, to_list_line(make(1)) + lines(2))
        assert len(list(read_conversations(store.uri_of("a.jsonl")))) == 2
        with pytest.raises(DataError, match="line 2: messages must be a list, found an object"):
            list(read_conversations(store.uri_of("a.jsonl"), format="list"))

    def test_a_reader_that_stops_leaves_no_thread(self, store: Store) -> None:
        self.write(store, b"".join(to_line(make(number, 10_000)) for number in range(200)))
        before = set(threading.enumerate())
        conversations = read_conversations(store.uri_of("a.jsonl"))
        assert [item.meta["row"] for item in islice(conversations, 2)] == [0, 1]
        assert set(threading.enumerate()) > before
        conversations.close()  # type: ignore[attr-defined]
        assert set(threading.enumerate()) == before


class TestShardWriter:
    """Writes lines, and says what it wrote."""

    def test_in_nanochats_form(self, store: Store) -> None:
        with ShardWriter(store, "a.jsonl", encode=to_list_line) as shard:
            shard.write(make(1))
            shard.write_line(to_list_line(make(2)))
            assert shard.num_rows == 2
        assert shard.object.num_rows == 2
        assert store.read("a.jsonl") == to_list_line(make(1)) + to_list_line(make(2))

    def test_left_on_an_exception_puts_nothing(self, store: Store) -> None:
        def fail() -> None:
            with ShardWriter(store, "a.jsonl") as shard:
                shard.write(make(1))
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fail()
        assert list(store.list()) == []

    def test_of_no_rows(self, store: Store, tmp_path: Path) -> None:
        finish(store, write_shard(store, "a.jsonl"))
        assert read(tmp_path) == []


def test_real_sets_are_read_whole(shared: Path) -> None:
    for name, num_rows in (("identity_a", 1000), ("identity_b", 950)):
        assert sum(1 for _ in read_conversations(str(shared / "data" / f"{name}.jsonl"))) == num_rows
    assert len({item.id for item in read_conversations(str(shared / "data"))}) <= 1950
