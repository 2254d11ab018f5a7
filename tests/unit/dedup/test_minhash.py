import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from nanosft.dedup.minhash import (
    EXACT_BIT,
    MIN_EDIT_WORDS,
    NUM_BINS,
    SHORT,
    UInt16Array,
    band_keys,
    band_shape,
    estimate_similarity,
    make_keys,
    minhash_words,
)
from nanosft.dedup.words import hash_words
from tests.near_truth import similarity

words = st.lists(st.sampled_from([f"w{number}" for number in range(40)]), min_size=1, max_size=60)


def signature(text: str) -> UInt16Array:
    result: UInt16Array = signatures([text])[0]
    return result


def signatures(texts: list[str]) -> UInt16Array:
    return minhash_words(hash_words(texts))


def keys_of(text: str) -> set[int]:
    return set(make_keys(hash_words([text]), signatures([text])).keys.tolist())


def test_signatures_are_the_same_bytes_everywhere():
    """Stored keys and mixed order depend on them: a change of these bytes is a change of format."""
    texts = [" ".join(f"word{(number * k) % 97}" for number in range(60)) for k in range(1, 6)]
    assert hashlib.sha256(signatures(texts).tobytes()).hexdigest()[:16] == SIGNATURES
    all_words = hash_words([*texts, "a short text of exactly seven words"])
    keys = make_keys(all_words, minhash_words(all_words))
    assert hashlib.sha256(keys.keys.tobytes() + keys.rows.tobytes()).hexdigest()[:16] == KEYS


SIGNATURES = "d4cb36709dc2a98e"
KEYS = "9497e25c7ef842b8"


def test_hash_seeds_of_python_do_not_matter():
    code = (
        "from nanosft.dedup import hash_words, make_keys, minhash_words; import hashlib;"
        "t = ' '.join(f'w{i % 37}' for i in range(80));"
        "words = hash_words([t, 'a b c d e f g']);"
        "print(hashlib.sha256(make_keys(words, minhash_words(words)).keys.tobytes()).hexdigest())"
    )
    run = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[3],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert run[0] == run[1]
    assert len(run[0].strip()) == 64


def test_a_batch_signs_as_each_text_alone():
    rng = random.Random(1)
    texts = [" ".join(f"w{rng.randrange(50)}" for _ in range(rng.randrange(0, 400))) for _ in range(40)]
    batch = signatures(texts)
    for row, text in enumerate(texts):
        assert np.array_equal(batch[row], signature(text))


def test_short_texts_have_no_signature():
    assert not signature(" ".join(["word"] * (SHORT - 1))).any()
    assert signature(" ".join(f"w{number}" for number in range(SHORT))).any()


def test_estimated_similarity_is_near_the_exact_one():
    rng = random.Random(2)
    errors = []
    for _ in range(300):
        text = [f"w{rng.randrange(3000)}" for _ in range(rng.randrange(40, 200))]
        other = [word if rng.random() > 0.1 else "changed" for word in text]
        first, second = " ".join(text), " ".join(other)
        errors.append(estimate_similarity(signature(first), signature(second)) - similarity(first, second))
    assert abs(np.mean(errors)) < 0.01
    assert np.std(errors) < 1 / NUM_BINS**0.5


@given(words, st.data())
def test_one_changed_word_of_a_short_text_shares_an_exact_key(text, data):
    assume(MIN_EDIT_WORDS <= len(text) <= SHORT)
    place = data.draw(st.integers(0, len(text) - 1))
    other = [*text[:place], "changed", *text[place + 1 :]]
    shared = keys_of(" ".join(text)) & keys_of(" ".join(other))
    assert any(key & int(EXACT_BIT) for key in shared)


@given(words, st.data())
def test_one_added_word_shares_an_exact_key(text, data):
    assume(MIN_EDIT_WORDS <= len(text) < SHORT)
    place = data.draw(st.integers(0, len(text)))
    other = [*text[:place], "added", *text[place:]]
    shared = keys_of(" ".join(text)) & keys_of(" ".join(other))
    assert any(key & int(EXACT_BIT) for key in shared)


@given(words, words)
def test_short_texts_further_apart_share_no_key(first, second):
    assume(len(first) < SHORT and len(second) < SHORT)
    assume(len(set(first) ^ set(second)) > 4)  # more words differ than two edits explain
    assert not keys_of(" ".join(first)) & keys_of(" ".join(second))


def test_very_short_texts_are_duplicates_only_when_equal():
    assert not keys_of("hi | hello you") & keys_of("hey | hello you")
    assert keys_of("hi | hello you") == keys_of("hi | hello you")


def test_every_one_word_change_of_a_long_text_shares_a_band():
    rng = random.Random(3)
    missed = 0
    for _ in range(500):
        text = [f"w{rng.randrange(5000)}" for _ in range(rng.randrange(SHORT, 80))]
        other = list(text)
        other[rng.randrange(len(text))] = "changed"
        missed += not keys_of(" ".join(text)) & keys_of(" ".join(other))
    assert missed <= 2


def test_bands_are_as_long_as_their_recall_allows():
    assert band_shape(0.7) == (21, 6)
    for threshold in (0.3, 0.5, 0.7, 0.8, 0.9, 0.99):
        bands, rows = band_shape(threshold)
        assert bands * rows <= NUM_BINS
        assert 1 - (1 - threshold**rows) ** bands >= 0.9


def test_band_keys_differ_between_bands():
    same = np.full((1, NUM_BINS), 7, np.uint16)
    keys = band_keys(same)
    assert len(set(keys[0].tolist())) == keys.shape[1]
