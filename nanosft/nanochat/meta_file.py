"""The meta file beside a model: read within a bound, and the sizes that are looked up in it. Torch-free."""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from nanosft.errors import ConfigError, DataError
from nanosft.nanochat.layout import CheckpointRef
from nanosft.nanochat.verified import read_verified
from nanosft.store.base import Store

_META_BYTES: Final = 1 << 20


def read_meta(store: Store, ref: CheckpointRef) -> dict[str, Any]:
    """The meta file of a checkpoint.

    Raises:
        DataError: It is no JSON object, or not what the manifest says.
    """
    where = store.uri_of(ref.meta_key)
    try:
        meta = orjson.loads(read_verified(store, ref.meta_key, ref.find_sha256(ref.meta_key), max_bytes=_META_BYTES))
    except orjson.JSONDecodeError as exc:
        raise DataError(f"{where}: not JSON: {exc}") from exc
    if not isinstance(meta, dict):
        raise DataError(f"{where}: expected a JSON object with model_config")
    return meta


def look_up_size(meta: Mapping[str, Any], name: str, given: int | None, *, default: int | None, where: str) -> int:
    """What was asked for, else what the meta file has, else what it says was asked for, else `default`.

    Args:
        meta: A meta file.
        name: For instance "total_batch_size".
        given: By the settings.
        default: None: there is none.
        where: The meta file's URI, for errors.

    Raises:
        ConfigError: None of them says.
    """
    user = meta.get("user_config")
    told = user.get(name) if isinstance(user, dict) else None
    for value in (given, meta.get(name), told, default):
        if isinstance(value, int) and not isinstance(value, bool) and value >= 1:  # -1 is nanochat's "auto"
            return value
    raise ConfigError(f"{where} names no {name}: give --{name.replace('_', '-')}")


def look_up_row_len(meta: Mapping[str, Any], given: int | None, *, where: str) -> int:
    """Tokens of a packed row that the model sees: as `look_up_size` finds it, else the model's context.

    Raises:
        ConfigError: Neither says.
    """
    sizes = meta.get("model_config")
    context_len = sizes.get("sequence_len") if isinstance(sizes, dict) else None
    return look_up_size(meta, "max_seq_len", given, default=context_len, where=where)
