"""A part of `make fuzz`, the same each time."""

from contextlib import suppress
from pathlib import Path

from nanosft.conversation import parse_line
from nanosft.errors import NanosftError
from tests.fuzz.readers import Corpus, fuzz_readers
from tests.fuzz.records import make_record_readers


def test_broken_inputs_are_refused_by_every_reader_in_words():
    found = fuzz_readers(seconds=60, seed=7, max_inputs=624)
    assert found.problems == []
    assert len({name for name, _ in found.counts}) == 52


def test_an_input_that_reaches_a_new_line_is_changed_in_turn():
    corpus = Corpus(b"{}")
    for data, kept in ((b"{", 2), (b"{", 2), (b'{"messages": 1}', 3)):
        with suppress(NanosftError), corpus.watching(data):
            parse_line(data, where="a.jsonl:line 1")
        assert len(corpus.inputs) == kept, data


def test_every_reader_of_records_takes_its_example(tmp_path: Path):
    for name, (example, read) in make_record_readers(tmp_path / "records").items():
        assert example, name
        read(example)
