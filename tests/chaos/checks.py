"""What must hold of a prefix at any moment, and what a run of generate has saved in it."""

import hashlib
from dataclasses import dataclass

import orjson

from nanosft.manifest import MANIFEST_KEY, parse_manifest
from nanosft.store import Store, open_store


def find_wrong_manifests(out: str) -> list[str]:
    """What is named by a manifest under a prefix and is absent, or has another hash."""
    store, problems = open_store(out), list[str]()
    for info in list(store.list()):
        if info.key.rpartition("/")[2] == MANIFEST_KEY or info.key.startswith("shards/"):
            folder = info.key.removesuffix(MANIFEST_KEY) if info.key.endswith(MANIFEST_KEY) else ""
            manifest = parse_manifest(store.read(info.key), where=info.key)
            checked = [_check(store, folder + item.key, item.sha256) for item in manifest.objects]
            problems += filter(None, checked)
    return problems


def _check(store: Store, key: str, sha256: str) -> str:
    if not store.exists(key):
        return f"{key} is named and absent"
    return "" if hashlib.sha256(store.read(key)).hexdigest() == sha256 else f"{key} is named with another hash"


@dataclass(frozen=True)
class Flushed:
    """What a run of generate has saved: whole lines, and what was asked for them."""

    lines: frozenset[bytes]
    requests: frozenset[tuple[int, int, int]]


def read_flushed(out: str) -> Flushed:
    """All rows and rejects under a prefix."""
    store = open_store(out)
    rows = [line for info in store.list("rows/") for line in store.read(info.key).splitlines()]
    rejects = [line for info in store.list("rejects/") for line in store.read(info.key).splitlines()]
    metas = [orjson.loads(line)["meta"] for line in rows] + [orjson.loads(line) for line in rejects]
    return Flushed(frozenset(rows), frozenset((meta["row"], meta["fresh"], meta["attempt"]) for meta in metas))
