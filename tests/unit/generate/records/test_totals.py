"""What is kept of an answer, and the sums of it."""

import orjson
import pytest

from nanosft.conversation import Conversation, Message, to_line
from nanosft.generate.records import Tally


def test_the_manifest_sums_costs_exactly_in_any_order():
    records = [{"reason": "r", "cost_usd": cost, "tokens": {"prompt": 1}} for cost in (0.1, 0.2, 0.3, 1e-7, None)]
    forward, backward = Tally(), Tally()
    for record in records:
        forward.add_reject(record)
    for record in reversed(records):
        backward.add_reject(record)
    assert forward.counts() == backward.counts()
    assert forward.cost_usd == 0.6000001
    assert forward.unknown_cost_usd == pytest.approx(0.6000001 / 4)


def test_a_line_of_a_part_is_a_canonical_conversation():
    row = Conversation((Message("user", "a"), Message("assistant", "b")), {"row": 1})
    assert orjson.loads(to_line(row))["meta"] == {"row": 1}
