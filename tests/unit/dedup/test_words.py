import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nanosft.conversation import Conversation, Message
from nanosft.dedup.words import hash_words, normalize_each, normalize_text, normalize_words


def test_case_punctuation_and_white_space_do_not_count():
    first = Conversation((Message("user", "Who made YOU?!"), Message("assistant", "I'm nanochat -- a model.")))
    second = Conversation((Message("user", "who made you"), Message("assistant", "im  nanochat;\na Model")))
    assert normalize_text(first) == normalize_text(second) == "who made you | im nanochat a model"


def test_typographic_and_full_width_forms_are_plain_ones():
    assert normalize_words("It\u2019s \uff21\uff22\uff23 \u201cfine\u201d \u2014 really") == "its abc fine really"


def test_ascii_and_unicode_paths_agree():
    text = "Don't_panic: 42 (forty-two)!"
    assert normalize_words(text) == normalize_words(text + " \u00e9").removesuffix(" \u00e9")


def test_scripts_without_spaces_count_by_the_character():
    assert normalize_words("\u4f60\u597d\u3002nanochat") == "\u4f60 \u597d nanochat"


def test_marks_and_joiners_stay_within_their_word():
    assert normalize_words("\u0915\u0948\u0938\u093e \u0939\u0948").count(" ") == 1
    assert normalize_words("\u0645\u06cc\u200c\u062e\u0648\u0627\u0645").count(" ") == 0
    assert normalize_words("KI\u015eLAR \u0131\u011fd\u0131r") == normalize_words("k\u0131\u015flar I\u011eDIR")


def test_words_hash_alike_wherever_they_stand():
    hashes, starts = hash_words(["alpha beta", "", "beta alpha beta"])
    assert starts.tolist() == [0, 2, 2, 5]
    assert hashes[0] == hashes[3]
    assert hashes[1] == hashes[2] == hashes[4]
    assert hashes[0] != hashes[1]
    assert hash_words([])[1].tolist() == [0]
    assert hash_words(["", ""])[1].tolist() == [0, 0, 0]


def test_no_two_words_of_a_vocabulary_hash_alike():
    vocabulary = [f"{stem}{number}" for stem in ("a", "ab", "ba", "token") for number in range(20_000)]
    hashes, _ = hash_words([" ".join(vocabulary)])
    assert len(np.unique(hashes)) == len(vocabulary)


ascii_lines = st.text(st.characters(max_codepoint=127, exclude_characters="\n"))


@given(st.lists(ascii_lines | st.sampled_from(["\u00c9t\u00e9 im Caf\u00e9", "\u0130stanbul"])))
def test_sentences_together_are_normal_as_each_alone(sentences):
    assert normalize_each(sentences) == [normalize_words(sentence) for sentence in sentences]
