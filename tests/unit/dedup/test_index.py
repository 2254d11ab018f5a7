import random

from hypothesis import given
from hypothesis import strategies as st

from nanosft.dedup.index import NearDuplicateIndex
from nanosft.dedup.texts import join_messages


def make_texts(num: int, *, seed: int = 0, num_words: int = 60) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(f"w{rng.randrange(20_000)}" for _ in range(num_words)) for _ in range(num)]


def test_finds_what_was_added_and_nothing_else():
    texts = make_texts(3000)
    index = NearDuplicateIndex()
    for place, text in enumerate(texts):
        assert index.query(text) is None
        assert index.add(text) == place
    assert len(index) == 3000
    for place in range(0, 3000, 37):
        words = texts[place].split()
        words[5] = "changed"
        assert index.query(" ".join(words)) == place
    assert all(index.query(text) is None for text in make_texts(200, seed=1))
    runs = sum(keys.nbytes + rows.nbytes for keys, rows in index._runs)
    assert (index._signatures.nbytes + runs) / len(index) < 700


def test_short_copies_are_found_by_edit_keys():
    index = NearDuplicateIndex()
    index.add("who made you | i was made by andrej karpathy")
    assert index.query("who built you | i was made by andrej karpathy") == 0
    assert index.query("who made you | i was made by sam altman") is None


def test_the_first_of_several_is_named():
    index = NearDuplicateIndex()
    text = make_texts(1)[0]
    index.add(text)
    index.add(text)
    assert index.query(text) == 0


@given(st.lists(st.lists(st.sampled_from("abcde"), min_size=1, max_size=9), max_size=30))
def test_find_or_add_keeps_no_two_equal_texts(rows):
    index = NearDuplicateIndex()
    kept = [text for text in (" ".join(row) for row in rows) if index.find_or_add(text) is None]
    assert len(kept) == len(set(kept)) == len(index)
    assert all(index.query(" ".join(row)) is not None for row in rows)


def test_what_was_removed_is_found_no_more_and_its_near_duplicates_are_found_by_themselves():
    index = NearDuplicateIndex()
    texts = make_texts(3)
    for text in texts:
        index.add(text)
    index.remove(1)
    assert [index.query(text) for text in texts] == [0, None, 2]
    near = texts[1].replace(texts[1].split()[5], "changed")
    assert index.find_or_add(near) is None
    assert index.query(texts[1]) == index.query(near) == 3


def test_texts_added_together_are_found_as_those_added_alone():
    texts = [*make_texts(3000), "who made you | i was made by andrej karpathy"]
    rows = [join_messages(text.split(" | ")) for text in texts]
    alone, together = NearDuplicateIndex(), NearDuplicateIndex()
    alone.add(texts[0])
    together.add(texts[0])
    for text in texts[1:]:
        alone.add(text)
    together.add_all(rows[1:900])
    together.add_all(rows[900:])
    together.add_all([])
    asked = [*texts[::50], *(text.replace(" w1", " x", 1) for text in texts[::50]), *make_texts(100, seed=1)]
    asked.append("who built you | i was made by andrej karpathy")
    assert [together.query(text) for text in asked] == [alone.query(text) for text in asked]
    assert together.add("another text") == len(texts)
