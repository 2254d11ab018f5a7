import random
from pathlib import Path

import numpy as np
import pytest

from nanosft.conversation import Conversation, Message
from nanosft.mix.contamination import build_held_out, hash_ngrams, load_held_out

WORDS = [f"w{number}" for number in range(500)]


def make_text(seed: int, num_words: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=num_words))


def make_conversation(text: str) -> Conversation:
    half = len(text) // 2
    return Conversation((Message("user", text[:half]), Message("assistant", text[half:])))


def test_ngrams_stay_within_their_text():
    texts = ["a b c d e", "x", "", "c d e f", "a b c"]
    hashes, rows = hash_ngrams(texts, 3)
    counts = np.bincount(rows, minlength=5).tolist()
    assert counts == [3, 1, 0, 2, 1]
    by_row = [set(hashes[rows == row].tolist()) for row in range(5)]
    assert len(by_row[0] & by_row[3]) == 1
    assert by_row[4] < by_row[0]


def test_a_short_text_is_found_only_whole():
    held = build_held_out([make_conversation("one two  three")], ngram=8, max_overlap=0.5)
    assert held.find(["one two three", "one two", "one two three four"]).tolist() == [True, False, False]


@pytest.mark.parametrize(("kept", "contaminated"), [(100, True), (60, True), (40, False), (0, False)])
def test_the_share_of_a_held_out_conversation_decides(kept: int, contaminated: bool):  # noqa: FBT001
    text = make_text(1, 100)
    held = build_held_out([make_conversation(make_text(2, 90)), make_conversation(text)], ngram=8, max_overlap=0.5)
    words = make_conversation(text)
    rest = " ".join(f"{words.messages[0].text} {words.messages[1].text}".split()[: kept + 8])
    row = f"{make_text(3, 300)} {rest if kept else ''}".strip()
    assert held.find([make_text(4, 50), row]).tolist() == [False, contaminated]


def test_saved_and_mapped_arrays_find_the_same(tmp_path: Path):
    held = build_held_out([make_conversation(make_text(seed, 40)) for seed in range(20)], ngram=5, max_overlap=0.5)
    held.save(tmp_path)
    again = load_held_out(tmp_path, 5, 0.5)
    texts = [make_text(seed, 40) for seed in range(15, 30)]
    halves = [make_conversation(text) for text in texts]
    words = [" ".join(f"{row.messages[0].text} {row.messages[1].text}".split()) for row in halves]
    assert held.find(words).tolist() == again.find(words).tolist() == [True] * 5 + [False] * 10


def test_nothing_held_out_finds_nothing():
    assert build_held_out([], ngram=8, max_overlap=0.5).find(["a b c"]).tolist() == [False]
