# ruff: noqa: S608 - the queries are put together from the names of our own columns and from numbers
"""One narrow record a row, in DuckDB: which rows stay.

DuckDB sorts, groups and joins within its memory limit and spills to the work directory beyond it. Nothing here sees a
row's text. What becomes of the rows that stay is the business of `selection.py`.
"""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nanosft.dedup import Components, to_offsets
from nanosft.errors import ConfigError
from nanosft.mix.reading.rows import RowBatch
from nanosft.mix.recipe import Recipe
from nanosft.mix.selecting.database import Database
from nanosft.mix.selecting.near import save_dropped
from nanosft.mix.selecting.selection import BEST, Selection

_MAX_ROWS: Final = 1 << 32
_INSERT_ROWS: Final = 1 << 16
_SCHEMA: Final = """
CREATE TABLE rows (
    rid UINTEGER, source USMALLINT, rank USMALLINT, batch UINTEGER, start UINTEGER, size UINTEGER,
    id_hi UBIGINT, id_lo UBIGINT, text_hi UBIGINT, text_lo UBIGINT, meta UBIGINT, cell UBIGINT,
    tokens UINTEGER, supervised UINTEGER, clean BOOLEAN);
CREATE TABLE dropped (rid UINTEGER, step VARCHAR);
CREATE TABLE clusters (rid UINTEGER, cluster UINTEGER);
CREATE TABLE own_clusters (rid UINTEGER, cluster UINTEGER);
"""


