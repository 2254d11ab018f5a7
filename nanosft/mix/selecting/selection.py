# ruff: noqa: S608 - the queries are put together from the names of our own columns and from numbers
"""The rows that stay: on which side of the split each is, how often it is taken, and where in the order.

Order comes from MD5 over names and numbers, so it is the same for every engine, version and machine:

    draw of a row    MD5("draw/<seed>/<id_hi>/<id_lo>")                     who is taken first
    side of a group  MD5("side/<seed>/<id_hi>/<id_lo>") of its first row    who goes to validation first
    place of a copy  MD5("place/<seed>/<id_hi>/<id_lo>/<twin>/<copy>")      the order of the output

each its first 8 bytes as a little-endian number; `id_hi` and `id_lo` are the first two big-endian 64-bit words of the
id, in decimal. `twin` counts rows of equal id from 0, where exact duplicates are kept. Ties are broken by the rest of
the record, and rows that are equal in all of it are equal lines.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nanosft.dedup import Components
from nanosft.mix.columns import Columns
from nanosft.mix.recipe import Recipe
from nanosft.mix.selecting.apportion import fill_gap
from nanosft.mix.selecting.database import Database
from nanosft.mix.selecting.ledger import BEST, insert_components

TRAIN: Final = 0
VAL: Final = 1
_FILL_ROWS: Final = 4096


@dataclass(frozen=True, slots=True)
class Supply:
    """What one epoch of a source's train rows is.

    Attributes:
        num_rows: Its train rows.
        amount: Their amount in the unit of the mixture.
    """

    num_rows: int
    amount: int


@dataclass(frozen=True, slots=True)
class PartCounts:
    """What was taken of a source for one part of the output.

    Attributes:
        num_rows: Lines, repetitions counted.
        amount: Their amount in the unit of the mixture.
        num_tokens: Their tokens as rendered; 0 without a tokenizer.
        num_supervised: Their tokens that are trained on; 0 without a tokenizer.
        size_bytes: Their bytes.
    """

    num_rows: int = 0
    amount: int = 0
    num_tokens: int = 0
    num_supervised: int = 0
    size_bytes: int = 0


class Selection:
    """What becomes of the rows of the table `kept`, decided in the order of the methods below.

    Args:
        db: The run's database, with the tables that `Ledger.keep` leaves.
        recipe: The recipe.
        directory: The run's, where groups are found in a file.
        num_rows: Rows are numbered below it.
        has_clusters: Whether there are any clusters.
    """

    def __init__(self, db: Database, recipe: Recipe, directory: Path, *, num_rows: int, has_clusters: bool) -> None:
        self._db = db
        self._recipe = recipe
        self._directory = directory
        self._num_rows = num_rows
        self._has_clusters = has_clusters
        self._weight = {"rows": "1", "tokens": "tokens", "supervised_tokens": "supervised"}[recipe.by]
        db.create("val", ("rid",))

    def count(self) -> dict[int, int]:
        """The number of rows of each source."""
        return dict(self._db.rows("SELECT source, count(*) FROM kept GROUP BY source"))

    def split(self, targets: Mapping[int, int]) -> None:
        """Choose the validation rows.

        Rows of one plan cell, one near-duplicate cluster or one normalized text are a group, and a group goes to one
        side. It counts for the source of its best row, whose groups are taken in a seeded order while the target is not
        exceeded.

        Args:
            targets: Validation rows wanted of each source.
        """
        if not any(targets.values()):
            return
        links = [("cell", "(SELECT * FROM kept WHERE cell <> 0)")]
        if self._has_clusters:
            links.append(("cluster", "(SELECT * FROM kept JOIN clusters USING (rid))"))
        if not self._recipe.deduplicate.leaves_texts_distinct:
            links.append(("text_hi, text_lo", "kept"))
        components: Components | None = None
        for keys, rows in links:
            query = f"SELECT rid, first FROM {rows} JOIN (SELECT {keys}, min(rid) AS first FROM {rows} "
            for chunk in self._db.fetch(f"{query} GROUP BY ALL HAVING count(*) > 1) USING ({keys})"):
                components = components or Components(self._directory / "groups", self._num_rows)
                components.unite(np.stack([chunk["rid"], chunk["first"]], axis=1))
        self._db.create("groups", ("rid", "grp"))
        insert_components(self._db, "groups", "grp", components)
        self._db.create_from(
            "sized",
            f"""
            SELECT *, {self._draw("side")} AS draw FROM (
                SELECT rid AS grp, source, id_hi, id_lo, 1 AS size FROM kept ANTI JOIN groups USING (rid)
                UNION ALL
                SELECT grp, best.source, best.id_hi, best.id_lo, size FROM (
                    SELECT grp, count(*) AS size, min(struct_pack(rank, id_hi, id_lo, source)) AS best
                    FROM kept JOIN groups USING (rid) GROUP BY grp))
            """,
        )
        self._db.create("sides", ("rid",))
        for source, target in targets.items():
            query = f"SELECT grp AS rid, size FROM sized WHERE source = {source} ORDER BY draw, id_hi, id_lo, grp"
            query += f" LIMIT {target + _FILL_ROWS}"  # no group is smaller than a row
            self._choose(query, target, "sides", may_exceed=False)
        self._db.run(
            """
            INSERT INTO val SELECT rid FROM kept ANTI JOIN groups USING (rid) SEMI JOIN sides USING (rid)
            UNION ALL SELECT rid FROM groups WHERE grp IN (SELECT rid FROM sides)
            """
        )
        self._db.drop("sides", "sized", "groups")

    def measure_overlap(self) -> dict[str, int]:
        """Validation rows that share a text, a near-duplicate cluster or a plan cell with a train row, counted anew."""
        for table, join in (("train_rows", "ANTI"), ("val_rows", "SEMI")):
            self._db.create_from(table, f"SELECT rid, text_hi, text_lo, cell FROM kept {join} JOIN val USING (rid)")
        found = {
            "texts": "val_rows SEMI JOIN train_rows USING (text_hi, text_lo)",
            "cells": "(SELECT * FROM val_rows WHERE cell <> 0) SEMI JOIN train_rows USING (cell)",
            "clusters": "(val_rows JOIN clusters USING (rid)) SEMI JOIN "
            "(SELECT cluster FROM train_rows JOIN clusters USING (rid)) USING (cluster)",
        }
        counts = {name: self._db.rows(f"SELECT count(*) FROM {rows}")[0][0] for name, rows in found.items()}
        self._db.drop("train_rows", "val_rows")
        return counts

    def limit(self, max_rows: Mapping[int, int]) -> dict[int, Supply]:
        """Choose the pool of train rows, at most `max_rows` of a source; returns what each source can give."""
        self._db.create("within", ("rid",))
        order = f"{self._draw('draw')}, {BEST}"
        for source, limit in max_rows.items():
            rows = f"SELECT rid, 1 AS size FROM kept ANTI JOIN val USING (rid) WHERE source = {source} ORDER BY {order}"
            self._choose(rows, limit, "within")
        limited = ", ".join(map(str, max_rows)) or "NULL"
        self._db.create_from(
            "pool",
            f"""
            SELECT * EXCLUDE (text_hi, text_lo, cell, clean), {self._weight}::BIGINT AS weight
            FROM kept ANTI JOIN val USING (rid)
            WHERE (source IN ({limited})) IS NOT TRUE OR rid IN (SELECT rid FROM within)
            """,
        )
        self._db.drop("within")
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
        self._db.create_from("quotas", f"SELECT * FROM (VALUES {values}) AS q(source, epochs, rest, step)")
        self._db.create("chosen", ("rid",))
        for source, _, rest, _ in quotas:
            order = f"{self._draw('draw')}, {BEST}"
            query = f"SELECT rid, weight AS size FROM pool WHERE source = {source} ORDER BY {order}"
            self._choose(query, rest, "chosen")
        place = f"md5_number_upper(concat_ws('/', 'place', {self._recipe.seed}, id_hi, id_lo, twin, copy))"
        weight = f"{self._weight}::BIGINT AS weight"
        columns = f"source, id_hi, id_lo, meta, twin, batch, start, size, tokens, supervised, {weight}"
        self._db.create_from(
            "placed",
            f"""
            WITH taken AS (
                SELECT pool.*, CASE WHEN chosen.rid IS NULL THEN epochs ELSE epochs + step END AS times
                FROM pool JOIN quotas USING (source) LEFT JOIN chosen USING (rid)),
            copies AS (SELECT *, unnest(range(times::BIGINT)) AS copy FROM taken WHERE times > 0)
            SELECT {TRAIN} AS part, {place} AS place, copy, {columns} FROM copies
            UNION ALL SELECT {VAL}, {place}, copy, {columns}
            FROM (SELECT *, 0 AS copy FROM kept SEMI JOIN val USING (rid))
            """,
        )
        self._db.drop("quotas", "chosen", "pool", "val")

    def count_parts(self) -> dict[tuple[int, int], PartCounts]:
        """What was taken, by part (`TRAIN`, `VAL`) and source."""
        found = self._db.rows(
            """
            SELECT part, source, count(*), sum(weight)::BIGINT, sum(tokens)::BIGINT, sum(supervised)::BIGINT,
                sum(size)::BIGINT FROM placed GROUP BY part, source
            """
        )
        return {(part, source): PartCounts(*rest) for part, source, *rest in found}

    def iter_in_order(self) -> Iterator[Columns]:
        """Chunks of `part`, `batch`, `start`, `size` in the order of the output, train part first."""
        order = "part, place, id_hi, id_lo, source, meta, twin, copy"
        yield from self._db.fetch(f"SELECT part, batch, start, size FROM placed ORDER BY {order}")

    def iter_by_batch(self) -> Iterator[Columns]:
        """Chunks of `part`, `batch`, `start`, `size` and `position` (in the part) in the order of the spill files."""
        self._db.create("positioned", ("part", "batch", "start", "size", "position"))
        self._db.insert_all("positioned", _add_positions(self.iter_in_order()))
        self._db.drop("placed")
        yield from self._db.fetch(
            "SELECT part, batch, start, size, position FROM positioned ORDER BY batch, start, position"
        )

    def _draw(self, name: str) -> str:
        return f"md5_number_upper(concat_ws('/', '{name}', {self._recipe.seed}, id_hi, id_lo))"

    def _choose(self, query: str, total: int, table: str, *, may_exceed: bool = True) -> None:
        """Take rows of a query (`rid`, `size`) in its order until the next is too much, then fill what is missing."""
        if total:
            chosen = self._iter_chosen(query, total, may_exceed=may_exceed)
            self._db.insert_all(table, ({"rid": rids} for rids in chosen))

    def _iter_chosen(self, query: str, gap: int, *, may_exceed: bool) -> Iterator[npt.NDArray[Any]]:
        later: list[tuple[int, int]] = []
        full = False
        for chunk in self._db.fetch(query):
            rids, sizes = chunk["rid"], chunk["size"]
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
        filled = [later[index][0] for index in fill_gap(gap, [size for _, size in later], may_exceed=may_exceed)]
        yield np.array(filled, np.uint32)


def _add_positions(chunks: Iterable[Columns]) -> Iterator[Columns]:
    counts = [0, 0]
    for chunk in chunks:
        part = chunk["part"]
        positions = np.empty(len(part), np.uint64)
        for which in (TRAIN, VAL):
            num = int((part == which).sum())
            positions[part == which] = np.arange(counts[which], counts[which] + num, dtype=np.uint64)
            counts[which] += num
        yield {**chunk, "position": positions}
