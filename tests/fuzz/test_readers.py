"""A part of `make fuzz`, the same each time."""

from pathlib import Path

from tests.fuzz.readers import fuzz_readers
from tests.fuzz.records import make_record_readers


def test_broken_inputs_are_refused_by_every_reader_in_words():
    found = fuzz_readers(seconds=60, seed=7, max_inputs=624)
    assert found.problems == []
    assert len({name for name, _ in found.counts}) == 52


def test_every_reader_of_records_takes_its_example(tmp_path: Path):
    for name, (example, read) in make_record_readers(tmp_path / "records").items():
        assert example, name
        read(example)
