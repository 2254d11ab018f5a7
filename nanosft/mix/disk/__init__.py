"""The local disk, and what is put from it.

`workspace` is the run's directory; `spill` keeps rows, signatures and keys on their way; `output` puts the objects.
"""

from nanosft.mix.disk.output import PART_NAMES, SegmentWriter, Target, plan_direct, write_direct, write_segments
from nanosft.mix.disk.spill import (
    NUM_PARTITIONS,
    SIG_BYTES,
    Places,
    Spill,
    measure_partitions,
    open_spilled,
    read_at,
    read_partitions,
    save_places,
    spill_path,
)
from nanosft.mix.disk.workspace import find_cacheable_bytes, open_workspace

__all__ = [
    "NUM_PARTITIONS",
    "PART_NAMES",
    "SIG_BYTES",
    "Places",
    "SegmentWriter",
    "Spill",
    "Target",
    "find_cacheable_bytes",
    "measure_partitions",
    "open_spilled",
    "open_workspace",
    "plan_direct",
    "read_at",
    "read_partitions",
    "save_places",
    "spill_path",
    "write_direct",
    "write_segments",
]