class Ledger:
    """The records of all rows, and which of them are dropped, decided in the order of the methods below.

    Args:
        directory: For the database and what it spills.
        recipe: The recipe.
        in_memory: Whether the database is small enough to need no file; it can still spill.
        memory_bytes: What DuckDB may hold; it is not the whole process.
        num_threads: For DuckDB.
    """

    def __init__(
        self, directory: Path, recipe: Recipe, *, in_memory: bool, memory_bytes: int, num_threads: int
    ) -> None:
        self._directory = directory
        self._recipe = recipe
        self._ranks = np.array(recipe.ranks, np.uint16)
        self._waiting: list[tuple[int, int, dict[str, npt.NDArray[Any]]]] = []
        self._num_waiting = 0
        self._clusters: Components | None = None
        self._own_clusters: Components | None = None
        self._first_rows: dict[int, int] = {}
        self.num_rows = 0
        self._db = Database(directory, in_memory=in_memory, memory_bytes=memory_bytes, num_threads=num_threads)
        self._db.run(_SCHEMA)

    def add(self, number: int, batch: RowBatch) -> int:
        """Record the rows of batch `number`; returns the number of its first row."""
        base, num = self.num_rows, len(batch)
        self._first_rows.setdefault(batch.source, base)
        self.num_rows += num
        if self.num_rows >= _MAX_ROWS:
            raise ConfigError(f"more than {_MAX_ROWS} rows: mix parts of the sources first, then their mixtures")
        if num:
            self._waiting.append((number, batch.source, batch.columns))
            self._num_waiting += num
        if self._num_waiting >= _INSERT_ROWS:
            self._flush()
        return base

    def _flush(self) -> None:
        if not self._num_waiting:
            return
        batches = [columns for _, _, columns in self._waiting]
        counts = [len(columns["size"]) for columns in batches]
        sources = np.repeat([source for _, source, _ in self._waiting], counts)
        starts = to_offsets(np.concatenate([columns["size"] for columns in batches]))[:-1]
        first_starts = starts[to_offsets(np.array(counts))[:-1]]
        columns = {
            "rid": np.arange(self.num_rows - self._num_waiting, self.num_rows, dtype=np.uint32),
            "source": sources.astype(np.uint16),
            "rank": self._ranks[sources],
            "batch": np.repeat(np.array([number for number, _, _ in self._waiting], np.uint32), counts),
            "start": (starts - np.repeat(first_starts, counts)).astype(np.uint32),
            **{name: np.concatenate([columns[name] for columns in batches]) for name in batches[0]},
        }
        self._waiting, self._num_waiting = [], 0
        self._db.insert("rows", pa.table(columns))

    def finish_adding(self) -> None:
        """Record what still waits; no more rows come."""
        self._flush()

    def drop_exact(self) -> None:
        """Of rows with equal normalized text keep the best."""
        self._drop_all_but_best("exact", "rows", "text_hi, text_lo")

    def save_dropped(self) -> None:
        """Save which rows are dropped so far, for `near.find_edges`."""
        chunks = self._db.fetch("SELECT rid FROM dropped")
        save_dropped(self._directory, self.num_rows, (chunk.column("rid").to_numpy() for chunk in chunks))

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
        self._db.insert_components("clusters", self._clusters)
        self._db.insert_components("own_clusters", self._own_clusters)

    def drop_near(self) -> None:
        """Of each cluster keep the best row."""
        clusters = "clusters" if self._recipe.deduplicate.across else "own_clusters"
        self._db.run(
            f"""
            CREATE TABLE clustered AS SELECT rid, source, rank, id_hi, id_lo, meta, cluster
            FROM (SELECT * FROM {clusters} ANTI JOIN dropped USING (rid)) JOIN rows USING (rid)
            """
        )
        self._drop_all_but_best("near", "clustered", "cluster")
        self._db.run("DROP TABLE clustered")

    def drop_contaminated(self) -> None:
        """Drop rows that repeat held-out sets."""
        self._db.run(
            "INSERT INTO dropped SELECT rid, 'contaminated' FROM rows ANTI JOIN dropped USING (rid) WHERE NOT clean"
        )

    def keep(self) -> Selection:
        """Close the dropping; returns what goes on with the rows that are left."""
        twin, join = "0", ""
        if not self._recipe.deduplicate.leaves_texts_distinct:
            self._db.run("CREATE TABLE twins (rid UINTEGER, twin UINTEGER)")
            groups = self._iter_groups("rows ANTI JOIN dropped USING (rid)", "id_hi, id_lo")
            self._db.insert_all("twins", (pa.table({"rid": rids, "twin": places}) for rids, places in groups))
            twin, join = "coalesce(twin, 0)", "LEFT JOIN twins USING (rid)"
        self._db.run(
            f"""
            CREATE TABLE kept AS SELECT rows.*, {twin} AS twin
            FROM (SELECT * FROM rows ANTI JOIN dropped USING (rid)) AS rows {join}
            """
        )
        return Selection(
            self._db, self._recipe, self._directory, num_rows=self.num_rows, has_clusters=self._clusters is not None
        )

    def dropped(self) -> dict[tuple[int, str], int]:
        """Rows dropped, by source and step; before `Selection.repeat`."""
        found = self._db.rows("SELECT source, step, count(*) FROM rows JOIN dropped USING (rid) GROUP BY ALL")
        return {(source, step): num for source, step, num in found}

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _drop_all_but_best(self, step: str, rows: str, keys: str) -> None:
        scope = keys if self._recipe.deduplicate.across else f"{keys}, source"
        worse = (rids[places > 0] for rids, places in self._iter_groups(rows, scope))
        self._db.insert_all("dropped", (pa.table({"rid": rids, "step": np.full(len(rids), step)}) for rids in worse))

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
            columns = [chunk.column(name).to_numpy() for name in names]
            begins = np.ones(len(chunk), np.bool_)
            begins[1:] = np.any([column[1:] != column[:-1] for column in columns], axis=0)
            goes_on = tuple(int(column[0]) for column in columns) == last
            starts = np.flatnonzero(begins)
            places = np.arange(len(chunk)) - np.repeat(starts, np.diff(starts, append=len(chunk)))
            if goes_on:
                places[: starts[1] if len(starts) > 1 else len(chunk)] += last_place + 1
            last, last_place = tuple(int(column[-1]) for column in columns), int(places[-1])
            yield chunk.column("rid").to_numpy(), places
