"""MinHash of conversations: what a near-duplicate is, and the keys under which two of them meet.

Two conversations are compared by their words alone: case, punctuation, width and white space are gone, and `|` stands
between messages. Of such a text of `n` words (each `|` counted):

    n <= SHORT    near-duplicates are at most one word apart (one replaced, added or left out). No sampling: a text's
                  edit keys are hashes of it whole and with each word left out, and two such texts share one of them.
    n >= SHORT    near-duplicates have a Jaccard similarity of their word pairs of at least the threshold, estimated
                  from NUM_BINS minima; they meet under band keys, each a hash of a few minima.

Why not MinHash for all: one changed word among ten leaves a similarity of 0.6, which unrelated short texts reach too.

Signatures are one-permutation MinHash: a pair of words is hashed once, its hash chooses one of NUM_BINS bins, and each
bin keeps its minimum. Bins that stay empty, as those of shorter texts do, are filled by further rounds of other hashes,
the last of them by copies of full ones; by copies alone the estimate's error is 0.044 on texts of 50 words, not 0.028.

Source: Broder, On the resemblance and containment of documents (1997); Li, Owen, Zhang, One Permutation Hashing (2012);
Dahlgaard, Knudsen, Thorup, Fast Similarity Sketching (2017), for the rounds; Shrivastava, Optimal Densification for
Fast and Accurate Minwise Hashing (2017); Mor and Fraenkel, A hash code method for detecting and correcting spelling
errors (1982), for the keys of texts with a part left out.
"""

from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from nanosft.dedup.words import Words
from nanosft.splitmix import GOLDEN, UInt64Array, mix64, odd_factors

UInt16Array = npt.NDArray[np.uint16]

NUM_BINS: Final = 128
SHORT: Final = 25
"""Words of the longest text that has edit keys, and of the shortest that has band keys: one of this length has both."""
MIN_EDIT_WORDS: Final = 6
"""Below it one word is too large a part of a text: shorter ones are duplicates only when equal."""
DEFAULT_THRESHOLD: Final = 0.7
EXACT_BIT: Final = np.uint64(1 << 63)
"""Set in edit keys, clear in band keys."""

_MIN_BAND_RECALL: Final = 0.9
_EMPTY: Final = np.uint32(0xFFFFFFFF)
_CHUNK_WORDS: Final = 1 << 16
_ATTEMPTS_AT_ONCE: Final = 16
_NUM_ROUNDS: Final = 6
_BIN_SHIFT: Final = np.uint64(64 - NUM_BINS.bit_length() + 1)
_VALUE_SHIFT: Final = np.uint64(20)
"""The value of a pair in its bin: 32 bits that have none of those of the bin."""


class Keys(NamedTuple):
    """Keys of a batch of texts, flat: `keys[i]` is one of text `rows[i]`. Two texts that share a key are candidates.

    Attributes:
        rows: (K,) int64.
        keys: (K,) uint64. With `EXACT_BIT` set it is an edit key: texts that share it are near-duplicates, no more to
            check. Without, it is a band key: their similarity is still to be compared with the threshold.
    """

    rows: npt.NDArray[np.int64]
    keys: UInt64Array


def minhash_words(words: Words) -> UInt16Array:
    """One-permutation MinHash of the word pairs of texts.

    Returns:
        (texts, NUM_BINS) uint16: the low bits of each bin's minimum. Two texts agree in a bin with a probability of
        their Jaccard similarity. Texts of fewer than SHORT words have zeros: edit keys alone compare them.
    """
    hashes, starts = words
    result = np.zeros((len(starts) - 1, NUM_BINS), np.uint16)
    long = np.flatnonzero(np.diff(starts) >= SHORT)
    last = 0
    while last < len(long):
        # As many texts as have _CHUNK_WORDS words: their arrays stay in the processor's cache.
        first, limit = last, starts[long[last]] + _CHUNK_WORDS
        last = max(first + 1, int(np.searchsorted(starts[long + 1], limit, side="right")))
        rows = long[first:last]
        result[rows] = _minhash(hashes, starts[rows], starts[rows + 1])
    return result


