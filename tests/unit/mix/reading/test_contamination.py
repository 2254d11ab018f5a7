import random
from pathlib import Path

import numpy as np
import pytest

from nanosft.dedup import hash_words, join_messages
from nanosft.mix.reading.contamination import build_held_out, hash_ngrams, load_held_out

WORDS = [f"w{number}" for number in range(500)]


def make_text(seed: int, num_words: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=num_words))


def halve(text: str) -> list[str]:
    return [text[: len(text) // 2], text[len(text) // 2 :]]


def test_ngrams_stay_within_their_text():
    texts = ["a b c d e", "x", "", "c d e f", "a b c"]
    hashes, rows = hash_ngrams(hash_words(texts), 3)
    counts = np.bincount(rows, minlength=5).tolist()
    assert counts == [3, 1, 0, 2, 1]
    by_row = [set(hashes[rows == row].tolist()) for row in range(5)]
    assert len(by_row[0] & by_row[3]) == 1
    assert by_row[4] < by_row[0]


def test_a_short_text_is_found_only_whole():
    held = build_held_out([join_messages(["one two", "three"])], ngram=8, max_overlap=0.5)
    assert held.find(hash_words(["one two three", "one two", "one two three four"])).tolist() == [True, False, False]


@pytest.mark.parametrize(("kept", "contaminated"), [(100, True), (60, True), (40, False), (0, False)])
def test_the_share_of_a_held_out_conversation_decides(kept: int, contaminated: bool):  # noqa: FBT001
    text = make_text(1, 100)
    rows = [join_messages(halve(row)) for row in (make_text(2, 90), text)]
    held = build_held_out(rows, ngram=8, max_overlap=0.5)
    rest = " ".join(" ".join(halve(text)).split()[: kept + 8])
    row = f"{make_text(3, 300)} {rest if kept else ''}".strip()
    assert held.find(hash_words([make_text(4, 50), row])).tolist() == [False, contaminated]


def test_saved_and_mapped_arrays_find_the_same(tmp_path: Path):
    rows = [join_messages(halve(make_text(seed, 40))) for seed in range(20)]
    held = build_held_out(rows, ngram=5, max_overlap=0.5)
    held.save(tmp_path)
    again = load_held_out(tmp_path, 5, 0.5)
    hashed = hash_words([" ".join(" ".join(halve(make_text(seed, 40))).split()) for seed in range(15, 30)])
    assert held.find(hashed).tolist() == again.find(hashed).tolist() == [True] * 5 + [False] * 10


def test_nothing_held_out_finds_nothing():
    assert build_held_out([], ngram=8, max_overlap=0.5).find(hash_words(["a b c"])).tolist() == [False]
