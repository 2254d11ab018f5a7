"""Near-duplicate clusters of mix, judged by the definition of a near duplicate, computed exactly."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from nanosft.mix.near import PAIR, Components, KeyFiles, check_pairs, find_candidates, signature_path
from nanosft.quality.minhash import (
    DEFAULT_THRESHOLD,
    SHORT,
    near_keys,
    signatures,
    similarity,
)
from nanosft.quality.words import normalize_words
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
    with KeyFiles(directory) as files:
        for base in range(0, len(texts), batch_rows):
            batch = texts[base : base + batch_rows]
            sigs = signatures(batch)
            keys = near_keys(batch, sigs)
            files.add(base, keys.rows, keys.keys, sigs)
        paths = files.close()
    pairs = np.unique(np.concatenate([np.empty(0, PAIR), *map(find_candidates, paths)]))
    held = check_pairs(signature_path(directory), pairs, DEFAULT_THRESHOLD)
    components = Components(directory / "components", len(texts))
    components.unite(held["row"].tolist(), held["first"].tolist())
    found = list(components.find(list(range(len(texts)))))
    components.close()
    return found


def is_near(first: str, second: str) -> bool:
    a, b = first.split(), second.split()
    if min(len(a), len(b)) >= SHORT:
        return similarity(first, second) >= DEFAULT_THRESHOLD
    if abs(len(a) - len(b)) > 1:
        return False
    start = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    tails = [(a[start + i :], b[start + j :]) for i, j in ((1, 1), (0, 1), (1, 0))]
    return a == b or any(x == y for x, y in tails)
