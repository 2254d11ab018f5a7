"""nanochat's tokenizer, and how a conversation becomes ids and a loss mask. Torch-free.

A tokenizer is a tiktoken `Encoding` with nine special tokens as its last ids, kept as a pickle. A pickle can run code,
so it is read by an unpickler that admits that one class, and even that only as an inert record of its state.
"""

import pickle
from collections.abc import Iterable, Sequence
from typing import Final

import tiktoken

from nanosft.conversation import Conversation, Message, role_problem
from nanosft.data import read_manifest
from nanosft.errors import ConfigError, DataError
from nanosft.foreign import quote
from nanosft.nanochat.encoding_pickle import NUM_BYTES, read_encoding
from nanosft.nanochat.layout import find_tokenizer
from nanosft.nanochat.verified import read_verified
from nanosft.store import open_store

SPECIAL_TOKENS: Final = (
    "<|bos|>",
    "<|user_start|>",
    "<|user_end|>",
    "<|assistant_start|>",
    "<|assistant_end|>",
    "<|python_start|>",
    "<|python_end|>",
    "<|output_start|>",
    "<|output_end|>",
)

_MAX_BYTES: Final = 1 << 28

# Contractions; words with one leading sign or space; numbers by two digits; runs of signs; line ends; other space.
SPLIT_PATTERN: Final = (
    r"(?i:'(?:s|d|m|t|ll|ve|re))"
    r"|[^\r\n\p{L}\p{N}]?\p{L}+"
    r"|\p{N}{1,2}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+"
    r"|\s+(?!\S)"
    r"|\s+"
)


