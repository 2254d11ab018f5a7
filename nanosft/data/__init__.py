"""What a URI of data means, for every command, and the protocol of an output prefix.

`objects` finds what a URI means; `lines` reads an object's bytes as lines, whatever their form; `conversations` reads
and writes conversations, and `sources` reads the inputs of a mixture in batches; `hashing` and `origins` are for
lineage: what a set is made from, and whether that is still the same. `prefix`
says whether a stage's output is finished, and commits it; `failure` says that it never will be. `attempts`
names processes in keys.
"""

from nanosft.data.attempts import day_of_process, name_process
from nanosft.data.conversations import ShardWriter, parse_trainable, read_conversations, read_object
from nanosft.data.failure import FAILURE_KEY, Failure, JobProcess, read_failure
from nanosft.data.hashing import hash_object, pin_objects, sha256_of
from nanosft.data.lines import iter_lines, read_blocks
from nanosft.data.objects import DATA_SUFFIXES, DataObject, list_data_objects
from nanosft.data.origins import Origin, check_same_origins, check_what_is_there, find_origins_of_data
from nanosft.data.prefix import OutputPrefix, is_same, put_manifest, read_manifest
from nanosft.data.sources import Batch, Inputs, find_inputs, read_batches

__all__ = [
    "DATA_SUFFIXES",
    "FAILURE_KEY",
    "Batch",
    "DataObject",
    "Failure",
    "Inputs",
    "JobProcess",
    "Origin",
    "OutputPrefix",
    "ShardWriter",
    "check_same_origins",
    "check_what_is_there",
    "day_of_process",
    "find_inputs",
    "find_origins_of_data",
    "hash_object",
    "is_same",
    "iter_lines",
    "list_data_objects",
    "name_process",
    "parse_trainable",
    "pin_objects",
    "put_manifest",
    "read_batches",
    "read_blocks",
    "read_conversations",
    "read_failure",
    "read_manifest",
    "read_object",
    "sha256_of",
]
