"""From the URIs of the settings to tokens: which objects train and which validate, tokenised once for all ranks."""

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from nanosft.data import DataObject, Origin, list_data_objects, pin_objects, read_manifest
from nanosft.errors import DataError
from nanosft.manifest import Parent
from nanosft.nanochat.tokenizer import read_tokenizer
from nanosft.progress import Bar
from nanosft.settings.train import TrainSettings
from nanosft.store import open_store
from nanosft.store.base import Store
from nanosft.train.data.tokens import TokenSet, cache_key, hash_objects, read_lines, read_tokens, tokenize, write_tokens

_VAL_PREFIX: Final = "val-"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CachedTokens:
    """Where the tokens of a run lie in its store, and what they were made from.

    Attributes:
        train_key: Object of the conversations to train on.
        val_key: Object of those to evaluate on; None where there are none.
        parents: What the run's manifest names as its origin: the data, and the validation data where it has its own.
        tokenizer_sha256: Of the tokenizer.pkl that made them.
    """

    train_key: str
    val_key: str | None
    parents: tuple[Parent, ...]
    tokenizer_sha256: str

    @property
    def keys(self) -> tuple[str, ...]:
        """All its objects."""
        return (self.train_key,) if self.val_key is None else (self.train_key, self.val_key)


@dataclass(frozen=True)
class Data:
    """What a run trains on.

    Attributes:
        train: Conversations to train on.
        val: Conversations to evaluate on; None where there are none.
        cached: Where both lie in the run's store.
    """

    train: TokenSet
    val: TokenSet | None
    cached: CachedTokens


def split_objects(uri: str, val_uri: str | None) -> tuple[list[DataObject], list[DataObject]]:
    """The objects to train on and those to validate on.

    Of several objects those named val-… validate, as mix names them, and all others train. A URI of validation data
    means its val-… objects where it has any: what mix made may be given whole.

    Raises:
        DataError: Nothing is there, or nothing of it is for training.
    """
    train, val = _split_by_name(uri)
    if not train:
        raise DataError(f"{uri}: all its objects are named {_VAL_PREFIX}…, for validation: nothing is left to train on")
    if val_uri is not None:
        others, val = _split_by_name(val_uri)
        val = val or others
    return train, val


def _split_by_name(uri: str) -> tuple[list[DataObject], list[DataObject]]:
    """The objects of a URI but those for validation, and those; one object alone is whatever it is named."""
    objects = list_data_objects(uri)
    val = [item for item in objects if len(objects) > 1 and item.key.rpartition("/")[2].startswith(_VAL_PREFIX)]
    return [item for item in objects if item not in val], val


def prepare_data(
    settings: TrainSettings,
    store: Store,
    tokenizer_uri: str,
    *,
    capacity: int,
    look: Callable[[], None] = lambda: None,
) -> CachedTokens:
    """Make the tokens of all conversations, or find them in the run's store, where every rank can read them.

    Args:
        settings: Which data, and what to do with overlong conversations.
        store: The run's store.
        tokenizer_uri: The base, or the experiment in it, that the tokenizer is of.
        capacity: Tokens of a row.
        look: Called every few MB and some hundred conversations; what it raises ends the work.

    Raises:
        DataError: The data is missing, damaged, or holds a line that cannot be trained on.
    """
    tokenizer_pickle, _ = read_tokenizer(tokenizer_uri)
    tokenizer_sha256 = hashlib.sha256(tokenizer_pickle).hexdigest()
    train, val = (pin_objects(items, look=look) for items in split_objects(settings.data, settings.val_data))
    train_sha256 = hash_objects(train)
    parents = [_find_origin(settings.data, train).to_parent()]
    train_key = _ensure(train, train_sha256, settings, store, tokenizer_pickle, capacity, look)
    if not val:
        return CachedTokens(train_key, None, tuple(parents), tokenizer_sha256)
    val_sha256 = hash_objects(val)
    if settings.val_data is not None:
        parents.append(_find_origin(settings.val_data, val).to_parent())
    val_key = _ensure(val, val_sha256, settings, store, tokenizer_pickle, capacity, look)
    return CachedTokens(train_key, val_key, tuple(parents), tokenizer_sha256)


def read_data(store: Store, cached: CachedTokens) -> Data:
    """The tokens that `prepare_data` left in the store.

    Raises:
        DataError: An object does not hold them.
    """
    val = read_tokens(store, cached.val_key) if cached.val_key is not None else None
    return Data(read_tokens(store, cached.train_key), val, cached)


def find_origins(uri: str, val_uri: str | None) -> tuple[Origin, ...]:
    """The data and the validation data where it has its own, as they are now."""
    train, val = split_objects(uri, val_uri)
    return (_find_origin(uri, train), *([_find_origin(val_uri, val)] if val_uri is not None and val else []))


def _find_origin(uri: str, objects: Sequence[DataObject]) -> Origin:
    """The data's manifest where it has one, else its content."""
    store = open_store(uri)
    manifest = read_manifest(store)
    if manifest is not None:
        return Origin.known(store.uri, manifest.sha256)
    return Origin.of_objects(store.uri, objects, lambda: hash_objects(objects))


def _ensure(
    objects: Sequence[DataObject],
    sha256: str,
    settings: TrainSettings,
    store: Store,
    tokenizer_pickle: bytes,
    capacity: int,
    look: Callable[[], None],
) -> str:
    """The key of the objects' tokens, made now unless they are there."""
    key = cache_key(sha256, tokenizer_pickle, capacity=capacity, overlong=settings.overlong)
    if store.exists(key):
        return key
    num_rows = [item.num_rows for item in objects]
    total = None if any(num is None for num in num_rows) else sum(num or 0 for num in num_rows)
    with Bar("tokenise", total) as bar:

        def advance(num: int) -> None:
            bar.advance(num)
            look()

        tokens = tokenize(
            read_lines(objects),
            tokenizer_pickle,
            capacity=capacity,
            overlong=settings.overlong,
            num_workers=settings.num_workers or len(os.sched_getaffinity(0)),
            on_progress=advance,
        )
    write_tokens(store, key, tokens)
    counts = tokens.counts
    _log.info(
        "%d conversations, %d tokens (%d supervised); overlong: %d shortened, %d dropped, %d turns cut",
        counts["num_conversations"],
        counts["num_tokens"],
        counts["num_supervised"],
        counts["num_shortened"],
        counts["num_dropped"],
        counts["num_turns_cut"],
    )
    return key
