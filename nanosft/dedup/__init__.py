"""Texts that are the same, or nearly, told apart from those that are not. Torch-free, and pure but for one file.

`words` gives the normal form by which texts are compared, and the hashes of words; `texts` does it a batch of rows at
a time; `minhash` makes signatures and the keys under which near-duplicates meet; `index` is the search in memory;
`components` makes clusters of pairs, in a file.
"""

from nanosft.dedup.components import Components
from nanosft.dedup.index import NearDuplicateIndex
from nanosft.dedup.minhash import (
    DEFAULT_THRESHOLD,
    EXACT_BIT,
    NUM_BINS,
    SHORT,
    Keys,
    estimate_similarity,
    make_keys,
    minhash_words,
)
from nanosft.dedup.texts import digest_texts, drop_borders, hash_batch, join_messages
from nanosft.dedup.words import Words, hash_words, normalize_each, normalize_text, normalize_words, to_offsets

__all__ = [
    "DEFAULT_THRESHOLD",
    "EXACT_BIT",
    "NUM_BINS",
    "SHORT",
    "Components",
    "Keys",
    "NearDuplicateIndex",
    "Words",
    "digest_texts",
    "drop_borders",
    "estimate_similarity",
    "hash_batch",
    "hash_words",
    "join_messages",
    "make_keys",
    "minhash_words",
    "normalize_each",
    "normalize_text",
    "normalize_words",
    "to_offsets",
]
