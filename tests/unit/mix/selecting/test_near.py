from pathlib import Path

from nanosft.data import read_conversations
from nanosft.dedup import NearDuplicateIndex, normalize_text
from tests.near_truth import cluster, judge_real_sets


def test_clusters_do_not_depend_on_batches(tmp_path: Path):
    words = [f"w{i}" for i in range(60)]
    texts = [" ".join([*words[:k], "x", *words[k + 1 :]]) for k in range(30)] + [" ".join(reversed(words))]
    found = []
    for batch_rows in (3, 31):
        (tmp_path / str(batch_rows)).mkdir()
        found.append(cluster(texts, tmp_path / str(batch_rows), batch_rows=batch_rows))
    assert found[0] == found[1] == [0] * 30 + [30]


def test_hardly_any_row_of_clean_real_sets_is_taken_for_a_duplicate(tmp_path: Path):
    """Every row that would be dropped is held against the definition, computed exactly."""
    found = judge_real_sets(tmp_path)
    assert found.num_dropped > 100
    assert found.num_wrong / found.num_rows < 0.005


def test_no_near_duplicate_is_left_of_a_set_made_of_the_same_sentences(tmp_path: Path, shared: Path):
    """Of identity_b, whose answers are a few sentences in many orders, eight partners a row left three."""
    texts = list(dict.fromkeys(map(normalize_text, read_conversations(str(shared / "data/identity_b.jsonl")))))
    names = cluster(texts, tmp_path, batch_rows=100)
    index = NearDuplicateIndex()
    kept = [text for row, text in enumerate(texts) if names[row] == row]
    assert 400 < len(kept) < 600
    assert [index.find_or_add(text) for text in kept] == [None] * len(kept)
