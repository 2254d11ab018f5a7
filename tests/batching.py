"""Runs of generate in batches against a stub in the place of HTTP, and what lies in the store then."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from nanosft.data import read_conversations, read_manifest
from nanosft.generate import provider
from nanosft.manifest import Manifest
from nanosft.settings.generate import GenerateSettings
from nanosft.store import open_store
from tests.stub_batches import PICO, BatchStub
from tests.stub_provider import KNOWLEDGE

NUM = 60
FORMS = ("openrouter", "openai")
MANY_FAULTS = {
    "lost": 0.1,
    "http_429": 0.1,
    "http_500": 0.1,
    "failed": 0.1,
    "expired": 0.1,
    "missing": 0.05,
    "doubled": 0.2,
    "partial": 0.1,
    "broken": 0.1,
}
"""Rates of `Faults`."""


def put_in_place_of_http(patch: pytest.MonkeyPatch, stub: BatchStub) -> BatchStub:
    """Have the stub asked, without waits between tries."""

    @asynccontextmanager
    async def open_http(*_: object, **__: object) -> AsyncIterator[provider.Send]:
        yield stub.send

    patch.setitem(vars(provider), "open_http", open_http)
    patch.setattr("nanosft.generate.batches.http._WAIT_BASE_S", 0.0)
    return stub


def settings(out: str, **changes: Any) -> GenerateSettings:
    values = {
        "out": out,
        "knowledge": KNOWLEDGE,
        "num": NUM,
        "model": "stub",
        "base_url": "http://stub/v1",
        "mode": "batch",
        "batch_size": 25,
        "batch_rest": 3,
        "batch_poll_s": 0.001,
        "openrouter_fields": True,
        **changes,
    }
    return GenerateSettings(**values)


def manifest_of(out: str) -> Manifest:
    manifest = read_manifest(open_store(out))
    assert manifest is not None
    return manifest


def rows_of(out: str) -> list[int]:
    return sorted(conversation.meta["row"] for conversation in read_conversations(out))


def lines_of(out: str, prefix: str) -> list[dict[str, Any]]:
    store = open_store(out)
    return [orjson.loads(line) for info in store.list(prefix) for line in store.read(info.key).splitlines()]


def cost_pico(out: str) -> int:
    return round((manifest_of(out).cost_usd or 0) * PICO)
