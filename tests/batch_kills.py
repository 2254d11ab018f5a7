"""A process that dies at any call of a run in batches, and what its successors make of it.

    python -m tests.batch_kills [--form openai] [--share 0.2] [--gone 0.3]

A short run is counted first: every call of its store and of its provider. Then it is ended before, and after, each of
them, by an exception that nothing catches and that every later call raises again, as if the process were gone. The
next run is ended at a random call as well, and the last one must find every row in the set, no request answered twice,
and the bill of the provider equal to the manifest's cost, to the picodollar.
"""

import argparse
import contextlib
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from unittest import mock

from nanosft.data import read_conversations, read_manifest
from nanosft.errors import ProviderError
from nanosft.generate import provider, stage
from nanosft.generate.batches import look
from nanosft.generate.provider import HttpReply
from nanosft.settings.generate import GenerateSettings
from nanosft.store import Store, open_store
from tests.stub_batches import PICO, BatchStub, Faults
from tests.stub_provider import KNOWLEDGE

NUM: Final = 60
_NUM_MANY: Final = 5000
_MOST_RUNS: Final = 20
FORMS: Final = ("openrouter", "openai")
WHEN: Final = ("before", "after")
_FREE: Final = frozenset({"uri", "uri_of"})


class Killed(BaseException):
    """The process is gone."""


class Fuse:
    """Counts calls, and ends the run at one of them.

    Args:
        at: Number of the call, from 0; None: never.
        when: `before` the call is carried out, or `after` it.
    """

    def __init__(self, at: int | None = None, when: str = "before") -> None:
        self.num_calls = 0
        self._at = at
        self._when = when
        self._is_blown = False

    def enter(self) -> bool:
        """Count a call; returns whether the run ends after it."""
        if self._is_blown:
            raise Killed
        is_it = self.num_calls == self._at
        self.num_calls += 1
        if is_it and self._when == "before":
            self.blow()
        return is_it

    def blow(self) -> None:
        """End the run."""
        self._is_blown = True
        raise Killed


