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
All arithmetic is integer and modulo 2**64, so that every process and platform gets the same bytes.

Source: Broder, On the resemblance and containment of documents (1997); Li, Owen, Zhang, One Permutation Hashing (2012);
Dahlgaard, Knudsen, Thorup, Fast Similarity Sketching (2017), for the rounds; Shrivastava, Optimal Densification for
Fast and Accurate Minwise Hashing (2017); Mor and Fraenkel, A hash code method for detecting and correcting spelling
errors (1982), for the keys of texts with a part left out.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import cache, lru_cache
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from nanosft.conversation import Conversation

UInt16Array = npt.NDArray[np.uint16]
UInt64Array = npt.NDArray[np.uint64]

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
_CHUNK_CHARS: Final = 1 << 18
_HASHED_CHARS: Final = 1 << 16
_ATTEMPTS_AT_ONCE: Final = 16
_NUM_ROUNDS: Final = 6

# Scripts written without spaces count by the character: Thai, kana, Han.
_UNSPACED: Final = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
# Apostrophes and invisible characters vanish; Turkish i without or with its dot is i, as upper case cannot tell them.
_NORMAL: Final = str.maketrans(
    {**dict.fromkeys("'\u2019\u02bc\u00ad\u200b\u200c\u200d\u2060\ufeff"), "\u0131": "i", "\u0130": "i"}
)
_ASCII_FOLD: Final = bytes(c if chr(c).isalnum() and c < 128 else 32 for c in range(256)).lower()  # noqa: PLR2004

_ASCII_FOLD_LINES: Final = bytes(10 if c == 10 else folded for c, folded in enumerate(_ASCII_FOLD))  # noqa: PLR2004


class Keys(NamedTuple):
    """Keys of a batch of texts, flat: `keys[i]` is one of text `rows[i]`. Two texts that share a key are candidates.

    Attributes:
        rows: (K,) int64.
        keys: (K,) uint64. With `EXACT_BIT` set it is an edit key: texts that share it are near-duplicates, no more to
            check. Without, it is a band key: their similarity is still to be compared with the threshold.
    """

    rows: npt.NDArray[np.int64]
    keys: UInt64Array


def normalize_text(conversation: Conversation) -> str:
    """The conversation's words in lower case, a space between them and ` | ` between messages."""
    return " | ".join([normalize_words(message.text) for message in conversation.messages])


def normalize_words(text: str) -> str:
    """The text's words in lower case with one space between them; apostrophes vanish, other punctuation divides."""
    if text.isascii():
        folded = text.encode().translate(_ASCII_FOLD, b"'")
        return b" ".join(folded.split()).decode()
    return " ".join(_word().findall(unicodedata.normalize("NFKC", text).translate(_NORMAL).casefold()))


def normalize_each(sentences: Sequence[str]) -> list[str]:
    """`normalize_words` of each of some sentences without line ends, in a third of the time of one by one."""
    text = "\n".join(sentences)
    if not sentences or not text.isascii():
        return [normalize_words(sentence) for sentence in sentences]
    folded = text.encode().translate(_ASCII_FOLD_LINES, b"'").decode()
    return [" ".join(line.split()) for line in folded.split("\n")]


def signature(text: str) -> UInt16Array:
    """The signature of one normalized text; see `signatures`."""
    result: UInt16Array = signatures([text])[0]
    return result


def signatures(texts: Sequence[str]) -> UInt16Array:
    """One-permutation MinHash of the word pairs of normalized texts.

    Args:
        texts: What `normalize_text` returns.

    Returns:
        (len(texts), NUM_BINS) uint16: the low bits of each bin's minimum. Two texts agree in a bin with a probability
        of their Jaccard similarity. Texts of fewer than SHORT words have zeros: edit keys alone compare them.
    """
    result = np.zeros((len(texts), NUM_BINS), np.uint16)
    rows: list[int] = []
    num_chars = 0
    chunk: list[str] = []
    for row, text in enumerate(texts):
        if text.count(" ") + 1 < SHORT:
            continue
        rows.append(row)
        chunk.append(text)
        num_chars += len(text)
        if num_chars >= _CHUNK_CHARS:
            result[rows] = _sign(*hash_words(chunk))
            rows, chunk, num_chars = [], [], 0
    if rows:
        result[rows] = _sign(*hash_words(chunk))
    return result


