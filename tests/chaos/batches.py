"""Runs of generate in batches: their services, one an output, whose calls count as the process's own.

A service breaks some of its answers and gives some twice; `gone` forgets some of its batches as well, and `judged` has
what is accepted scored in batches too. Its bill must be the manifest's cost, to the picodollar. Of answers that a row
asked for alone those are excepted that a process had, or was to get, when it was killed: nobody knows of them.
"""

import os
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final
from unittest import mock

from nanosft.errors import ProviderError
from nanosft.generate import provider
from nanosft.generate import stage as generate_stage
from nanosft.generate.batches import look
from nanosft.generate.provider import HttpReply, LostError
from nanosft.manifest import Manifest
from nanosft.settings.generate import GenerateSettings
from tests.chaos.faults import SERVICE, Process, current, running
from tests.stub_batches import PICO, BatchStub, Faults
from tests.stub_provider import KNOWLEDGE, PRICE_USD

KINDS: Final = ("openrouter", "openai", "gone", "judged", "judged openai")
URL_VARIABLE: Final = "CHAOS_BATCHES"
"""Where a real process finds the service."""

_NUM_ROWS: Final = 24
_BATCH_ROWS: Final = 10
_MOST_RUNS: Final = 20
_ALONE: Final = "/chat/completions"
_stubs: dict[str, BatchStub] = {}
_asked_alone: defaultdict[str, list[Process]] = defaultdict(list)
"""By output: who has asked for each answer that came in no batch."""


def service_of(kind: str, out: str) -> BatchStub:
    """The service that a run's output is made by: new for a new output."""
    name = _name(out)
    if name not in _stubs:
        is_gone, form = "gone" in kind, "openai" if "openai" in kind else "openrouter"
        low_score = 0.15 if "judged" in kind else 0.0
        faults = Faults(broken=0.15, doubled=0.1, gone=0.3 if is_gone else 0.0, low_score=low_score)
        with running(Process()):  # what the service reads is no call of the run, which could be held there
            _stubs[name] = BatchStub(
                _NUM_ROWS + 1, form=form, faults=faults, num_polls=1, states_costs=form == "openai"
            )
    return _stubs[name]


def forget(out: str) -> None:
    """An output's service is not asked any more."""
    _stubs.pop(_name(out), None)
    _asked_alone.pop(_name(out), None)


def run(kind: str, _inputs: str, out: str, variant: int) -> None:
    """Run generate in batches; where batches are gone, as often as it takes."""
    settings = GenerateSettings(
        out=out,
        knowledge=KNOWLEDGE,
        num=_NUM_ROWS + variant,
        model="stub",
        base_url=os.environ.get(URL_VARIABLE, "http://stub/v1"),
        openrouter_fields="openai" not in kind,
        mode="batch",
        batch_size=_BATCH_ROWS,
        batch_rest=0,
        batch_poll_s=0.001,
        judge_model="judge" if "judged" in kind else None,
        min_score=3 if "judged" in kind else None,
    )

    @asynccontextmanager
    async def open_http(*_: object, **__: object) -> AsyncIterator[provider.Send]:
        async def send(method: str, path: str, body: bytes, headers: Mapping[str, str]) -> HttpReply:
            return await _send(service_of(kind, out), out, method, path, body, headers)

        yield send

    open_real = URL_VARIABLE in os.environ
    believes_s = 0.0 if "gone" in kind else look._GONE_AFTER_S
    with (
        mock.patch.dict(vars(provider), {} if open_real else {"open_http": open_http}),
        mock.patch.multiple(look, _GONE_AFTER_S=believes_s, _PAUSE_S=0.0),
    ):
        for is_last in [False] * (_MOST_RUNS if "gone" in kind else 0) + [True]:
            try:
                generate_stage.run_generate(settings)
            except ProviderError:  # three batches in a row that bring nothing end a run: it is started again
                if is_last:
                    raise
            else:
                return


async def _send(
    stub: BatchStub, out: str, method: str, path: str, body: bytes, headers: Mapping[str, str]
) -> HttpReply:
    """One call of the service, which may be lost, or never answered."""
    process = current()
    kind = process.take(f"{SERVICE}{method} {path.partition('?')[0]}")
    if kind in ("500", "503"):
        return HttpReply(int(kind), {}, b"<html>oops</html>")
    if kind in ("fails", "time-out", "connection lost", "stays away"):
        raise LostError("the connection broke", timed_out=kind == "time-out")
    reply = await stub.send(method, path, body, headers)
    if path == _ALONE:
        _asked_alone[_name(out)].append(process)
    if kind == "kill after":
        process.die()
    if kind in ("answer lost", "fails after"):
        raise LostError("the connection broke", timed_out=False)
    return reply


def find_paid_twice(out: str, _flushed: object) -> list[str]:
    """Requests that the service answered in two batches."""
    stub = _stubs.get(_name(out))  # there is none where nobody has asked yet
    return [] if stub is None else sorted(name for name, count in stub.answered.items() if count > 1)


def is_bill_stated(out: str, manifest: Manifest) -> bool:
    """Whether the manifest states what the service billed; what batches cost that are gone, nobody knows.

    Of answers that came in no batch, those may be missing that a process had asked for which is dead: it may not have
    had them, nor put them. Not compared where a process that was held sent a batch again that its twin had sent:
    OpenAI's form has no key by which the service could tell.
    """
    stub = _stubs[_name(out)]
    if len({batch.key for batch in stub.batches.values()}) < len(stub.batches):
        return True
    num_lost, rest = divmod(
        stub.billed_pico - stub.gone_pico - round((manifest.cost_usd or 0) * PICO), round(PRICE_USD * PICO)
    )
    return rest == 0 and 0 <= num_lost <= _count_lost(out, stub)


def _count_lost(out: str, stub: BatchStub) -> int:
    """Answers that came in no batch and may not have been put, at the most."""
    if _name(out) in _asked_alone:
        return sum(process.is_dead for process in _asked_alone[_name(out)])
    return stub.num_alone  # none, or processes of the system have asked, which are not seen here


def _name(out: str) -> str:
    """What is the same in an output's URI and in the directory in which it is looked at."""
    return out.split("/")[-2]