class KillableStore:
    """A store whose every call may be the last."""

    def __init__(self, store: Store, fuse: Fuse) -> None:
        self._store = store
        self._fuse = fuse

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        return found if name in _FREE or not callable(found) else self._watch(found)

    def _watch(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            is_last = self._fuse.enter()
            try:
                value = call(*args, **kwargs)
                return iter(list(value)) if isinstance(value, Iterator) else value
            finally:
                if is_last:
                    self._fuse.blow()

        return watched


def run(out: str, stub: BatchStub, fuse: Fuse, **changes: Any) -> bool:
    """One run of the stage, in this process; whether it came to its end."""

    async def send(method: str, path: str, body: bytes, headers: Mapping[str, str]) -> HttpReply:
        is_last = fuse.enter()
        reply = await stub.send(method, path, body, headers)
        if is_last:
            fuse.blow()
        return reply

    @contextlib.asynccontextmanager
    async def open_http(*_: object, **__: object) -> AsyncIterator[provider.Send]:
        yield send

    values = {
        "out": out,
        "knowledge": KNOWLEDGE,
        "num": NUM,
        "model": "stub",
        "base_url": "http://stub/v1",
        "openrouter_fields": stub.form == "openrouter",
        "mode": "batch",
        "batch_size": 25,
        "batch_rest": 0,
        "batch_poll_s": 0.001,
        **changes,
    }
    store = KillableStore(open_store(out), fuse)
    with (
        mock.patch.dict(vars(provider), open_http=open_http),
        mock.patch.object(stage, "open_store", return_value=store),
        mock.patch.multiple(look, _GONE_AFTER_S=0.0, _PAUSE_S=0.0),
    ):
        try:
            stage.run_generate(GenerateSettings(**values))
        except (Killed, ProviderError):  # three batches in a row that bring nothing end a run: it is started again
            return False
    return True


def make_stub(form: str, gone: float = 0.0) -> BatchStub:
    """A provider some of whose answers are refused, and that loses nothing but a share of its batches."""
    faults = Faults(broken=0.15, doubled=0.1, gone=gone)
    return BatchStub(NUM, form=form, faults=faults, num_polls=1, states_costs=form == "openai")


def count_calls(form: str, folder: Path, *, gone: float = 0.0, **changes: Any) -> int:
    """Calls of a run that nothing disturbs."""
    fuse = Fuse()
    assert _run_to_the_end(str(folder / "counted"), make_stub(form, gone), fuse, **changes)
    return fuse.num_calls


def _run_to_the_end(out: str, stub: BatchStub, fuse: Fuse, **changes: Any) -> bool:
    """Runs until one comes to its end; as many as may be needed where batches bring nothing, else one."""
    most_runs = _MOST_RUNS if stub.faults.gone or stub.faults.failed else 1
    return any(run(out, stub, fuse, **changes) for _ in range(most_runs))


def kill_and_go_on(form: str, folder: Path, at: int, when: str, *, gone: float = 0.0, **changes: Any) -> str:
    """End a run at a call, the next one at another, and let the third go on; what is wrong then, or nothing."""
    out, stub, draw = str(folder / f"{at}-{when}"), make_stub(form, gone), random.Random(at)
    if run(out, stub, Fuse(at, when), **changes):
        return "the run was not ended"
    run(out, stub, Fuse(draw.randrange(60), draw.choice(WHEN)), **changes)
    if not _run_to_the_end(out, stub, Fuse(), **changes):
        return "the last run did not end"
    return find_problem(out, stub)


def find_problem(out: str, stub: BatchStub) -> str:
    """What does not hold of a set and its bill; nothing where all does."""
    rows = sorted(conversation.meta["row"] for conversation in read_conversations(out))
    manifest = read_manifest(open_store(out))
    assert manifest is not None
    num_twice = sum(count > 1 for count in stub.answered.values())
    if rows != list(range(NUM)):
        return f"{len(set(rows))} of {NUM} rows are in the set"
    if num_twice:
        return f"{num_twice} requests were paid for twice"
    billed_pico = stub.billed_pico - stub.gone_pico
    if round((manifest.cost_usd or 0) * PICO) != billed_pico:
        return f"the manifest states ${manifest.cost_usd}, and ${billed_pico / PICO} were billed"
    return ""


def _make_many() -> list[str]:
    """Rows by the thousand, with every fault of the service; what is wrong then."""
    faults = Faults(0.05, 0.05, 0.05, failed=0.1, expired=0.1, missing=0.01, doubled=0.05, partial=0.02, broken=0.05)
    stub = BatchStub(_NUM_MANY, faults=faults)
    with tempfile.TemporaryDirectory(prefix="nanosft-kills-") as folder, contextlib.redirect_stderr(None):
        _run_to_the_end(folder, stub, Fuse(), num=_NUM_MANY, batch_size=500)
        manifest = read_manifest(open_store(folder))
    if manifest is None:
        return [f"{_NUM_MANY} rows: not finished"]
    stated, rows = round((manifest.cost_usd or 0) * PICO), manifest.counts["rows"]["accepted"]
    sys.stdout.write(
        f"{rows} of {_NUM_MANY} rows in {len(stub.batches)} batches with faults: "
        f"{stub.billed_pico} picodollars billed, {stated} in the manifest\n"
    )
    return [] if stated == stub.billed_pico else ["the bill is not the manifest's cost"]


def main() -> None:
    """Kill at every call, or at a share of them, and print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.batch_kills", description="Kills at every call.")
    parser.add_argument("--form", choices=FORMS, action="append")
    parser.add_argument("--share", type=float, default=1.0, help="of the calls, at random")
    parser.add_argument("--gone", type=float, default=0.0, help="of the batches, that the provider forgets")
    options = parser.parse_args()
    problems: list[str] = []
    for form in options.form or FORMS:
        started_s = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="nanosft-kills-") as folder, contextlib.redirect_stderr(None):
            num_calls = count_calls(form, Path(folder), gone=options.gone)
            points = [(at, when) for at in range(num_calls) for when in WHEN]
            points = random.Random(0).sample(points, max(1, round(options.share * len(points))))
            found = {point: kill_and_go_on(form, Path(folder), *point, gone=options.gone) for point in sorted(points)}
        wrong = [f"{form}, {when} call {at}: {problem}" for (at, when), problem in found.items() if problem]
        seconds = time.monotonic() - started_s
        sys.stdout.write(f"{form}: {num_calls} calls, {len(points)} kills, {len(wrong)} wrong, {seconds:.0f} s\n")
        problems += wrong
    problems += _make_many()
    sys.stdout.writelines(f"{problem}\n" for problem in problems)
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
