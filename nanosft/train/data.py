"""From the URIs of the settings to tokens: which objects train and which validate, tokenised once for all ranks."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from nanosft.dataset import DataObject, list_data_objects
from nanosft.errors import DataError
from nanosft.progress import Bar
from nanosft.settings.train import TrainSettings
from nanosft.store.base import Store
from nanosft.train.distributed import World
from nanosft.train.tokens import TokenSet, cache_key, hash_objects, read_lines, read_tokens, tokenize, write_tokens

_TRAIN_PREFIX: Final = "train-"
_VAL_PREFIX: Final = "val-"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Data:
    """What a run trains on.

    Attributes:
        train: Conversations to train on.
        val: Conversations to evaluate on; None where there are none.
        sha256: Of the content of both.
        cache_keys: Objects of the run's store that hold the tokens.
    """

    train: TokenSet
    val: TokenSet | None
    sha256: str
    cache_keys: tuple[str, ...]


def split_objects(uri: str, val_uri: str | None) -> tuple[list[DataObject], list[DataObject]]:
    """The objects to train on and those to validate on.

    What mix made holds both, told apart by their names; anything else is trained on as a whole.

    Raises:
        DataError: Nothing is there, or nothing of it is for training.
    """
    objects = list_data_objects(uri)
    names = [item.key.rpartition("/")[2] for item in objects]
    is_mixture = any(name.startswith((_TRAIN_PREFIX, _VAL_PREFIX)) for name in names)
    train = [
        item for item, name in zip(objects, names, strict=True) if not is_mixture or name.startswith(_TRAIN_PREFIX)
    ]
    val = [item for item, name in zip(objects, names, strict=True) if is_mixture and name.startswith(_VAL_PREFIX)]
    if not train:
        raise DataError(f"{uri}: holds {_VAL_PREFIX}… objects but no {_TRAIN_PREFIX}… objects")
    return train, list_data_objects(val_uri) if val_uri is not None else val


def load_data(settings: TrainSettings, store: Store, tokenizer_pickle: bytes, *, capacity: int, world: World) -> Data:
    """Tokens of all conversations: rank 0 makes them or finds them in the run's store, where all ranks read them.

    Raises:
        DataError: The data is missing, damaged, or holds a line that cannot be trained on.
    """

    def prepare() -> tuple[str, str, str | None]:
        train, val = split_objects(settings.data, settings.val_data)
        train_sha256 = hash_objects(train)
        train_key = _ensure(train, train_sha256, settings, store, tokenizer_pickle, capacity)
        if not val:
            return train_sha256, train_key, None
        val_sha256 = hash_objects(val)
        val_key = _ensure(val, val_sha256, settings, store, tokenizer_pickle, capacity)
        return f"{train_sha256}{val_sha256}", train_key, val_key

    digests, train_key, val_key = world.first_does(prepare)
    train = world.all_do(lambda: read_tokens(store, train_key))
    val = world.all_do(lambda: read_tokens(store, val_key)) if val_key is not None else None
    return Data(train, val, digests, tuple(key for key in (train_key, val_key) if key is not None))


def _ensure(
    objects: Sequence[DataObject],
    sha256: str,
    settings: TrainSettings,
    store: Store,
    tokenizer_pickle: bytes,
    capacity: int,
) -> str:
    """The key of the objects' tokens, made now unless they are there."""
    key = cache_key(sha256, tokenizer_pickle, capacity=capacity, overlong=settings.overlong)
    if store.exists(key):
        return key
    num_rows = [item.num_rows for item in objects]
    total = None if any(num is None for num in num_rows) else sum(num or 0 for num in num_rows)
    with Bar("tokenise", total) as bar:
        tokens = tokenize(
            read_lines(objects),
            tokenizer_pickle,
            capacity=capacity,
            overlong=settings.overlong,
            num_workers=settings.num_workers or len(os.sched_getaffinity(0)),
            on_progress=bar.advance,
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
