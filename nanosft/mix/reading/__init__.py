"""Sources into rows.

`reader` reads every source once; `rows` parses each line (`parse`), filters and measures it in worker processes, and
finds what repeats held-out text (`contamination`).
"""

from nanosft.mix.reading.reader import LineCounts, SourceReader
from nanosft.mix.reading.rows import RowBatch, start_reader

__all__ = ["LineCounts", "RowBatch", "SourceReader", "start_reader"]
