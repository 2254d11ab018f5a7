"""Small conversations, token sets and bases for the tests of train."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from nanosft.conversation import Conversation, Message, to_line
from nanosft.nanochat import Checkpoint, load_checkpoint
from nanosft.train.data.tokens import TokenSet, tokenize

GOLDEN: Final = Path(__file__).parents[2] / "golden" / "nanochat"
"""Small bases of three generations that nanochat wrote, and what it computed from them."""


def make_tokens(lengths: Sequence[int], supervised: Sequence[int] | None = None, *, vocab_size: int = 700) -> TokenSet:
    """Conversations of random tokens, each with its last tokens supervised (all but the first by default)."""
    supervised = [length - 1 for length in lengths] if supervised is None else supervised
    mask = np.concatenate(
        [np.repeat([0, 1], [length - num, num]) for length, num in zip(lengths, supervised, strict=True)]
        or [np.zeros(0, np.int64)]
    ).astype(np.uint8)
    rng = np.random.default_rng(len(lengths))
    return TokenSet(
        ids=rng.integers(0, vocab_size, sum(lengths)).astype(np.uint16),
        mask=mask,
        offsets=np.concatenate([[0], np.cumsum(np.array(lengths, np.int64))]).astype(np.int64),
        sources=np.zeros(len(lengths), np.int64),
        supervised=np.array(supervised, np.int64),
        names=np.zeros((len(lengths), 8), np.uint8),
        source_names=("data",),
    )


def talk(*texts: str, source: str | None = None) -> bytes:
    """A line of a conversation whose texts are the user's and the assistant's in turn."""
    roles = ("user", "assistant")
    messages = tuple(Message(roles[index % 2], text) for index, text in enumerate(texts))  # type: ignore[arg-type]
    return to_line(Conversation(messages, {} if source is None else {"source": source}))


def tokenizer_pickle() -> bytes:
    """The golden base's tokenizer."""
    return (GOLDEN / "g5/tokenizer/tokenizer.pkl").read_bytes()


def tokens_of(*lines: bytes, capacity: int = 257) -> TokenSet:
    """Real tokens of some conversations, with the golden base's tokenizer."""
    numbered = [(f"test:line {number}", line) for number, line in enumerate(lines, 1)]
    return tokenize(numbered, tokenizer_pickle(), capacity=capacity, overlong="turns", num_workers=1)


def golden_base(generation: str = "g5") -> Checkpoint:
    """A small base that nanochat wrote."""
    return load_checkpoint(str(GOLDEN / generation))
