# ruff: noqa: S608 - the queries are put together from the names of our own columns and from numbers
"""One narrow record a row, in DuckDB: which rows stay, on which side, how often, and where in the order.

DuckDB sorts, groups and joins within its memory limit and spills to the work directory beyond it. Nothing here sees a
row's text. Order comes from MD5 over names and numbers, so it is the same for every engine, version and machine:

    draw of a row    MD5("draw/<seed>/<source>/<id_hi>/<id_lo>")            who is taken first
    side of a group  MD5("side/<seed>/<id_hi>/<id_lo>") of its first row    who goes to validation first
    place of a copy  MD5("place/<seed>/<id_hi>/<id_lo>/<twin>/<copy>")      the order of the output

each its first 8 bytes as a little-endian number; `id_hi` and `id_lo` are the first two big-endian 64-bit words of the
id, in decimal. `twin` counts rows of equal id from 0, where exact duplicates are kept. Ties are broken by the rest of
the record, and rows that are equal in all of it are equal lines.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nanosft.errors import ConfigError
from nanosft.mix.apportion import fill_gap
from nanosft.mix.database import Database
from nanosft.mix.near import PAIR, Components
from nanosft.mix.recipe import Recipe
from nanosft.mix.rows import RowBatch

TRAIN, VAL = 0, 1
_MAX_ROWS: Final = 1 << 32
_INSERT_ROWS: Final = 1 << 16
_FILL_ROWS: Final = 4096
_BEST: Final = "rank, id_hi, id_lo, meta, rid"
_SCHEMA: Final = """
CREATE TABLE rows (
    rid UINTEGER, source USMALLINT, rank USMALLINT, batch UINTEGER, start UBIGINT, size UINTEGER,
    id_hi UBIGINT, id_lo UBIGINT, text_hi UBIGINT, text_lo UBIGINT, meta UBIGINT, cell UBIGINT,
    tokens UINTEGER, supervised UINTEGER, clean BOOLEAN);