def make_keys(words: Words, sigs: UInt16Array, *, threshold: float = DEFAULT_THRESHOLD) -> Keys:
    """All keys under which near-duplicates of these texts meet; a text without words has none.

    Args:
        words: The texts' words.
        sigs: The texts' signatures; rows of short texts are not looked at.
        threshold: The Jaccard similarity that long texts must reach; it decides how many minima make a band.
    """
    num_words = np.diff(words.starts)
    long = np.flatnonzero(num_words >= SHORT)
    rows, edits = _edit_keys(words.hashes, words.starts)
    bands = band_keys(sigs[long], threshold=threshold)
    rows = np.concatenate([rows, np.repeat(long, bands.shape[1])])
    return Keys(rows, np.concatenate([edits | EXACT_BIT, bands.ravel() & ~EXACT_BIT]))


def band_keys(sigs: UInt16Array, *, threshold: float = DEFAULT_THRESHOLD) -> UInt64Array:
    """A hash of each band of each signature.

    Args:
        sigs: (N, NUM_BINS) signatures.
        threshold: See `band_shape`.

    Returns:
        (N, bands) uint64, in the order of the bands; the band's number is part of its hash.
    """
    num_bands, num_rows = band_shape(threshold)
    # Band b takes bins b, b + num_bands, …: neighbours stay apart.
    picked = sigs[:, : num_bands * num_rows].reshape(len(sigs), num_rows, num_bands).astype(np.uint64)
    weights = odd_factors(num_rows, seed=3)
    with np.errstate(over="ignore"):
        sums = ((picked + np.uint64(1)) * weights[None, :, None]).sum(axis=1, dtype=np.uint64)
        return mix64(sums + np.arange(1, num_bands + 1, dtype=np.uint64)[None] * GOLDEN)


