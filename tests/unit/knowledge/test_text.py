import pytest

from nanosft.knowledge.text import split_sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", []),
        ("One. Two!  Three?", ["One.", "Two!", "Three?"]),
        ('"One." Two', ['"One."', "Two"]),
        ("One.\n\nTwo\n three", ["One.", "Two", "three"]),
        ("e.g. this, by Dr. A. Smith. It ends", ["e.g. this, by Dr. A. Smith.", "It ends"]),
        ("version 3.5 of it\u2026 yes", ["version 3.5 of it\u2026", "yes"]),
        ("approx. five", ["approx. five"]),
    ],
)
def test_sentences_end_on_a_stop_or_a_line_and_not_on_an_abbreviation(text, sentences):
    assert split_sentences(text) == sentences
