"""Sizes on which time and memory depend, and never a byte of what comes out. Pure."""

from dataclasses import dataclass
from typing import Final, Self

_MIB: Final = 1 << 20
_BASE_BYTES: Final = 192 * _MIB
"""What the first process holds apart from DuckDB's buffers: Python, NumPy, Arrow, and the batches in flight."""
_DATABASE_BYTES_PER_THREAD: Final = 64 * _MIB
"""What DuckDB works well with: three times as much made five million rows no faster, three quarters a fifth slower."""
_DATABASE_BYTES_LEAST: Final = 48 * _MIB
"""What DuckDB needs: with 40 it could not join five million rows."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """How a process's memory is shared out, and how much is done at a time.

    Attributes:
        database_bytes: What DuckDB may hold.
        database_threads: How many threads DuckDB has.
        segment_bytes: The size of one stretch of the output, and of what waits to be dealt out.
        cacheable_bytes: The size up to which a mixture is written straight from the spill files; None is what the
            system can keep in its page cache.
        insert_rows: Records that DuckDB gets at a time.
        fetch_rows: Records that DuckDB gives at a time.
        spilled_keys: Keys that a process sorts at a time before they are spilled.
        slice_bytes: Bytes of a partition of the keys that are sorted at a time; what is needed beside them is some
            five times as much. Rows of one key are never cut.
        chunk_keys: Sorted keys that are paired at a time.
        chunk_pairs: Pairs that are checked at a time.
    """

    database_bytes: int = _DATABASE_BYTES_PER_THREAD
    database_threads: int = 1
    segment_bytes: int = 16 * _MIB
    cacheable_bytes: int | None = None
    insert_rows: int = 1 << 16
    fetch_rows: int = 1 << 14
    spilled_keys: int = 1 << 18
    slice_bytes: int = 8 * _MIB
    chunk_keys: int = 1 << 16
    chunk_pairs: int = 1 << 13

    @classmethod
    def within(cls, limit_bytes: int, num_workers: int) -> Self:
        """Share out a process's memory limit of at least 256 MiB; what it allows beyond what helps is left alone."""
        left = (limit_bytes - _BASE_BYTES) // 2
        num_threads = max(1, min(num_workers, left // _DATABASE_BYTES_PER_THREAD))
        return cls(
            database_bytes=max(_DATABASE_BYTES_LEAST, min(left, num_threads * _DATABASE_BYTES_PER_THREAD)),
            database_threads=num_threads,
            segment_bytes=min(limit_bytes // 16, _DATABASE_BYTES_PER_THREAD),
        )
