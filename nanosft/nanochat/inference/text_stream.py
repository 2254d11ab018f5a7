"""Tokens as text while they come: no character torn apart, nothing shown of a stop string. Torch-free."""

import codecs
from collections.abc import Sequence

from nanosft.nanochat.tokenizer import Tokenizer


class TextStream:
    """The text of one answer, in pieces.

    Text that may be the beginning of a stop string is held back until the next token tells.

    Args:
        tokenizer: Knows each token's bytes.
        stop: The answer ends before the first of these.

    Attributes:
        stopped: A stop string has come: there is no more text.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self.stopped = False
        self._encoding = tokenizer.encoding
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = [text for text in stop if text]
        self._held = ""

    def feed(self, token: int) -> str:
        """The text that is certain after one more token; may be empty."""
        return self._take(self._decoder.decode(self._encoding.decode_single_token_bytes(token)))

    def finish(self) -> str:
        """The text that was held back, when no more tokens come."""
        text = self._take(self._decoder.decode(b"", final=True)) + self._held
        self._held = ""
        return text

    def _take(self, text: str) -> str:
        if self.stopped:
            return ""
        if not self._stop:
            return text
        text = self._held + text
        self._held = ""
        found = [place for place in map(text.find, self._stop) if place >= 0]
        if found:
            self.stopped = True
            return text[: min(found)]
        num_held = max(_overlap(text, stop) for stop in self._stop)
        self._held = text[len(text) - num_held :]
        return text[: len(text) - num_held]


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that a stop string may begin with."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
