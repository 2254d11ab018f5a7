from hypothesis import given
from hypothesis import strategies as st

from nanosft.mix.text import normalize_batch
from nanosft.quality.words import normalize_words

pieces = st.one_of(
    st.text(st.characters(max_codepoint=127), max_size=20),
    st.text(st.sampled_from("aB '|-\u2019\u2014\u00e9\u0130\ufb01\u4f60\x1e\x1f\n\t.?0"), max_size=20),
    st.text(max_size=10),
)


@given(st.lists(st.lists(pieces, min_size=1, max_size=4), max_size=6))
def test_a_batch_gives_what_each_message_gives(rows: list[list[str]]):
    expected = []
    for texts in rows:
        words = [normalize_words(text) for text in texts]
        expected.append(" | ".join(words) if all(words) else None)
    assert normalize_batch(rows) == expected


def test_case_punctuation_and_layout_are_gone():
    assert normalize_batch([["  It\u2019s \u2014 what?\n", "A|B\tc!"]]) == ["its what | a b c"]


def test_a_message_without_a_word_leaves_the_row_as_it_is():
    assert normalize_batch([["how?", "!!"], ["", "b"], ["a", "b"]]) == [None, None, "a | b"]