class Tokenizer:
    """Text to ids and back, and conversations to ids and masks.

    Args:
        encoding: With all of `SPECIAL_TOKENS`.
        where: The URI it was read from, for errors.

    Raises:
        DataError: A special token is missing.
    """

    def __init__(self, encoding: tiktoken.Encoding, *, where: str = "tokenizer") -> None:
        missing = [name for name in SPECIAL_TOKENS if name not in encoding.special_tokens_set]
        if missing:
            raise DataError(f"{where}: no special token {', '.join(missing)}: not a tokenizer of nanochat")
        self.encoding = encoding
        self.where = where
        ids = [encoding.encode_single_token(name) for name in SPECIAL_TOKENS]
        self.bos_id, self.user_start_id, self.user_end_id, self.assistant_start_id, self.assistant_end_id = ids[:5]
        self.python_start_id, self.python_end_id, self.output_start_id, self.output_end_id = ids[5:]

    @property
    def vocab_size(self) -> int:
        """Number of tokens, special ones included."""
        return self.encoding.n_vocab

    def special(self, name: str) -> int:
        """The id of a special token, for instance `<|bos|>`.

        Raises:
            ConfigError: There is no such special token.
        """
        if name not in self.encoding.special_tokens_set:
            raise ConfigError(f"no special token {name!r}; there are {', '.join(SPECIAL_TOKENS)}")
        return self.encoding.encode_single_token(name)

    def encode(self, text: str) -> list[int]:
        """Ids of ordinary text: a special token spelled out in it stays plain text.

        Raises:
            DataError: tiktoken cannot split it, as where a hundred thousand spaces follow one another.
        """
        try:
            return self.encoding.encode_ordinary(text)
        except BaseException as exc:
            if type(exc).__name__ != "PanicException":  # Rust's, which no module exports and no `Exception` is above
                raise
            raise DataError(f"{self.where}: cannot encode a text of {len(text):,} characters: {quote(text)}") from None

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`; bytes that are no UTF-8 become U+FFFD."""
        return self.encoding.decode(ids)

    def token_bytes(self) -> list[int]:
        """Length in bytes of each token, 0 for special ones: (vocab_size,), for bits per byte."""
        special = {self.encoding.encode_single_token(name) for name in self.encoding.special_tokens_set}
        sizes = [0] * self.vocab_size
        for token in range(self.vocab_size):
            if token not in special:
                sizes[token] = len(self._single_token_bytes(token))
        return sizes

    def render(self, conversation: Conversation) -> tuple[list[int], list[int]]:
        """Ids of a conversation and their loss mask (1 = supervised), both of one length.

        Supervised is what the assistant says: its text, its Python calls and its end, not what the tool printed.
        A leading system message is joined in front of the first user message with a blank line between. A
        conversation may end with a user message.

        Raises:
            DataError: The roles are not in order (see `nanosft.conversation.role_problem`).
        """
        problem = _find_role_problem(conversation.messages)
        if problem is not None:
            raise DataError(f"conversation {conversation.id}: {problem}")
        encode = self.encode
        ids = [self.bos_id]
        mask = [0]
        for message in join_system(conversation.messages):
            if message.role == "user":
                text = encode(message.text)
                ids += [self.user_start_id, *text, self.user_end_id]
                mask += [0] * (len(text) + 2)
                continue
            ids.append(self.assistant_start_id)
            mask.append(0)
            if isinstance(message.content, str):
                text = encode(message.content)
                ids += text
                mask += [1] * len(text)
            else:
                self._render_parts(message, ids, mask)
            ids.append(self.assistant_end_id)
            mask.append(1)
        return ids, mask

    def render_prompt(self, messages: Sequence[Message], *, max_len: int | None = None) -> list[int]:
        """Ids of messages that end with the user's, and of `<|assistant_start|>`: what the assistant answers to.

        Args:
            messages: An optional system message, then user and assistant in turn, the user's last.
            max_len: Drop the oldest pairs of turns until the prompt has at most this many ids. The system message
                and the last user message always stay.

        Raises:
            DataError: The roles are not in order.
            ConfigError: The last message alone is longer than `max_len`.
        """
        if not messages or messages[-1].role != "user":
            raise DataError("prompt: the last message must be the user's")
        system = messages[:1] if messages[0].role == "system" else []
        turns = messages[len(system) :]
        while True:
            ids, _ = self.render(Conversation((*system, *turns)))
            ids.append(self.assistant_start_id)
            if max_len is None or len(ids) <= max_len:
                return ids
            if len(turns) < 2:  # noqa: PLR2004 - a pair
                raise ConfigError(
                    f"the message is {len(ids)} tokens long, the model has room for {max_len}: shorten it"
                )
            turns = turns[2:]

    def to_pickle(self) -> bytes:
        """The bytes of nanochat's tokenizer.pkl."""
        return pickle.dumps(self.encoding)

    def _render_parts(self, message: Message, ids: list[int], mask: list[int]) -> None:
        for part in message.content:
            assert not isinstance(part, str)
            text = self.encode(part.text)
            supervised = 1
            if part.type == "python":
                text = [self.python_start_id, *text, self.python_end_id]
            elif part.type == "python_output":
                text = [self.output_start_id, *text, self.output_end_id]
                supervised = 0
            ids += text
            mask += [supervised] * len(text)

    def _single_token_bytes(self, token: int) -> bytes:
        try:
            return self.encoding.decode_single_token_bytes(token)
        except KeyError:
            return b""  # a gap in the ids: never encoded


def join_system(messages: Sequence[Message]) -> Sequence[Message]:
    """The messages with a leading system message joined in front of the first user message."""
    if not messages or messages[0].role != "system":
        return messages
    first = Message("user", f"{messages[0].text}\n\n{messages[1].text}")
    return (first, *messages[2:])


def _find_role_problem(messages: Sequence[Message]) -> str | None:
    if messages and messages[-1].role == "user":
        messages = [*messages, Message("assistant", "")]
    return role_problem(messages)


def load_tokenizer(uri: str) -> Tokenizer:
    """Read the tokenizer of a base, in any of the layouts that `nanosft.nanochat.layout` knows.

    Raises:
        DataError: There is none, it is not what a manifest says, or it is a pickle of anything but a tiktoken Encoding
            (nothing in it is run).
    """
    data, where = read_tokenizer(uri)
    return parse_tokenizer(data, where=where)


def read_tokenizer(uri: str) -> tuple[bytes, str]:
    """The bytes of a base's tokenizer.pkl, and its URI; raises as `load_tokenizer` does, but for what is in them."""
    store = open_store(uri)
    key = find_tokenizer(store)
    manifest = read_manifest(store)
    recorded = {item.key: item.sha256 for item in manifest.objects} if manifest is not None else {}
    return read_verified(store, key, recorded.get(key), max_bytes=_MAX_BYTES), store.uri_of(key)


def parse_tokenizer(data: bytes, *, where: str) -> Tokenizer:
    """Read a tokenizer from its pickle's bytes without running anything in it.

    Raises:
        DataError: It is a pickle of anything but a tiktoken Encoding, or none at all.
    """
    return Tokenizer(read_encoding(data, where=where), where=where)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learn a byte-pair encoding from `texts` and add nanochat's special tokens.

    Args:
        texts: Read once, streamed.
        vocab_size: Tokens asked for, 256 bytes and 9 special ones included; little text gives fewer.

    Raises:
        ConfigError: `vocab_size` has no room for the bytes and the special tokens.
    """
    num_ordinary = vocab_size - len(SPECIAL_TOKENS)
    if num_ordinary < NUM_BYTES:
        raise ConfigError(
            f"vocab_size {vocab_size} is less than {NUM_BYTES} bytes and {len(SPECIAL_TOKENS)} special tokens"
        )
    import rustbpe  # type: ignore[import-untyped]  # noqa: PLC0415 - only training needs it

    trainer = rustbpe.Tokenizer()
    trainer.train_from_iterator(iter(texts), num_ordinary, pattern=SPLIT_PATTERN)
    ranks = {bytes(token): rank for token, rank in trainer.get_mergeable_ranks()}
    special = {name: len(ranks) + index for index, name in enumerate(SPECIAL_TOKENS)}
    return Tokenizer(tiktoken.Encoding("rustbpe", pat_str=SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens=special))
