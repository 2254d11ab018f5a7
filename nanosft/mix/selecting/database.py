# ruff: noqa: S608 - the queries are put together from the names of our own tables and columns
"""DuckDB within its memory limit: columns go in and come out as NumPy's, and its errors are ours."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from nanosft.errors import ConfigError, StoreError
from nanosft.mix.columns import TYPES, Columns, to_sql
from nanosft.mix.tuning import Tuning


class Database:
    """One database of one run. Whoever makes a table drops it.

    Args:
        directory: Where it spills, and where its file is.
        tuning: Its memory and threads.
        in_memory: Whether it is small enough to need no file; it can still spill.
    """

    def __init__(self, directory: Path, tuning: Tuning, *, in_memory: bool) -> None:
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": f"{tuning.database_bytes}B",
            "threads": tuning.database_threads,
            "temp_directory": str(directory / "spilled"),
            "preserve_insertion_order": False,
        }
        self._directory = directory
        self._fetch_rows = tuning.fetch_rows
        self._db = duckdb.connect(":memory:" if in_memory else directory / "ledger.duckdb", config=config)

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def create(self, table: str, columns: Sequence[str]) -> None:
        """Make an empty table of these columns (`columns.TYPES`)."""
        self.run(f"CREATE TABLE {table} ({to_sql(columns)})")

    def create_from(self, table: str, query: str) -> None:
        """Make a table of a query's rows."""
        self.run(f"CREATE TABLE {table} AS {query}")

    def drop(self, *tables: str) -> None:
        """Drop tables."""
        self.run("; ".join(f"DROP TABLE {table}" for table in tables))

    def insert(self, table: str, new: Columns) -> None:
        """Append rows to a table."""
        self._insert(table, _to_arrow(new))

    def insert_all(self, table: str, chunks: Iterable[Columns]) -> None:
        """Append chunks that come from a query still open.

        They wait in a file: a sort that is being read keeps its memory, and there may be none left to insert with.
        """
        path = self._directory / "waiting.arrow"
        with ExitStack() as stack:
            writer = None
            for chunk in map(_to_arrow, chunks):
                if writer is None:
                    writer = stack.enter_context(pa.ipc.new_stream(path, chunk.schema))
                writer.write_table(chunk)
        if writer is None:
            return
        # Not by its path: it would be mapped into memory.
        with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as reader:
            for batch in reader:
                self._insert(table, pa.Table.from_batches([batch]))
        path.unlink()

    def run(self, query: str) -> None:
        """Execute statements that give nothing back."""
        with _translated():
            self._db.execute(query)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """All rows of a small result."""
        with _translated():
            return self._db.execute(query).fetchall()

    def fetch(self, query: str) -> Iterator[Columns]:
        """A result of any size, in chunks, by a cursor of its own."""
        with _translated(), self._db.cursor() as cursor:
            for batch in cursor.sql(query).to_arrow_reader(self._fetch_rows):
                yield {name: batch.column(name).to_numpy(zero_copy_only=False) for name in batch.schema.names}

    def _insert(self, table: str, new: pa.Table) -> None:
        if not len(new):
            return
        columns = ", ".join(new.column_names)
        self._db.register("new_rows", new)
        self.run(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM new_rows")
        self._db.unregister("new_rows")


def _to_arrow(columns: Columns) -> pa.Table:
    return pa.table({name: np.asarray(column, TYPES[name]) for name, column in columns.items()})


@contextmanager
def _translated() -> Iterator[None]:
    """Let DuckDB's errors be ours: while a result is read, they come as Arrow's."""
    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError) as exc:
        reason = str(exc).partition("\n")[0]
        if "Out of Memory" in reason:
            raise ConfigError(f"--memory-limit is too small for this data: {reason}") from exc
        if isinstance(exc, (duckdb.IOException, OSError)):
            raise StoreError(f"the work directory failed: {reason}: free disk space, or set --work-dir") from exc
        raise
