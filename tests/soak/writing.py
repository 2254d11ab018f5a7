"""generate on the road: rows asked for one by one by several shards, and rows in batches, with all that an API does."""

from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from nanosft.data import read_conversations
from nanosft.store import open_store
from tests.soak.table import Stage, compare
from tests.soak.world import World, finish, manifest_of, nanosft
from tests.stub_batches import BATCH_PRICE_PICO, PICO, BatchStub, Faults, serve_batches
from tests.stub_provider import KNOWLEDGE, PRICE_USD, RunningStub, run_stub

_NUM_SHARDS: Final = 3
_CONCURRENCY: Final = 32
_FLUSH_ROWS: Final = 20
_MAX_ATTEMPTS: Final = 8
"""So many that no row comes to another prompt: its text would then depend on how often it failed."""
_SEED: Final = 1
_API_FAULTS: Final[dict[str, Any]] = {
    "http_429": 0.08,
    "http_500": 0.05,
    "error_in_200": 0.02,
    "cut": 0.03,
    "broken_json": 0.02,
    "dropped": 0.01,
    "slow": 0.005,
}
_BATCH_FAULTS: Final = Faults(
    lost=0.04, http_429=0.05, http_500=0.05, failed=0.05, expired=0.05, missing=0.01, doubled=0.05, partial=0.02,
    broken=0.05,
)  # fmt: skip
_REACH: Final = 0.1
"""Of the undisturbed time, after a part was saved or a batch noted, in which one of the shards is hit."""


@dataclass
class _Saved:
    """What had been saved when processes were killed; none of it may be asked for again.

    Attributes:
        out: URI of the rows.
        stub: Keeps count of what it is asked.
        notes: Rows saved, and requests made, at each kill.
    """

    out: str
    stub: RunningStub
    notes: list[tuple[frozenset[int], int]] = field(default_factory=list)

    def note(self) -> None:
        """Look now."""
        saved = saved_rows(self.out)  # before the count: what is saved between the two may just have been asked for
        self.notes.append((saved, len(self.stub.read_bill()["asked"])))

    def count_twice(self, asked: list[int]) -> int:
        """Rows that were asked for although they had been saved."""
        return len({row for saved, num_asked in self.notes for row in saved.intersection(asked[num_asked:])})

    def count_lost(self, rows: set[int]) -> int:
        """Rows that had been saved, and are not in the set."""
        return len(frozenset[int]().union(*(saved for saved, _ in self.notes)) - rows)


def walk_one_by_one(world: World) -> Stage:
    """Three shards, two of them at a time, against an API that refuses, breaks off, is late and writes nonsense."""
    name, num = "generate", world.sizes.rows
    with (
        run_stub(num=num, seed=_SEED) as sound,
        run_stub(num=num, seed=_SEED, latency_s=0.05, num_attempts=_MAX_ATTEMPTS, **_API_FAULTS) as stub,
    ):
        commands = [
            _one_by_one(world.disturbed(name), stub, num, "--num-shards", _NUM_SHARDS, "--shard-index", shard)
            for shard in range(_NUM_SHARDS)
        ]
        saved = _Saved(world.disturbed(name), stub)
        account = world.walk(
            name, [_one_by_one(world.undisturbed(name), sound, num)], commands,
            num_blows=world.sizes.blows, reach=_REACH, sign=("PUT", "/rows/"), on_kill=saved.note,
        )  # fmt: skip
        bill = stub.read_bill()
        if account.problems:
            return finish(Stage(name, "rows", num, 0, lost=num), account)
        account.problems += world.check_again(name, commands)
        if stub.read_bill()["asked"] != bill["asked"]:
            account.problems.append("a finished plan was asked for again")
    cost = manifest_of(world.disturbed(name)).counts["cost"]
    stated = round((cost["total_usd"] + cost["unknown_usd"]) / PRICE_USD)
    if round(cost["total_usd"] / PRICE_USD) > bill["num_billed"]:
        account.problems.append(f"the manifest states ${cost['total_usd']}, and ${bill['billed_usd']} were billed")
    rows = keys_of(world.disturbed(name))
    stage = Stage(
        name,
        "rows",
        num,
        0,
        lost=saved.count_lost({row for row, _ in rows}),
        paid=bill["num_billed"],
        bill_usd=bill["billed_usd"],
        twice=saved.count_twice(bill["asked"]),
        unstated=max(0, bill["num_billed"] - stated),  # of answers never received, the manifest states the most
        may_be_unstated=account.killed * (_CONCURRENCY + 2 * _FLUSH_ROWS),
    )
    return finish(compare(stage, keys_of(world.undisturbed(name)), rows), account)