CREATE TABLE dropped (rid UINTEGER, step VARCHAR);
CREATE TABLE candidates (row UINTEGER, first UINTEGER, proven BOOLEAN);
CREATE TABLE edges (row UINTEGER, first UINTEGER);
CREATE TABLE clusters (rid UINTEGER, cluster UINTEGER);
CREATE TABLE groups (rid UINTEGER, grp UINTEGER);
CREATE TABLE val (rid UINTEGER);
"""


@dataclass(frozen=True, slots=True)
class Supply:
    """What one epoch of a source's train rows is.

    Attributes:
        num_rows: Rows.
        amount: In the unit of the mixture.
    """

    num_rows: int
    amount: int


@dataclass(frozen=True, slots=True)
class Share:
    """What was taken of a source for one part of the output.

    Attributes:
        num_rows: Lines.
        amount: In the unit of the mixture.
        num_tokens: As rendered; 0 without a tokenizer.
        num_supervised: Tokens that are trained on; 0 without a tokenizer.
        size_bytes: Of the lines.
    """

    num_rows: int = 0
    amount: int = 0
    num_tokens: int = 0
    num_supervised: int = 0
    size_bytes: int = 0


class Ledger:
    """The records of all rows, and the decisions about them, made in the order of the methods below.

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
        self._waiting: list[pa.Table] = []
        self._num_waiting = 0
        self._candidates: list[npt.NDArray[Any]] = []
        self._weight = {"rows": "1", "tokens": "tokens", "supervised_tokens": "supervised"}[recipe.by]
        self.num_rows = 0
        self._db = Database(directory, in_memory=in_memory, memory_bytes=memory_bytes, num_threads=num_threads)
        self._db.run(_SCHEMA)

    def add(self, number: int, batch: RowBatch) -> int:
        """Record the rows of batch `number`; returns the number of its first row."""
        base, num = self.num_rows, len(batch)
        self.num_rows += num
        if self.num_rows >= _MAX_ROWS:
            raise ConfigError(f"more than {_MAX_ROWS} rows: mix parts of the sources first, then their mixtures")
        sizes = batch.columns["size"].astype(np.uint64)
        columns = {
            "rid": np.arange(base, base + num, dtype=np.uint32),
            "source": np.full(num, batch.source, np.uint16),
            "rank": np.full(num, self._ranks[batch.source], np.uint16),
            "batch": np.full(num, number, np.uint32),
            "start": np.cumsum(sizes) - sizes,
            **batch.columns,
        }
        self._waiting.append(pa.table(columns))
        self._num_waiting += num
        if self._num_waiting >= _INSERT_ROWS:
            self._flush()
        return base

    def _flush(self) -> None:
        if self._waiting:
            self._db.insert("rows", pa.concat_tables(self._waiting))
        self._waiting, self._num_waiting = [], 0

    def finish_adding(self) -> None:
        """Record what still waits; no more rows come."""
        self._flush()

    def drop_exact(self) -> None:
        """Of rows with equal normalized text keep the best."""
        self._drop_all_but_best("exact", "rows", "text_hi, text_lo")

    def add_candidates(self, pairs: npt.NDArray[Any]) -> None:
        """Record pairs of rows (`near.PAIR`) that may be near duplicates."""
        self._candidates.append(pairs)
        if sum(map(len, self._candidates)) >= _INSERT_ROWS:
            self._flush_candidates()

    def _flush_candidates(self) -> None:
        pairs = np.concatenate([np.empty(0, PAIR), *self._candidates])
        self._candidates = []
        if len(pairs):
            self._db.insert("candidates", pa.table({name: pairs[name] for name in ("row", "first", "proven")}))

    def iter_candidates(self) -> Iterator[npt.NDArray[Any]]:
        """The distinct candidates, in chunks."""
        self._flush_candidates()
        query = 'SELECT "row", first, bool_or(proven) AS proven FROM candidates GROUP BY ALL ORDER BY first, "row"'
        for table in self._db.fetch(query):
            pairs = np.empty(len(table), PAIR)
            for name in ("row", "first", "proven"):
                pairs[name] = table.column(name).to_numpy(zero_copy_only=False)
            yield pairs

    def cluster(self, edges: Iterable[npt.NDArray[Any]]) -> None:
        """Make connected components of the pairs that hold."""
        for pairs in edges:
            if len(pairs):
                self._db.insert("edges", pa.table({name: pairs[name] for name in ("row", "first")}))
        self._db.run("DROP TABLE candidates")
        self._unite('SELECT "row", first FROM edges', "clusters")

    def drop_near(self) -> None:
        """Of each cluster keep the best row."""
        self._db.run(
            "CREATE TABLE clustered AS SELECT * FROM rows JOIN clusters USING (rid) ANTI JOIN dropped USING (rid)"
        )
        self._drop_all_but_best("near", "clustered", "cluster")
        self._db.run("DROP TABLE clustered")

    def drop_contaminated(self) -> None:
        """Drop rows that repeat held-out sets."""
        self._db.run(
            "INSERT INTO dropped SELECT rid, 'contaminated' FROM rows ANTI JOIN dropped USING (rid) WHERE NOT clean"
        )

    def keep(self) -> dict[int, int]:
        """Close the dropping; returns the number of rows each source has left."""
        twin, join = "0", ""
        if not (self._recipe.deduplicate.exact and self._recipe.deduplicate.across):
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
        return dict(self._db.rows("SELECT source, count(*) FROM kept GROUP BY source"))

    def split(self, targets: Mapping[int, int]) -> None:
        """Choose the validation rows.

        Rows of one plan cell, one near-duplicate cluster or one normalized text are a group, and a group goes to one
        side. It counts for the source of its best row, whose groups are taken in a seeded order while they bring the
        number of rows nearer to the target; a group larger than the target is never taken.

        Args:
            targets: Validation rows wanted of each source.
        """
        if not any(targets.values()):
            return
        links = {
            "cell": "kept",
            "cluster": "(SELECT * FROM kept JOIN clusters USING (rid))",
            "text_hi, text_lo": "kept",
        }
        same = [
            f'SELECT rid AS "row", first FROM {rows} JOIN (SELECT {keys}, min(rid) AS first FROM {rows} '
            f"GROUP BY ALL HAVING count(*) > 1) USING ({keys})" + (" WHERE cell <> 0" if keys == "cell" else "")
            for keys, rows in links.items()
        ]
        self._unite(" UNION ALL ".join(same), "groups")
        self._db.run(
            f"""
            CREATE TABLE sized AS SELECT *, {self._draw("side")} AS draw FROM (
                SELECT rid AS grp, source, id_hi, id_lo, 1 AS size FROM kept ANTI JOIN groups USING (rid)
                UNION ALL
                SELECT grp, best.source, best.id_hi, best.id_lo, size FROM (
                    SELECT grp, count(*) AS size, min(struct_pack(rank, id_hi, id_lo, source)) AS best
                    FROM kept JOIN groups USING (rid) GROUP BY grp));
            CREATE TABLE sides (rid UINTEGER)
            """
        )
        for source, target in targets.items():
            query = f"SELECT grp AS rid, size FROM sized WHERE source = {source} ORDER BY draw, id_hi, id_lo, grp"
            self._choose(query, target, "sides")
        self._db.run(
            """
            INSERT INTO val SELECT rid FROM kept ANTI JOIN groups USING (rid) SEMI JOIN sides USING (rid)
            UNION ALL SELECT rid FROM groups WHERE grp IN (SELECT rid FROM sides);
            DROP TABLE sides; DROP TABLE sized
            """
        )

    def measure_overlap(self) -> dict[str, int]:
        """Validation rows that share a text, a near-duplicate cluster or a plan cell with a train row, counted anew."""
        self._db.run(
            "CREATE TABLE train_rows AS SELECT rid, text_hi, text_lo, cell FROM kept ANTI JOIN val USING (rid)"
        )
        self._db.run("CREATE TABLE val_rows AS SELECT rid, text_hi, text_lo, cell FROM kept SEMI JOIN val USING (rid)")
        found = {
            "texts": "val_rows SEMI JOIN train_rows USING (text_hi, text_lo)",
            "cells": "(SELECT * FROM val_rows WHERE cell <> 0) SEMI JOIN train_rows USING (cell)",
            "clusters": "(val_rows JOIN clusters USING (rid)) SEMI JOIN "
            "(SELECT cluster FROM train_rows JOIN clusters USING (rid)) USING (cluster)",
        }
        counts = {name: self._db.rows(f"SELECT count(*) FROM {rows}")[0][0] for name, rows in found.items()}
        self._db.run("DROP TABLE train_rows; DROP TABLE val_rows")
        return counts

    def limit(self, max_rows: Mapping[int, int]) -> dict[int, Supply]:
        """Choose the pool of train rows, at most `max_rows` of a source; returns what each source can give."""
        self._db.run("CREATE TABLE within (rid UINTEGER)")
        order = f"{self._draw('draw')}, {_BEST}"
        for source, limit in max_rows.items():
            rows = f"SELECT rid, 1 AS size FROM kept ANTI JOIN val USING (rid) WHERE source = {source} ORDER BY {order}"
            self._choose(rows, limit, "within")
        limited = ", ".join(map(str, max_rows)) or "NULL"
        self._db.run(
            f"""
            CREATE TABLE pool AS SELECT * EXCLUDE (text_hi, text_lo, cell, clean), {self._weight}::BIGINT AS weight
            FROM kept ANTI JOIN val USING (rid)
            WHERE (source IN ({limited})) IS NOT TRUE OR rid IN (SELECT rid FROM within)
            """
        )
        found = self._db.rows("SELECT source, count(*), sum(weight)::BIGINT FROM pool GROUP BY source")
        return {source: Supply(num, amount) for source, num, amount in found}

    def repeat(self, amounts: Sequence[int], supplies: Mapping[int, Supply]) -> None:
        """Take of each source its amount: whole epochs, and more or less of some drawn rows.

        Rows are drawn until the next would be too much; rows drawn later fill what is missing (`apportion.fill_gap`).
        Of two ways to come to a part of an epoch, adding rows and leaving rows out, the one with fewer rows is gone, so
        that small rows are at hand to fill with even where nearly all are taken.
        """
        quotas = []
        for source, amount in enumerate(amounts):
            available = supplies[source].amount if source in supplies else 0
            epochs, rest = divmod(amount, available) if available else (0, 0)
            fewer = 2 * rest > available
            quotas.append((source, epochs + 1, available - rest, -1) if fewer else (source, epochs, rest, 1))
        values = ", ".join(map(str, quotas))
        self._db.run(
            f"""
            CREATE TABLE quotas AS SELECT * FROM (VALUES {values}) AS q(source, epochs, rest, step);
            CREATE TABLE chosen (rid UINTEGER)
            """
        )
        for source, _, rest, _ in quotas:
            order = f"{self._draw('draw')}, {_BEST}"
            query = f"SELECT rid, weight AS size FROM pool WHERE source = {source} ORDER BY {order}"
            self._choose(query, rest, "chosen")
        place = f"md5_number_upper(concat_ws('/', 'place', {self._recipe.seed}, id_hi, id_lo, twin, copy))"
        weight = f"{self._weight}::BIGINT AS weight"
        columns = f"source, id_hi, id_lo, meta, twin, batch, start, size, tokens, supervised, {weight}"
        self._db.run(
            f"""
            CREATE TABLE placed AS
            WITH taken AS (
                SELECT pool.*, CASE WHEN chosen.rid IS NULL THEN epochs ELSE epochs + step END AS times
                FROM pool JOIN quotas USING (source) LEFT JOIN chosen USING (rid)),
            copies AS (SELECT *, unnest(range(times::BIGINT)) AS copy FROM taken WHERE times > 0)
            SELECT {TRAIN} AS part, {place} AS place, copy, {columns} FROM copies
            UNION ALL SELECT {VAL}, {place}, copy, {columns}
            FROM (SELECT *, 0 AS copy FROM kept SEMI JOIN val USING (rid));
            DROP TABLE pool; DROP TABLE kept; DROP TABLE rows
            """
        )

    def shares(self) -> dict[tuple[int, int], Share]:
        """What was taken, by part (`TRAIN`, `VAL`) and source."""
        found = self._db.rows(
            """
            SELECT part, source, count(*), sum(weight)::BIGINT, sum(tokens)::BIGINT, sum(supervised)::BIGINT,
                sum(size)::BIGINT FROM placed GROUP BY part, source
            """
        )
        return {(part, source): Share(*rest) for part, source, *rest in found}

    def dropped(self) -> dict[tuple[int, str], int]:
        """Rows dropped, by source and step; before `repeat`."""
        found = self._db.rows("SELECT source, step, count(*) FROM rows JOIN dropped USING (rid) GROUP BY ALL")
        return {(source, step): num for source, step, num in found}

    def iter_in_order(self) -> Iterator[pa.Table]:
        """Chunks of `part`, `batch`, `start`, `size` in the order of the output, train part first."""
        order = "part, place, id_hi, id_lo, source, meta, twin, copy"
        yield from self._db.fetch(f"SELECT part, batch, start, size FROM placed ORDER BY {order}")

    def iter_by_batch(self) -> Iterator[pa.Table]:
        """Chunks of `part`, `batch`, `start`, `size` and `position` (in the part) in the order of the spill files."""
        self._db.run(
            "CREATE TABLE positioned (part UTINYINT, batch UINTEGER, start UBIGINT, size UINTEGER, position UBIGINT)"
        )
        self._db.insert_all("positioned", _add_positions(self.iter_in_order()))
        self._db.run("DROP TABLE placed")
        yield from self._db.fetch(
            "SELECT part, batch, start, size, position FROM positioned ORDER BY batch, start, position"
        )

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _draw(self, name: str) -> str:
        return f"md5_number_upper(concat_ws('/', '{name}', {self._recipe.seed}, id_hi, id_lo))"

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
            SELECT rid, {keys} FROM (SELECT * FROM {rows}) SEMI JOIN shared USING ({keys}) ORDER BY {keys}, {_BEST}
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

    def _choose(self, query: str, total: int, table: str) -> None:
        """Take rows of a query (`rid`, `size`) in its order until the next is too much, then fill what is missing."""
        if total:
            self._db.insert_all(table, (pa.table({"rid": rids}) for rids in self._iter_chosen(query, total)))

    def _iter_chosen(self, query: str, gap: int) -> Iterator[npt.NDArray[Any]]:
        later: list[tuple[int, int]] = []
        full = False
        for chunk in self._db.fetch(query):
            rids, sizes = chunk.column("rid").to_numpy(), chunk.column("size").to_numpy()
            num = 0
            if not full:
                reached = np.cumsum(sizes)
                num = int(np.searchsorted(reached, gap, side="right"))
                full = num < len(rids)
                gap -= int(reached[num - 1]) if num else 0
                yield rids[:num]
            later += zip(rids[num:].tolist(), sizes[num:].tolist(), strict=True)
            if full and len(later) >= _FILL_ROWS:
                break
        later = later[:_FILL_ROWS]
        filled = [later[index][0] for index in fill_gap(gap, [size for _, size in later])]
        yield np.array(filled, np.uint32)

    def _unite(self, query: str, table: str) -> None:
        """Connected components of the rows that a query pairs, into a table of (row, component)."""
        components: Components | None = None
        for chunk in self._db.fetch(query):
            components = components or Components(self._directory / f"{table}.components", self.num_rows)
            components.unite(chunk.column("row").to_pylist(), chunk.column("first").to_pylist())
        if components is None:
            return
        self._db.run(f'CREATE TABLE nodes AS SELECT DISTINCT unnest(["row", first]) AS rid FROM ({query})')
        for chunk in self._db.fetch("SELECT rid FROM nodes"):
            rids = chunk.column("rid")
            found = np.fromiter(components.find(rids.to_pylist()), np.uint32, len(rids))
            self._db.insert(table, pa.table({"rid": rids, "component": found}))
        self._db.run("DROP TABLE nodes")
        components.close()


def _add_positions(chunks: Iterable[pa.Table]) -> Iterator[pa.Table]:
    counts = [0, 0]
    for chunk in chunks:
        part = chunk.column("part").to_numpy()
        positions = np.empty(len(part), np.uint64)
        for which in (TRAIN, VAL):
            num = int((part == which).sum())
            positions[part == which] = np.arange(counts[which], counts[which] + num, dtype=np.uint64)
            counts[which] += num
        yield chunk.append_column("position", pa.array(positions))
