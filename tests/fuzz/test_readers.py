"""A part of `make fuzz`, the same each time."""

from tests.fuzz.readers import fuzz_readers


def test_broken_inputs_are_refused_by_every_reader_in_words():
    found = fuzz_readers(seconds=60, seed=7, max_inputs=600)
    assert found.problems == []
    assert len({name for name, _ in found.counts}) == 21