def near_keys(texts: Sequence[str], sigs: UInt16Array, *, threshold: float = DEFAULT_THRESHOLD) -> Keys:
    """All keys under which near-duplicates of these texts meet.

    Args:
        texts: Normalized texts.
        sigs: Their signatures; rows of short texts are not looked at.
        threshold: The Jaccard similarity that long texts must reach; it decides how many minima make a band.
    """
    num_words = np.array([text.count(" ") + 1 for text in texts], np.int64)
    short, long = np.flatnonzero(num_words <= SHORT), np.flatnonzero(num_words >= SHORT)
    hashes, starts = hash_words([texts[row] for row in short.tolist()])
    places, edits = _edit_keys(hashes, starts)
    bands = band_keys(sigs[long], threshold=threshold)
    rows = np.concatenate([short[places], np.repeat(long, bands.shape[1])])
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
    weights = _random_words(num_rows, seed=3)
    with np.errstate(over="ignore"):
        sums = ((picked + np.uint64(1)) * weights[None, :, None]).sum(axis=1, dtype=np.uint64)
        return _mix(sums + np.arange(1, num_bands + 1, dtype=np.uint64)[None] * _GOLDEN)


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


def similarity(first: str, second: str) -> float:
    """Exact Jaccard similarity of two normalized texts' word pairs; 1.0 for two texts without any."""
    pairs = [set(pairwise(words)) for words in (first.split(), second.split())]
    union = len(pairs[0] | pairs[1])
    return len(pairs[0] & pairs[1]) / union if union else float(first == second)


def hash_words(texts: Sequence[str]) -> tuple[UInt64Array, npt.NDArray[np.int64]]:
    """Hash each word of normalized texts.

    Returns:
        The hashes (W,) uint64 of all words in order, and where each text's begin: (len(texts) + 1,) int64 offsets.
    """
    hashes, counts = [np.empty(0, np.uint64)], [np.zeros(1, np.int64)]
    first = num_chars = 0
    for place, text in enumerate(texts, 1):
        num_chars += len(text)
        if num_chars >= _HASHED_CHARS or place == len(texts):
            found, ends = _hash_words(texts[first:place])
            hashes.append(found)
            counts.append(ends + counts[-1][-1])
            first, num_chars = place, 0
    return np.concatenate(hashes), np.concatenate(counts)


def _hash_words(texts: Sequence[str]) -> tuple[UInt64Array, npt.NDArray[np.int64]]:
    """The hashes of the words of a few texts, and where each text's end.

    A word's hash is the sum of its letters' numbers, each times a power of an odd base, modulo 2**64. The powers go on
    from word to word and are taken back by the inverse base at the end: no letter's place in its word is needed.
    """
    data = np.frombuffer(("\n" + "\n".join(texts) + "\n").encode(), np.uint8)
    is_word = data > ord(" ")
    begins = np.flatnonzero(is_word[1:] & ~is_word[:-1]) + 1
    ends = np.searchsorted(begins, np.flatnonzero(data == ord("\n"))[1:])
    if not len(begins):
        return np.empty(0, np.uint64), ends
    powers, inverses = _powers(1 << len(data).bit_length())
    with np.errstate(over="ignore"):
        letters = _letters().take(data)
        letters *= powers[: len(data)]
        return _mix(np.add.reduceat(letters, begins) * inverses[begins]), ends


@lru_cache(maxsize=4)
def _powers(count: int) -> tuple[UInt64Array, UInt64Array]:
    """The first `count` powers of an odd base and of its inverse, modulo 2**64; `count` is a power of two."""
    base = int(_GOLDEN)
    tables = []
    for factor in (base, pow(base, -1, 1 << 64)):
        table = np.ones(count, np.uint64)
        with np.errstate(over="ignore"):
            for bit in range(count.bit_length() - 1):
                table[1 << bit : 2 << bit] = table[: 1 << bit] * np.uint64(pow(factor, 1 << bit, 1 << 64))
        tables.append(table)
    return tables[0], tables[1]


