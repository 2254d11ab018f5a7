"""What an answer that was lost on its way has cost, by the provider's own account."""

import asyncio
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

import orjson

from nanosft.generate.provider.answers import parse_cost
from nanosft.generate.provider.transport import LostError, NotSentError, Send

_WAITS_S: Final = (0.0, 1.0, 3.0)
"""Before each look: a generation is told of a moment after its end."""
_TIMEOUT_S: Final = 10.0


async def read_generation_cost(send: Send, generation_id: str) -> float | None:
    """The cost in US dollars (`GET /generation?id=...`); None where the provider does not tell it."""
    for wait_s in _WAITS_S:
        await asyncio.sleep(wait_s)
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                reply = await send("GET", f"/generation?id={quote(generation_id, safe='')}", b"", {})
        except (LostError, NotSentError, TimeoutError):
            continue
        if reply.status == HTTPStatus.OK:
            try:
                return parse_cost(orjson.loads(reply.body)["data"]["total_cost"])
            except (ValueError, KeyError, TypeError):
                return None
    return None
