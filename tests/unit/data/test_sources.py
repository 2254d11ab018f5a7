import gzip
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanosft.data import ShardWriter, find_inputs, put_manifest, read_batches, sources
from nanosft.errors import DataError
from nanosft.manifest import Manifest
from nanosft.store import open_store

LINES = [b'{"n": %d, "text": "%s"}' % (number, b"x" * (number % 50)) for number in range(500)]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("batch_bytes", [1, 100, 1 << 20])
def test_batches_are_whole_lines_with_their_numbers(tmp_path: Path, monkeypatch, end: bytes, batch_bytes: int):
    monkeypatch.setattr(sources, "BATCH_BYTES", batch_bytes)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + end.join(LINES)))
    (item,) = find_inputs([str(tmp_path)]).objects
    found = {}
    for batch in read_batches(item, source=3):
        assert batch.source == 3
        for number, line in enumerate(batch.take().split(b"\n"), batch.first):
            if line.strip():
                found[number] = line.strip()
    assert found == dict(enumerate(LINES, 1))


def test_a_line_longer_than_a_batch_stays_whole(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(sources, "BATCH_BYTES", 10)
    (tmp_path / "a.jsonl").write_bytes(b"short\n" + b"y" * 1_000_000 + b"\nlast")
    (item,) = find_inputs([str(tmp_path / "a.jsonl")]).objects
    assert b"".join(batch.take() for batch in read_batches(item, source=0)) == b"short\n" + b"y" * 1_000_000 + b"\nlast"


def test_objects_come_in_order_and_once(tmp_path: Path):
    for name in ("b.jsonl", "a.jsonl", "deep/c.jsonl", "a.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"{}\n")
    root = str(tmp_path)
    names = [item.uri.rpartition("/")[2] for item in find_inputs([f"{root}/b.jsonl", f"{root}/?.jsonl", root]).objects]
    assert names == ["a.jsonl", "b.jsonl"]
    assert len(find_inputs([f"{root}/**.jsonl"]).objects) == 3
    assert len(find_inputs([f"{root}/*/*.jsonl"]).objects) == 1


def test_a_manifest_is_the_parent_and_others_name_themselves(tmp_path: Path):
    store = open_store(str(tmp_path / "made"))
    with ShardWriter(store, "train-00000.jsonl") as writer:
        writer.write_line(b"{}\n")
    manifest = Manifest(kind="mixture", name="m", objects=(writer.object,))
    put_manifest(store, manifest)
    (tmp_path / "bare.jsonl").write_bytes(b"{}\n")
    inputs = find_inputs([str(tmp_path / "made"), str(tmp_path / "bare.jsonl")])
    assert [(parent.uri, parent.sha256) for parent in inputs.manifests] == [(str(tmp_path / "made"), manifest.sha256)]
    assert [uri.rpartition("/")[2] for uri in inputs.bare] == ["bare.jsonl"]


def test_parquet_rows_are_json_lines(tmp_path: Path):
    rows = [{"messages": [{"role": "user", "content": str(number)}]} for number in range(1200)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=500)
    (item,) = find_inputs([str(tmp_path)]).objects
    batches = list(read_batches(item, source=0))
    assert [orjson.loads(line) for batch in batches for line in batch.take().split(b"\n")] == rows
    assert [batch.first for batch in batches][:2] == [1, 513]


def test_what_is_no_parquet_is_named(tmp_path: Path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 but not really PAR1")
    (item,) = find_inputs([str(tmp_path / "a.parquet")]).objects
    with pytest.raises(DataError, match=r"a\.parquet: not a Parquet file"):
        list(read_batches(item, source=0))
