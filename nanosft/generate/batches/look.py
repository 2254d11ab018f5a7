"""Looks at a batch that is with the provider, and believes late that it is gone.

A service that keeps its batches in several places may answer 404 for a while after it has taken one, and now and then
later: of one, `404` came a second after the batch was made and again two minutes later, and it ended well. So a batch
counts as gone only where it was sent some time ago, and two looks in a row, with a pause between, do not find it. What
is asked for again then is paid for again, and what the batch has cost is taken to be what was held for it.
"""

import asyncio
import logging
import time
from dataclasses import replace
from typing import Final

from nanosft.errors import ConfigError, ProviderError
from nanosft.generate.batches.api import GONE, BatchApi, BatchResult, BatchStatus, GoneError
from nanosft.generate.batches.sent import SentBatch

_GONE_AFTER_S: Final = 900.0
"""Seconds since a batch was sent before which nobody believes that it is gone."""
_PAUSE_S: Final = 30.0
_log: Final = logging.getLogger(__name__)


async def look_at(api: BatchApi, opened: SentBatch, endpoint: str) -> None:
    """Ask where a batch stands, and note it.

    Raises:
        ConfigError: It is not found, and was sent to another endpoint.
    """
    assert opened.status is not None, "a batch that is looked at was sent"
    batch_id = opened.status.id
    status = await api.poll(batch_id)
    if status.state == GONE and opened.endpoint not in {"", endpoint}:
        raise ConfigError(
            f"{status.error}: the batch {opened.record.name} was sent to {opened.endpoint}: run the same command with "
            f"--base-url {opened.endpoint} until it is done"
        )
    if status.state == GONE and _is_young(opened):
        status = BatchStatus(batch_id, "unknown", is_ended=False)
    elif status.state == GONE:
        await asyncio.sleep(_PAUSE_S)
        status = await api.poll(batch_id)
        if status.state == GONE:
            _tell(opened, status.error)
    opened.note(status)


async def read_results(api: BatchApi, opened: SentBatch) -> list[BatchResult]:
    """The results of a batch that has ended; those that there are of one that is gone, whose state is noted.

    Raises:
        ProviderError: They cannot be read now.
    """
    assert opened.status is not None, "a batch that has ended has a status"
    if opened.status.state == GONE:
        return []
    try:
        return await api.read_results(opened.status)
    except GoneError as exc:
        if _is_young(opened):
            raise ProviderError(f"{exc}: no results yet: run the same command again later") from exc
    await asyncio.sleep(_PAUSE_S)
    try:
        return await api.read_results(opened.status)
    except GoneError as exc:
        _tell(opened, str(exc))
        opened.status = replace(opened.status, state=GONE, error=str(exc))
        return exc.found


def _is_young(opened: SentBatch) -> bool:
    """Whether it was sent just now. One that was sent long after now is not: the clock was set back since."""
    return abs(time.time() - opened.sent_s) < _GONE_AFTER_S


def _tell(opened: SentBatch, why: str) -> None:
    _log.warning(
        "%s, twice: the batch %s is taken to be gone: its rows without an answer are asked for again, and count as "
        "paid for at the estimate, unless its cost is known (does the key belong to the account that sent it?)",
        why,
        opened.record.name,
    )
