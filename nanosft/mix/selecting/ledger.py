# ruff: noqa: S608 - the queries are put together from the names of our own columns and from numbers
"""One narrow record a row, in DuckDB: which rows stay.

DuckDB sorts, groups and joins within its memory limit and spills to the work directory beyond it. Nothing here sees a
row's text. What becomes of the rows that stay is the business of `selection.py`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nanosft.dedup import Components, to_offsets
from nanosft.errors import ConfigError
from nanosft.mix.columns import RECORD, ROW, Columns
from nanosft.mix.reading import RowBatch
from nanosft.mix.recipe import Recipe
from nanosft.mix.selecting.database import Database
from nanosft.mix.selecting.near import save_dropped
from nanosft.mix.tuning import Tuning

BEST: Final = "rank, id_hi, id_lo, meta, rid"
"""The order of rows of which one is kept: by the source's priority, then the smallest id."""
_MAX_ROWS: Final = 1 << 32


class Ledger:
    """The records of all rows, and which of them are dropped, decided in the order of the methods below.

    Args:
        db: The run's database.
        recipe: The recipe.
        directory: The run's, where clusters are found in files.
        tuning: How many records are inserted at a time.
    """

    def __init__(self, db: Database, recipe: Recipe, directory: Path, tuning: Tuning) -> None:
        self._db = db
        self._recipe = recipe
        self._directory = directory
        self._insert_rows = tuning.insert_rows
        self._ranks = np.array(recipe.ranks, np.uint16)
        self._waiting: list[tuple[int, int, Columns]] = []
        self._num_waiting = 0
        self._num_batches = 0
        self._clusters: Components | None = None
        self._own_clusters: Components | None = None
        self._first_rows: dict[int, int] = {}
        self.num_rows = 0
        db.create("rows", RECORD)
        db.create("dropped", ("rid", "step"))
        db.create("clusters", ("rid", "cluster"))
        db.create("own_clusters", ("rid", "cluster"))

    @property
    def has_clusters(self) -> bool:
        """Whether any rows are near duplicates."""
        return self._clusters is not None

    def add(self, batch: RowBatch) -> None:
        """Record the rows of the next batch."""
        number, num = self._num_batches, len(batch)
        self._num_batches += 1
        self._first_rows.setdefault(batch.source, self.num_rows)
        self.num_rows += num
        if self.num_rows >= _MAX_ROWS:
            raise ConfigError(f"more than {_MAX_ROWS} rows: mix parts of the sources first, then their mixtures")
        if num:
            self._waiting.append((number, batch.source, batch.columns))
            self._num_waiting += num
        if self._num_waiting >= self._insert_rows:
            self._flush()

    def _flush(self) -> None:
        if not self._num_waiting:
            return
        batches = [columns for _, _, columns in self._waiting]
        counts = [len(columns["size"]) for columns in batches]
        sources = np.repeat([source for _, source, _ in self._waiting], counts)
        starts = to_offsets(np.concatenate([columns["size"] for columns in batches]))[:-1]
        first_starts = starts[to_offsets(np.array(counts))[:-1]]
        columns = {
            "rid": np.arange(self.num_rows - self._num_waiting, self.num_rows),
            "source": sources,
            "rank": self._ranks[sources],
            "batch": np.repeat([number for number, _, _ in self._waiting], counts),
            "start": starts - np.repeat(first_starts, counts),
            **{name: np.concatenate([columns[name] for columns in batches]) for name in ROW},
        }
        self._waiting, self._num_waiting = [], 0
        self._db.insert("rows", columns)

    def finish_adding(self) -> None:
        """Record what still waits; no more rows come."""
        self._flush()

    def drop_exact(self) -> None:
        """Of rows with equal normalized text keep the best."""
        self._drop_all_but_best("exact", "rows", "text_hi, text_lo")

    def save_dropped(self) -> None:
        """Save which rows are dropped so far, for `near.find_edges`."""
        chunks = self._db.fetch("SELECT rid FROM dropped")
        save_dropped(self._directory, self.num_rows, (chunk["rid"] for chunk in chunks))

    def add_edges(self, pairs: npt.NDArray[Any]) -> None:
        """Record pairs of rows (pairs, 2) that are near duplicates."""
        if not len(pairs):
            return
        self._clusters = self._clusters or Components(self._directory / "clusters", self.num_rows)
        self._clusters.unite(pairs)
        if self._recipe.deduplicate.across or self._recipe.deduplicate.near != "drop":
            return
        # Sources are read one after the other.
        sources = np.searchsorted(list(self._first_rows.values()), pairs, side="right")
        self._own_clusters = self._own_clusters or Components(self._directory / "own-clusters", self.num_rows)
        self._own_clusters.unite(pairs[sources[:, 0] == sources[:, 1]])

    def cluster(self) -> None:
        """Make clusters of all pairs: for the split of all, for dropping of those that may drop each other."""
        insert_components(self._db, "clusters", "cluster", self._clusters)
        insert_components(self._db, "own_clusters", "cluster", self._own_clusters)

    def drop_near(self) -> None:
        """Of each cluster keep the best row."""
        clusters = "clusters" if self._recipe.deduplicate.across else "own_clusters"
        self._db.create_from(
            "clustered",
            f"""
            SELECT rid, source, rank, id_hi, id_lo, meta, cluster
            FROM (SELECT * FROM {clusters} ANTI JOIN dropped USING (rid)) JOIN rows USING (rid)
            """,
        )
        self._drop_all_but_best("near", "clustered", "cluster")
        self._db.drop("clustered")

    def drop_contaminated(self) -> None:
        """Drop rows that repeat held-out sets."""
        self._db.run(
            "INSERT INTO dropped SELECT rid, 'contaminated' FROM rows ANTI JOIN dropped USING (rid) WHERE NOT clean"
        )

    def count_dropped(self) -> dict[tuple[int, str], int]:
        """Rows dropped, by source and step."""
        found = self._db.rows("SELECT source, step, count(*) FROM rows JOIN dropped USING (rid) GROUP BY ALL")
        return {(source, step): num for source, step, num in found}

    def keep(self) -> None:
        """Leave the rows that are not dropped as the table `kept`, and the table `clusters`: nothing else stays."""
        self._db.create("twins", ("rid", "twin"))
        if not self._recipe.deduplicate.leaves_texts_distinct:
            groups = self._iter_groups("rows ANTI JOIN dropped USING (rid)", "id_hi, id_lo")
            self._db.insert_all("twins", ({"rid": rids, "twin": places} for rids, places in groups))
        self._db.create_from(
            "kept",
            """
            SELECT rows.*, coalesce(twin, 0) AS twin
            FROM (SELECT * FROM rows ANTI JOIN dropped USING (rid)) AS rows LEFT JOIN twins USING (rid)
            """,
        )
        self._db.drop("twins", "own_clusters", "dropped", "rows")

    def close(self) -> None:
        """Drop the tables that `keep` has left."""
        self._db.drop("kept", "clusters")

    def _drop_all_but_best(self, step: str, rows: str, keys: str) -> None:
        scope = keys if self._recipe.deduplicate.across else f"{keys}, source"
        worse = (rids[places > 0] for rids, places in self._iter_groups(rows, scope))
        self._db.insert_all("dropped", ({"rid": rids, "step": np.full(len(rids), step)} for rids in worse))

    def _iter_groups(self, rows: str, keys: str) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[np.int64]]]:
        """Chunks of the rows that share keys with others: their numbers, and each one's place in its group, best first.

        Sorted and counted here: a window over groups would hold more in memory than a sort.
        """
        names = [name.strip() for name in keys.split(",")]
        query = f"""
            WITH shared AS (SELECT {keys} FROM {rows} GROUP BY ALL HAVING count(*) > 1)
            SELECT rid, {keys} FROM (SELECT * FROM {rows}) SEMI JOIN shared USING ({keys}) ORDER BY {keys}, {BEST}
        """
        last: tuple[int, ...] = ()
        last_place = 0
        for chunk in self._db.fetch(query):
            rids, columns = chunk["rid"], [chunk[name] for name in names]
            begins = np.ones(len(rids), np.bool_)
            begins[1:] = np.any([column[1:] != column[:-1] for column in columns], axis=0)
            goes_on = tuple(int(column[0]) for column in columns) == last
            starts = np.flatnonzero(begins)
            places = np.arange(len(rids)) - np.repeat(starts, np.diff(starts, append=len(rids)))
            if goes_on:
                places[: starts[1] if len(starts) > 1 else len(rids)] += last_place + 1
            last, last_place = tuple(int(column[-1]) for column in columns), int(places[-1])
            yield rids, places


def insert_components(db: Database, table: str, column: str, components: Components | None) -> None:
    """Fill a table with the rows whose components have others, and their components' names; the components close."""
    if components is None:
        return
    for rows, names in components.iter_members():
        db.insert(table, {"rid": rows, column: names})
    db.run(f"INSERT INTO {table} (rid, {column}) SELECT DISTINCT {column}, {column} FROM {table}")
    components.close()
