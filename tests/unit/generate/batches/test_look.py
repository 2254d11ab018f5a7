"""When a batch that the provider does not know counts as gone."""

import asyncio
import time
from typing import Any, Final, cast

import pytest

from nanosft.generate.batches import look
from nanosft.generate.batches.api import GONE, BatchApi, BatchStatus
from nanosft.generate.batches.record import BatchRecord, RowRequest
from nanosft.generate.batches.sent import SentBatch

DAY_S: Final = 86_400.0


class Forgetful:
    """A service that knows no batch."""

    def __init__(self) -> None:
        self.num_polls = 0

    async def poll(self, batch_id: str) -> BatchStatus:
        self.num_polls += 1
        return BatchStatus(batch_id, GONE, is_ended=True, error="HTTP 404")


@pytest.mark.parametrize(
    ("sent_ago_s", "state", "num_polls"),
    [
        (10.0, "unknown", 1),
        (DAY_S, GONE, 2),
        (-10.0, "unknown", 1),  # by a machine whose clock is a little ahead
        (-10 * DAY_S, GONE, 2),  # the clock was set back since: the batch was waited for, for ten days
    ],
)
def test_a_batch_is_believed_to_be_gone_a_while_after_it_was_sent(
    monkeypatch: pytest.MonkeyPatch, sent_ago_s: float, state: str, num_polls: int
) -> None:
    monkeypatch.setattr(look, "_PAUSE_S", 0.0)
    request = RowRequest(row=0, prompt_variant=0, attempt=0, last_variant=0)
    record = BatchRecord("1/00000-000000", "key", "model", time.time() - sent_ago_s, 0.0, (request,))
    opened = SentBatch(record, [request], is_whole=True, status=BatchStatus("batch-0", "unknown", is_ended=False))
    service = Forgetful()
    asyncio.run(look.look_at(cast("BatchApi", cast("Any", service)), opened, "http://stub/v1"))
    assert opened.status is not None
    assert (opened.status.state, service.num_polls) == (state, num_polls)
