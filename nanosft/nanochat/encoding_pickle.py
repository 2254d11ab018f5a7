"""Reads the pickle of a tiktoken Encoding without running anything in it.

A pickle is a program. This unpickler admits one class, tiktoken's Encoding, and even that only as an inert record of
its state, from which the Encoding is then made anew.
"""

import io
import pickle
import pickletools
from typing import Any, Final, NoReturn, Self

import tiktoken

from nanosft.errors import DataError

NUM_BYTES: Final = 256

_MAX_TOKEN_ID: Final = 1 << 20
_PUTS: Final = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})


def read_encoding(data: bytes, *, where: str) -> tiktoken.Encoding:
    """The Encoding in a pickle's bytes.

    Raises:
        DataError: It is a pickle of anything else, or none at all.
    """
    try:
        _check_opcodes(data)
        record = _EncodingUnpickler(io.BytesIO(data)).load()
    except _RefusedError as exc:
        raise DataError(f"{where}: refused, and nothing of it was run: {exc}") from exc
    except Exception as exc:  # a damaged pickle can raise nearly anything
        raise DataError(f"{where}: not a pickle of a tiktoken Encoding: {exc!r}") from exc
    return _build_encoding(record, where)


class _RefusedError(Exception):
    """The pickle asks for something that a tokenizer does not need."""


def _check_opcodes(data: bytes) -> None:
    """Refuse what takes memory that the pickle does not fill: a far place in the memo, a bytearray."""
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in _PUTS and isinstance(argument, int) and argument > len(data):
            raise _RefusedError(f"it asks for place {argument} in the memo, and has {len(data)} bytes")
        if opcode.name == "BYTEARRAY8":
            raise _RefusedError("it asks for a bytearray")


class _EncodingRecord:
    """Stands in for tiktoken's Encoding while unpickling: it keeps the state and does nothing with it."""

    def __new__(cls, *arguments: object, **named: object) -> Self:
        if arguments or named:
            raise _RefusedError("an Encoding made with arguments")
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        self.__dict__["state"] = state


class _EncodingUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type[_EncodingRecord]:
        if (module, name) == ("tiktoken.core", "Encoding"):
            return _EncodingRecord
        raise _RefusedError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise _RefusedError(f"it asks for a persistent object {pid!r}")


def _build_encoding(record: object, where: str) -> tiktoken.Encoding:
    state = getattr(record, "state", None)
    if not isinstance(record, _EncodingRecord) or not isinstance(state, dict):
        # An encoding pickled by name alone would be fetched from the network by tiktoken itself.
        raise DataError(f"{where}: not a pickle of a tiktoken Encoding with its merges")
    keys = {"name", "pat_str", "mergeable_ranks", "special_tokens"}
    if set(state) != keys:
        raise DataError(f"{where}: the Encoding has keys {sorted(map(str, state))[:8]}, expected {sorted(keys)}")
    ranks, special = state["mergeable_ranks"], state["special_tokens"]
    if not _is_table(ranks, bytes) or not _is_table(special, str) or not ranks:
        raise DataError(f"{where}: the Encoding's merges or special tokens are no table of ids")
    if any(bytes([byte]) not in ranks for byte in range(NUM_BYTES)):
        raise DataError(f"{where}: the Encoding's merges lack some of the {NUM_BYTES} single bytes")
    if len({*ranks.values(), *special.values()}) != len(ranks) + len(special):
        raise DataError(f"{where}: two tokens of the Encoding have the same id")
    if max(*ranks.values(), *special.values()) >= _MAX_TOKEN_ID:
        raise DataError(f"{where}: the Encoding has a token with an id of {_MAX_TOKEN_ID:,} or more")
    if not isinstance(state["pat_str"], str) or not state["pat_str"]:
        raise DataError(f"{where}: the Encoding has no pattern that splits text")
    try:
        return tiktoken.Encoding(
            str(state["name"]), pat_str=str(state["pat_str"]), mergeable_ranks=ranks, special_tokens=special
        )
    except Exception as exc:  # tiktoken reports a bad pattern and equal ids in several ways
        raise DataError(f"{where}: tiktoken refuses the Encoding: {exc}") from exc


def _is_table(value: object, key_type: type) -> bool:
    return isinstance(value, dict) and all(
        isinstance(key, key_type) and type(item) is int and item >= 0 for key, item in value.items()
    )
