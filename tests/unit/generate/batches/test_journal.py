"""Batches in the store: which of them a shard reads."""

import pytest

from nanosft.generate.batches import Journal, RowRequest
from nanosft.store import Store, open_store


@pytest.fixture
def store(tmp_path) -> Store:
    return open_store(str(tmp_path))


def put(store: Store, shard: tuple[int, int], row: int) -> None:
    journal = Journal(store, shard)
    journal.read_open()
    assert journal.put("rows", "m", [RowRequest(row, 0, 0, 0)], 0.0) is not None


def test_a_shard_reads_no_batch_of_another_of_as_many(store: Store, monkeypatch):
    """Each read all their records: of batches of scores, with the answers in them."""
    for shard, row in (((2, 0), 0), ((2, 1), 1), ((2, 1), 3), ((20, 1), 1), ((1, 0), 5)):
        put(store, shard, row)
    read, asked = store.read, list[str]()

    def count_and_read(key: str) -> bytes:
        asked.append(key)
        return read(key)

    monkeypatch.setattr(store, "read", count_and_read)
    found = Journal(store, (2, 1)).read_open()
    assert [item.record.name for item in found] == [
        "1/00000-000000",
        "2/00001-000000",
        "2/00001-000001",
        "20/00001-000000",
    ]
    assert asked == [f"batches/{item.record.name}.json" for item in found]
