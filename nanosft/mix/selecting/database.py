# ruff: noqa: S608 - the queries are put together from the names of our own tables and columns
"""DuckDB within its memory limit, with errors that are ours."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa

from nanosft.dedup import Components
from nanosft.errors import ConfigError, StoreError

_FETCH_ROWS: Final = 1 << 14


class Database:
    """One database of one run.

    Args:
        directory: For what it spills, and for its file.
        in_memory: Whether it is small enough to need no file; it can still spill.
        memory_bytes: What DuckDB may hold; it is not the whole process.
        num_threads: For DuckDB.
    """

    def __init__(self, directory: Path, *, in_memory: bool, memory_bytes: int, num_threads: int) -> None:
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": f"{memory_bytes}B",
            "threads": num_threads,
            "temp_directory": str(directory / "spilled"),
            "preserve_insertion_order": False,
        }
        self._directory = directory
        self._db = duckdb.connect(":memory:" if in_memory else directory / "ledger.duckdb", config=config)

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def insert(self, table: str, new: pa.Table, *, by_name: bool = True) -> None:
        """Append rows to a table, columns by name or by place."""
        if not len(new):
            return
        columns = ", ".join(f'"{name}"' for name in new.column_names)
        target = f"({columns})" if by_name else ""
        self._db.register("new_rows", new)
        self.run(f"INSERT INTO {table} {target} SELECT {columns} FROM new_rows")
        self._db.unregister("new_rows")

    def insert_all(self, table: str, chunks: Iterable[pa.Table]) -> None:
        """Append chunks that come from a query still open.

        They wait in a file: a sort that is being read keeps its memory, and there may be none left to insert with.
        """
        path = self._directory / "waiting.arrow"
        with ExitStack() as stack:
            writer = None
            for chunk in chunks:
                if writer is None:
                    writer = stack.enter_context(pa.ipc.new_stream(path, chunk.schema))
                writer.write_table(chunk)
        if writer is None:
            return
        # Not by its path: it would be mapped into memory.
        with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as reader:
            for batch in reader:
                self.insert(table, pa.Table.from_batches([batch]))
        path.unlink()

    def insert_components(self, table: str, components: Components | None) -> None:
        """Fill a table of two columns with the rows whose components have others, and the components' names."""
        if components is None:
            return
        for rows, names in components.iter_members():
            self.insert(table, pa.table({"row": rows, "name": names}), by_name=False)
        self.run(f"INSERT INTO {table} SELECT DISTINCT name, name FROM {table} AS members(rid, name)")
        components.close()

    def run(self, query: str) -> None:
        """Execute statements that give nothing back."""
        with _translated():
            self._db.execute(query)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """All rows of a small result."""
        with _translated():
            return self._db.execute(query).fetchall()

    def fetch(self, query: str) -> Iterator[pa.Table]:
        """A result of any size, in chunks, by a cursor of its own."""
        with _translated(), self._db.cursor() as cursor:
            for batch in cursor.sql(query).to_arrow_reader(_FETCH_ROWS):
                yield pa.Table.from_batches([batch])


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