@lru_cache(maxsize=1)
def _letters() -> UInt64Array:
    """A number for each byte, 0 for white space."""
    table = _random_words(256, seed=1).copy()
    table[: ord(" ") + 1] = 0
    return table


@lru_cache(maxsize=1)
def _word() -> re.Pattern[str]:
    """A word: letters and digits with their marks, or one character of an unspaced script with its marks.

    Made when the first text beyond ASCII comes: the marks (category M) have to be listed. Those beyond the
    basic plane are left out: with them the pattern is ten times as slow.
    """
    marks = "".join(chr(point) for point in range(0x300, 0x10000) if unicodedata.category(chr(point)).startswith("M"))
    return re.compile(rf"[{_UNSPACED}][{marks}]*|[^\W_{_UNSPACED}]+(?:[{marks}]+[^\W_{_UNSPACED}]*)*")


def _sign(hashes: UInt64Array, starts: npt.NDArray[np.int64]) -> UInt16Array:
    """The signatures (N, NUM_BINS) of texts whose words hash to `hashes`, text i's from `starts[i]`."""
    num_texts = len(starts) - 1
    rows = np.repeat(np.arange(num_texts), np.diff(starts))
    with np.errstate(over="ignore"):
        pairs = hashes * _GOLDEN
        pairs[:-1] += hashes[1:]
    is_pair = np.ones(len(hashes), bool)
    is_pair[starts[1:] - 1] = False  # the last word of a text begins no pair
    rows, pairs = rows[is_pair], pairs[is_pair]
    minima = np.full(num_texts * NUM_BINS, _EMPTY, np.uint32)
    for number in range(_NUM_ROUNDS):
        with np.errstate(over="ignore"):
            mixed = _mix(pairs + np.uint64(number) * _ROUND_STEP)
        bins = (mixed >> np.uint64(32)) * np.uint64(NUM_BINS) >> np.uint64(32)
        places = rows * NUM_BINS + bins.astype(np.int64)
        values = (mixed & np.uint64(0xFFFFFFFF)).astype(np.uint32)
        if number:
            is_open = minima[places] == _EMPTY  # a bin belongs to the first round that reached it
            places, values = places[is_open], values[is_open]
        np.minimum.at(minima, places, values)
        is_sparse = (minima.reshape(num_texts, NUM_BINS) == _EMPTY).any(axis=1)[rows]
        rows, pairs = rows[is_sparse], pairs[is_sparse]
        if not len(rows):
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
    random = (_random_words(NUM_BINS * NUM_BINS, seed=100) >> np.uint64(32)).astype(np.int64) % NUM_BINS
    ring = (bins[:, None] + bins[None, :] + 1) % NUM_BINS
    return np.concatenate([random.reshape(NUM_BINS, NUM_BINS), ring], axis=1)


def _edit_keys(hashes: UInt64Array, starts: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], UInt64Array]:
    """Rows (K,) and keys (K,) of the short texts: each whole, and with each one of its words left out."""
    lengths = np.diff(starts)
    rows_out, keys_out = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
    weights = _random_words(SHORT, seed=4)
    for length in np.unique(lengths[lengths <= SHORT]):
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
            all_keys = _mix(all_keys + (sizes + np.uint64(1)) * _GOLDEN)
        rows_out.append(np.repeat(rows, all_keys.shape[1]))
        keys_out.append(all_keys.ravel())
    return np.concatenate(rows_out), np.concatenate(keys_out)


_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_ROUND_STEP: Final = np.uint64(0xD1342543DE82EF95)


def _mix(values: UInt64Array) -> UInt64Array:
    """Finalizer of SplitMix64 (Steele, Lea, Flood, 2014): a bijection in which each bit depends on all."""
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))


@cache
def _random_words(count: int, *, seed: int) -> UInt64Array:
    """`count` fixed odd uint64, the SplitMix64 stream of the seed."""
    with np.errstate(over="ignore"):
        steps = np.arange(1, count + 1, dtype=np.uint64) + np.uint64(seed << 32)
        return _mix(steps * _GOLDEN) | np.uint64(1)
