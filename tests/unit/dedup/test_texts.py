from hypothesis import given
from hypothesis import strategies as st

from nanosft.conversation import Conversation, Message
from nanosft.dedup.texts import digest_texts, drop_borders, hash_batch, join_messages
from nanosft.dedup.words import Words, hash_words, normalize_text

pieces = st.one_of(
    st.text(st.characters(max_codepoint=127), max_size=20),
    st.text(st.sampled_from("aB '|-\u2019\u2014\u00e9\u0130\ufb01\u0301\u4f60\x1e\x1f\n\t.?0"), max_size=20),
    st.text(max_size=10),
)
rows_of_texts = st.lists(st.lists(pieces, min_size=1, max_size=4), max_size=6)


def split(words: Words) -> list[list[int]]:
    return [words.hashes[start:end].tolist() for start, end in zip(words.starts[:-1], words.starts[1:], strict=True)]


def hash_all(rows: list[list[str]]) -> Words:
    return hash_batch([join_messages(texts) for texts in rows])


@given(rows_of_texts)
def test_a_batch_has_the_words_of_each_conversation(rows: list[list[str]]):
    conversations = [Conversation(tuple(Message("user", text) for text in texts)) for texts in rows]
    words = hash_batch([join_messages(texts) for texts in rows])
    normal = [normalize_text(conversation) for conversation in conversations]
    assert split(words) == split(hash_words(normal))
    assert split(drop_borders(words)) == split(hash_words([text.replace("| ", "") for text in normal]))


@given(rows_of_texts)
def test_digests_are_equal_for_equal_words_and_the_same_in_any_batch(rows: list[list[str]]):
    words = hash_all(rows)
    digests = [tuple(digest) for digest in digest_texts(words).tolist()]
    assert digests == [tuple(digest_texts(hash_all([row]))[0].tolist()) for row in rows]
    assert len(set(digests)) == len({tuple(found) for found in split(words)})


def test_digests_know_the_order_of_words():
    words = hash_all([["a b", "c"], ["b a", "c"], ["a", "b c"], ["a b c", "c"], ["A: b!", "\tc"]])
    digests = [tuple(digest) for digest in digest_texts(words).tolist()]
    assert len(set(digests)) == 4
    assert digests[0] == digests[4]


def test_case_punctuation_and_layout_are_gone():
    found = split(hash_all([["  It\u2019s \u2014 what?\n", "A|B\tc!"], ["its WHAT", "a b (c)"]]))
    assert found[0] == found[1] == split(hash_words(["its what | a b c"]))[0]


def test_messages_without_a_word_are_told_apart_and_the_others_still_compared():
    found = split(
        hash_all([["how?", "!!"], ["How", "??"], ["how", " !! "], ["", "b"], ["\U0001f44d", "B"], ["?", "!"]])
    )
    assert found[0] == found[2]
    assert found[0] != found[1]
    assert found[0][:2] == found[1][:2]
    assert found[3] != found[4]
    assert found[3][1:] == found[4][1:]
    assert len(found[5]) == 3