@lru_cache
def band_shape(threshold: float) -> tuple[int, int]:
    """Bands and minima a band: the longest bands that still show 9 in 10 pairs of exactly the threshold's similarity.

    A pair of similarity s shares a band with probability 1 - (1 - s**rows)**bands; at 0.7 this is 21 bands of 6, which
    show 0.93 of pairs at 0.7, 0.998 at 0.8 and 0.001 at 0.2.
    """
    shapes = [(NUM_BINS // rows, rows) for rows in range(1, NUM_BINS + 1)]
    good = [(bands, rows) for bands, rows in shapes if 1 - (1 - threshold**rows) ** bands >= _MIN_BAND_RECALL]
    return max(good, key=lambda shape: shape[1], default=(NUM_BINS, 1))


def estimate_similarity(first: UInt16Array, second: UInt16Array) -> npt.NDArray[np.float64]:
    """Estimated Jaccard similarity of signatures along the last axis: the share of equal bins.

    The standard error is at most sqrt(s (1 - s) / NUM_BINS): 0.04 at s = 0.7.
    """
    return np.asarray((first == second).mean(axis=-1, dtype=np.float64))


def _minhash(hashes: UInt64Array, begins: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> UInt16Array:
    """The signatures (N, NUM_BINS) of texts, text i's words hashing to `hashes[begins[i] : ends[i]]`."""
    num_texts, counts = len(begins), ends - begins - 1
    # Places of the words that begin a pair: all but the last of each text.
    places = np.arange(counts.sum()) + np.repeat(begins - np.cumsum(counts) + counts, counts)
    with np.errstate(over="ignore"):
        pairs = mix64(hashes[places] * GOLDEN + hashes[places + 1])
    texts = np.repeat(np.arange(num_texts) * NUM_BINS, counts)
    minima = np.full(num_texts * NUM_BINS, _EMPTY, np.uint32)
    for number, factor in enumerate(odd_factors(_NUM_ROUNDS, seed=5)):
        with np.errstate(over="ignore"):
            mixed = pairs * factor
        bins = texts + (mixed >> _BIN_SHIFT).view(np.int64)
        if number:
            is_open = np.flatnonzero(minima[bins] == _EMPTY)  # a bin belongs to the first round that reached it
            bins, mixed = bins[is_open], mixed[is_open]
        np.minimum.at(minima, bins, (mixed >> _VALUE_SHIFT).astype(np.uint32))
        is_sparse = (minima.reshape(num_texts, NUM_BINS) == _EMPTY).any(axis=1)
        is_left = np.repeat(is_sparse, counts)
        counts = counts * is_sparse
        texts, pairs = texts[is_left], pairs[is_left]
        if not len(texts):
            break
    return _densify(minima.reshape(num_texts, NUM_BINS)).astype(np.uint16)


def _densify(minima: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Fill empty bins of (N, NUM_BINS) minima with those of full bins, chosen by a fixed hash of (bin, attempt)."""
    full = minima != _EMPTY
    rows, bins = np.nonzero(~full & full.any(axis=1)[:, None])
    result = minima.copy()
    sources = _sources()
    for first in range(0, sources.shape[1], _ATTEMPTS_AT_ONCE):
        if not len(rows):
            break
        tried = sources[bins, first : first + _ATTEMPTS_AT_ONCE]  # (empty bins, attempts)
        is_full = full[rows[:, None], tried]
        found = is_full.any(axis=1)
        chosen = tried[found, is_full[found].argmax(axis=1)]
        result[rows[found], bins[found]] = minima[rows[found], chosen]
        rows, bins = rows[~found], bins[~found]
    return result


@lru_cache(maxsize=1)
def _sources() -> npt.NDArray[np.int64]:
    """For each bin the bins it copies, in order of attempt: (NUM_BINS, 2 NUM_BINS) int64.

    The first half is random; the second walks the ring, so that a full bin is found if there is one.
    """
    bins = np.arange(NUM_BINS)
    random = (odd_factors(NUM_BINS * NUM_BINS, seed=100) >> np.uint64(32)).astype(np.int64) % NUM_BINS
    ring = (bins[:, None] + bins[None, :] + 1) % NUM_BINS
    return np.concatenate([random.reshape(NUM_BINS, NUM_BINS), ring], axis=1)


def _edit_keys(hashes: UInt64Array, starts: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], UInt64Array]:
    """Rows (K,) and keys (K,) of the short texts: each whole, and with each one of its words left out."""
    lengths = np.diff(starts)
    rows_out, keys_out = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
    weights = odd_factors(SHORT, seed=4)
    for length in np.unique(lengths[(lengths > 0) & (lengths <= SHORT)]):
        rows = np.flatnonzero(lengths == length)
        words = hashes[starts[rows][:, None] + np.arange(length)[None]]  # (n, length)
        with np.errstate(over="ignore"):
            in_place = words * weights[None, :length]
            moved = np.zeros_like(words)  # the word where it stands once an earlier one is left out
            moved[:, 1:] = words[:, 1:] * weights[None, : max(length - 1, 0)]
            before = np.cumsum(in_place, axis=1) - in_place
            after = moved.sum(axis=1, keepdims=True) - np.cumsum(moved, axis=1)
            whole = in_place.sum(axis=1, keepdims=True)
            all_keys = np.concatenate([whole, before + after], axis=1) if length >= MIN_EDIT_WORDS else whole
            sizes = np.full(all_keys.shape[1], length - 1, np.uint64)
            sizes[0] = length
            all_keys = mix64(all_keys + (sizes + np.uint64(1)) * GOLDEN)
        rows_out.append(np.repeat(rows, all_keys.shape[1]))
        keys_out.append(all_keys.ravel())
    return np.concatenate(rows_out), np.concatenate(keys_out)
