"""The columns of a row's record: one type each, for NumPy and for SQL. Pure."""

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Columns = dict[str, npt.NDArray[Any]]
"""Some rows, column by column, all of one length."""

TYPES: Final[dict[str, type[np.generic]]] = {
    # What a row is by itself; `RowBatch.columns` says what each column holds.
    "id_hi": np.uint64,
    "id_lo": np.uint64,
    "text_hi": np.uint64,
    "text_lo": np.uint64,
    "meta": np.uint64,
    "cell": np.uint64,
    "tokens": np.uint32,
    "supervised": np.uint32,
    "size": np.uint32,
    "clean": np.bool_,
    # Where it came from: its number among all rows, its source and that one's priority, its batch and place in it.
    "rid": np.uint32,
    "source": np.uint16,
    "rank": np.uint16,
    "batch": np.uint32,
    "start": np.uint32,
    # What becomes of it: the step that dropped it, who is like it, and where in the output it stands.
    "step": np.str_,
    "cluster": np.uint32,
    "grp": np.uint32,
    "twin": np.uint32,
    "part": np.uint8,
    "position": np.uint64,
}
ROW: Final = ("id_hi", "id_lo", "text_hi", "text_lo", "meta", "cell", "tokens", "supervised", "size", "clean")
RECORD: Final = ("rid", "source", "rank", "batch", "start", *ROW)

_SQL_TYPES: Final[dict[type[np.generic], str]] = {
    np.bool_: "BOOLEAN",
    np.uint8: "UTINYINT",
    np.uint16: "USMALLINT",
    np.uint32: "UINTEGER",
    np.uint64: "UBIGINT",
    np.str_: "VARCHAR",
}


def to_sql(names: Iterable[str]) -> str:
    """The columns of these names with their types, as `CREATE TABLE` takes them."""
    return ", ".join(f"{name} {_SQL_TYPES[TYPES[name]]}" for name in names)
