"""What a plan is once its rows are in: the shards' manifests, and the data set's manifest.

    shards/<num shards>/00003.json  a shard's manifest, put last
    kept/<part>-<hash>.jsonl        a part without its superseded rows and near-duplicates, where it had any
    manifest.json                   the data set: parts in order of key, each row once

The data set's manifest depends on the parts and the plan's record alone: whoever puts it, puts the same bytes.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from nanosft.conversation import parse_conversation, parse_line
from nanosft.data import put_manifest
from nanosft.dedup import NearDuplicateIndex, normalize_text
from nanosft.generate.records.parts import PlanState, read_part, read_state
from nanosft.generate.records.plans import PlanRecord, check_same_plan, read_plans
from nanosft.knowledge import StatedFacts
from nanosft.manifest import Manifest, ManifestObject, sort_objects
from nanosft.store import Store, is_remote

KEPT: Final = "kept/"
_MAX_FACT_ROWS: Final = 20_000
SHARDS: Final = "shards/"


def shard_manifest(
    record: PlanRecord,
    state: PlanState,
    *,
    name: str,
    num_shards: int,
    shard_index: int,
    complete: bool,
) -> Manifest:
    """The manifest of one shard's rows."""
    accepted, given_up = state.count(range(shard_index, record.num, num_shards))
    planned = len(range(shard_index, record.num, num_shards))
    return Manifest(
        kind="generated-shard",
        name=f"{name}/{shard_index}",
        objects=sort_objects(state.objects.values()),
        counts={
            "rows": {"planned": planned, "accepted": accepted, "given_up": given_up},
            **state.tally.counts(),
            **record.told,
        },
        cost_usd=state.tally.cost_usd,
        parents=record.parents,
        settings={**record.manifest_settings, "num_shards": num_shards, "shard_index": shard_index},
        complete=complete,
    )


def finalize_plan(
    store: Store, record: PlanRecord, *, name: str, threshold: float | None, stated: StatedFacts | None = None
) -> Manifest | None:
    """Put the data set's manifest when every row is in or given up; None while some are not.

    Args:
        store: The data set's prefix.
        record: What `register_plan` or `find_plan` returned.
        name: The data set's name.
        threshold: Similarity from which near-duplicates are dropped; None keeps them.
        stated: Finds the facts that answers state, to count them; None: they are not counted.

    Raises:
        ConfigError: A run with a larger plan has begun meanwhile: the data set is that one's.
    """
    rows = range(record.num)
    state = read_state(store, rows, record.num)
    accepted, given_up = state.count(rows)
    if accepted + given_up < record.num:
        return None
    kept = _Kept(record.num, threshold, stated)
    objects = [item for key in sorted(state.objects) if (item := kept.keep_part(store, key)) is not None]
    counts = {
        "planned": record.num,
        "accepted": accepted - kept.num_duplicates,
        "given_up": given_up,
        "near_duplicates_dropped": kept.num_duplicates,
        "superseded": kept.num_superseded,
    }
    facts = {} if stated is None else {"facts": dict(kept.facts)}
    manifest = Manifest(
        kind="generated",
        name=name,
        objects=sort_objects(objects),
        counts={"rows": counts, **state.tally.counts(), **record.told, **facts},
        cost_usd=state.tally.cost_usd,
        parents=record.parents,
        settings=record.manifest_settings,
    )
    check_same_plan(read_plans(store), record, store)
    put_manifest(store, manifest)
    if not is_remote(store.uri):  # where nobody tells whether another shard's writer is at work, it stays
        store.discard_unfinished()
    plans = read_plans(store)
    if (largest := plans[max(plans)]).num > record.num:  # begun since, and perhaps finished before ours was put
        finalize_plan(store, largest, name=name, threshold=threshold, stated=stated)
    check_same_plan(plans, record, store)
    return manifest


def lacks_shards(store: Store, num_shards: int) -> bool:
    """Whether shards have not ended yet whose rows nobody else can have made: no part need be read to know it."""
    found = store.list_directory(SHARDS.rstrip("/"))
    if found.names != (str(num_shards),):
        return False
    return len(store.list_directory(f"{SHARDS}{num_shards}").objects) < num_shards


class _Kept:
    """Which rows of the parts, taken in order of key, are kept: of each row the first, and no near-duplicate."""

    def __init__(self, num: int, threshold: float | None, stated: StatedFacts | None) -> None:
        self._stated = stated
        self.facts: Counter[str] = Counter() if stated is None else Counter(stated.count(()))
        self._num_looked_through = 0
        self.num_duplicates = 0
        self.num_superseded = 0
        self._seen = bytearray(num)
        self._index = None if threshold is None else NearDuplicateIndex(threshold)

    def keep_part(self, store: Store, key: str) -> ManifestObject | None:
        """The object that holds the part's kept rows: the part itself, or a copy without the others."""
        part = read_part(store, key)
        first = [self._is_first(record) for _, record in part.records]
        texts = [
            normalize_text(parse_conversation(record, where=where, format="canonical"))
            for (where, record), is_first in zip(part.records, first, strict=True)
            if is_first
        ]
        duplicates = iter(self._index.find_or_add_all(texts) if self._index is not None else [None] * len(texts))
        lines = [
            line for line, is_first in zip(part.lines, first, strict=True) if is_first and next(duplicates) is None
        ]
        self._count_facts(lines)
        self.num_duplicates += len(texts) - len(lines)
        self.num_superseded += len(part.lines) - len(texts)
        if len(lines) == len(part.lines):
            return part.object
        if not lines:
            return None
        data = b"".join(lines)
        sha256 = hashlib.sha256(data).hexdigest()
        stem = key.rpartition("/")[2].removesuffix(".jsonl")
        copy = ManifestObject(
            key=f"{KEPT}{stem}-{sha256[:16]}.jsonl", size_bytes=len(data), sha256=sha256, num_rows=len(lines)
        )
        store.write(copy.key, data)
        return copy

    def _count_facts(self, lines: Sequence[bytes]) -> None:
        """Count the answers that state each fact, of the first 20,000 rows: a share is known by then."""
        if self._stated is None:
            return
        for line in lines[: _MAX_FACT_ROWS - self._num_looked_through]:
            self._num_looked_through += 1
            answers = [item.text for item in parse_line(line, where="a kept row").messages if item.role == "assistant"]
            self.facts.update(self._stated.count(answers))

    def _is_first(self, record: dict[str, Any]) -> bool:
        row = record["meta"]["row"]
        is_first = not self._seen[row]
        self._seen[row] = 1
        return is_first
