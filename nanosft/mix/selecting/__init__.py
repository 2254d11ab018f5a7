"""Which rows stay, and how often.

`ledger` holds one narrow record a row in DuckDB (`database`) and drops duplicates, of which `near` finds the
clusters; `selection` splits, repeats and orders what stays, in amounts that `apportion` makes of shares; `steps` is
what the recipe asks of each of them.

What uses DuckDB is looked up when it is first used: worker processes find near duplicates without loading it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from nanosft.mix.selecting.near import find_edges, plan_partitions
from nanosft.mix.selecting.steps import apportion_sources, plan_validation

if TYPE_CHECKING:
    from nanosft.mix.selecting.database import Database
    from nanosft.mix.selecting.ledger import Ledger
    from nanosft.mix.selecting.selection import TRAIN, VAL, PartCounts, Selection, Supply

_HOMES: Final = {
    "TRAIN": "selection",
    "VAL": "selection",
    "Database": "database",
    "Ledger": "ledger",
    "PartCounts": "selection",
    "Selection": "selection",
    "Supply": "selection",
}

__all__ = [
    "TRAIN",
    "VAL",
    "Database",
    "Ledger",
    "PartCounts",
    "Selection",
    "Supply",
    "apportion_sources",
    "find_edges",
    "plan_partitions",
    "plan_validation",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
