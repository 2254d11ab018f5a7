"""Near-duplicate clusters of mix, judged by the definition of a near duplicate, computed exactly."""

from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from nanosft.dedup import DEFAULT_THRESHOLD, SHORT, Components, hash_words, make_keys, minhash_words, normalize_words
from nanosft.mix.disk import Spill, save_places
from nanosft.mix.selecting.near import find_edges, plan_partitions, save_dropped
from nanosft.mix.tuning import Tuning
from tests.real_sets import read_chatterbot, read_chitchat


class Judged(NamedTuple):
    """Rows without exact copies; those dropped as near duplicates; those of them that are near to no other row."""

    num_rows: int
    num_dropped: int
    num_wrong: int


def judge_real_sets(directory: Path) -> Judged:
    """Cluster `chitchat-dataset` and `chatterbot-corpus` and look at every row that would be dropped."""
    chats = read_chitchat() + read_chatterbot()
    texts = list(dict.fromkeys(" | ".join(normalize_words(item["content"]) for item in chat) for chat in chats))
    members: dict[int, list[int]] = {}
    for row, name in enumerate(cluster(texts, directory, batch_rows=1000)):
        members.setdefault(name, []).append(row)
    wrong = sum(
        not any(is_near(texts[row], texts[other]) for other in rows if other != row)
        for rows in members.values()
        for row in rows[1:]
    )
    return Judged(len(texts), len(texts) - len(members), wrong)


def cluster(texts: list[str], directory: Path, *, batch_rows: int) -> list[int]:
    """The name of each text's cluster, with batches dealt out to two processes' files in turn."""
    tuning = Tuning()
    spills = [Spill(directory, number, tuning.spilled_keys) for number in range(2)]
    places = []
    for batch, base in enumerate(range(0, len(texts), batch_rows)):
        words = hash_words(texts[base : base + batch_rows])
        sigs = minhash_words(words)
        spill = spills[batch % 2]
        places.append((spill.number, base, 0, spill.add_keys(batch, make_keys(words, sigs), sigs)))
    for spill in spills:
        spill.finish()
    save_places(directory, places)
    save_dropped(directory, len(texts), iter([]))
    components = Components(directory / "components", len(texts))
    for partitions in plan_partitions(directory, tuning):
        components.unite(find_edges(directory, partitions, DEFAULT_THRESHOLD, tuning))
    found = list(range(len(texts)))
    for rows, names in components.iter_members():
        for row, name in zip(rows.tolist(), names.tolist(), strict=True):
            found[row] = name
    components.close()
    return found


def similarity(first: str, second: str) -> float:
    """Exact Jaccard similarity of two normalized texts' word pairs; 1.0 for two equal texts without any."""
    pairs = [set(pairwise(words)) for words in (first.split(), second.split())]
    union = len(pairs[0] | pairs[1])
    return len(pairs[0] & pairs[1]) / union if union else float(first == second)


def is_near(first: str, second: str) -> bool:
    a, b = first.split(), second.split()
    if min(len(a), len(b)) >= SHORT:
        return similarity(first, second) >= DEFAULT_THRESHOLD
    if abs(len(a) - len(b)) > 1:
        return False
    start = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    tails = [(a[start + i :], b[start + j :]) for i, j in ((1, 1), (0, 1), (1, 0))]
    return a == b or any(x == y for x, y in tails)