def walk_batches(world: World) -> Stage:
    """Two shards whose batches fail, expire, come in part, twice and late; their bill is equal to the picodollar."""
    name, num = "batches", world.sizes.rows // 2
    sound, stub = BatchStub(num, num_polls=1), BatchStub(num, faults=_BATCH_FAULTS, num_polls=2)
    with serve_batches(sound) as sound_url, serve_batches(stub) as url:
        commands = [
            _in_batches(world.disturbed(name), url, num, "--num-shards", 2, "--shard-index", shard)
            for shard in range(2)
        ]
        account = world.walk(
            name, [_in_batches(world.undisturbed(name), sound_url, num)], commands,
            num_blows=world.sizes.blows, reach=_REACH, sign=("PUT", "/batches/"),
        )  # fmt: skip
        billed_pico = stub.billed_pico
        if account.problems:
            return finish(Stage(name, "rows", num, 0, lost=num), account)
        account.problems += world.check_again(name, commands)
        if stub.billed_pico != billed_pico:
            account.problems.append("a finished plan was asked for again")
    stated_pico = round((manifest_of(world.disturbed(name)).cost_usd or 0.0) * PICO)
    stage = Stage(
        name,
        "rows",
        num,
        0,
        paid=sum(stub.answered.values()) + stub.num_alone,
        bill_usd=billed_pico / PICO,
        twice=sum(max(0, count - 1 - stub.withheld[name]) for name, count in stub.answered.items()),
        unstated=-(-(billed_pico - stated_pico) // BATCH_PRICE_PICO),
        may_be_unstated=2 * account.killed * _CONCURRENCY if stub.num_alone else 0,  # those alone cost twice as much
    )
    return finish(compare(stage, keys_of(world.undisturbed(name)), keys_of(world.disturbed(name))), account)


def keys_of(uri: str) -> list[tuple[int, str]]:
    """Row number and id of every conversation of a finished set."""
    return [(conversation.meta["row"], conversation.id) for conversation in read_conversations(uri)]


def saved_rows(uri: str) -> frozenset[int]:
    """Rows saved so far, whatever a manifest says."""
    store = open_store(uri)
    lines = [line for info in list(store.list("rows/")) for line in store.read(info.key).splitlines()]
    return frozenset(orjson.loads(line)["meta"]["row"] for line in lines)


def _one_by_one(out: str, stub: RunningStub, num: int, *options: object) -> list[str]:
    pace = ["--concurrency", _CONCURRENCY, "--flush-rows", _FLUSH_ROWS, "--read-timeout-s", 3]
    words = ["--model", "stub", "--base-url", stub.base_url, "--max-attempts", _MAX_ATTEMPTS, "--seed", _SEED]
    return nanosft("generate", "--out", out, "--knowledge", KNOWLEDGE, "--num", num, *words, *pace, *options)


def _in_batches(out: str, url: str, num: int, *options: object) -> list[str]:
    pace = ["--mode", "batch", "--batch-size", 50, "--batch-rest", 0, "--batch-poll-s", 0.2]
    words = ["--model", "stub", "--base-url", url, "--openrouter-fields", "--max-attempts", _MAX_ATTEMPTS]
    words += ["--concurrency", _CONCURRENCY, "--flush-rows", _FLUSH_ROWS]
    return nanosft("generate", "--out", out, "--knowledge", KNOWLEDGE, "--num", num, *words, *pace, *options)
