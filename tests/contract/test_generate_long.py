"""Talks that are longer than their dynamic, through the stage: planned, written, accepted, and asked for at length."""

from typing import Any

import pytest

from nanosft.data import read_conversations, read_manifest
from nanosft.errors import ConfigError
from nanosft.generate.estimate import check_models
from nanosft.generate.offers import Offers
from nanosft.generate.plan_record import make_run_plan
from nanosft.generate.planning import plan_row, read_dimensions
from nanosft.generate.provider import ModelCard, make_template
from nanosft.generate.stage import run_generate
from nanosft.generate.writers import write_request
from nanosft.knowledge import read_knowledge
from nanosft.settings.generate import GenerateSettings
from nanosft.store import open_store
from tests.stub_provider import KNOWLEDGE

NUM = 38


def settings(out: str = "x", **changes: Any) -> GenerateSettings:
    return GenerateSettings(**{"out": out, "knowledge": KNOWLEDGE, "num": NUM, **changes})


def test_the_composer_writes_talks_of_sixty_messages_that_all_gates_accept(tmp_path):
    out = str(tmp_path)
    summary = run_generate(settings(out, provider="offline", max_messages=60))
    lengths = sorted(len(conversation.messages) for conversation in read_conversations(out))
    assert (summary.num_accepted, summary.num_given_up) == (NUM, 0)
    assert len([length for length in lengths if length >= 24]) == 2
    manifest = read_manifest(open_store(out))
    assert manifest is not None
    assert manifest.settings["max_messages"] == 60
    with pytest.raises(ConfigError, match="max_messages=60, now max_messages=None"):
        run_generate(settings(out, provider="offline"))


def test_a_plan_without_a_bound_states_none_as_before(tmp_path):
    run_generate(settings(str(tmp_path), provider="offline", num=2))
    manifest = read_manifest(open_store(str(tmp_path)))
    assert manifest is not None
    assert "max_messages" not in manifest.settings


def test_a_long_talk_may_have_a_longer_answer_and_a_model_must_be_able_to_give_it():
    asked = settings(max_messages=60, max_tokens=1000)
    plan = make_run_plan(asked, read_dimensions(), read_knowledge(KNOWLEDGE))
    template = make_template(plan)
    requests = {
        row.num_messages: write_request(asked, template, Offers(), row, 0, ())
        for row in (plan_row(plan, number) for number in range(200))
    }
    assert {length: requests[length].max_tokens for length in (2, 8, 24, 60)} == {2: 1000, 8: 1000, 24: 1200, 60: 3000}
    assert "exactly 60, 30 from the user" in requests[60].messages[-1]["content"]
    assert requests[60].num_tokens - requests[2].num_tokens == 2000
    card = ModelCard("google/gemini-3.5-flash-lite", max_completion_tokens=2999)
    with pytest.raises(ConfigError, match="writes at most 2,999 tokens an answer, and 3,000 may be asked for"):
        check_models(asked, template, plan, Offers("2026-11-28", {card.slug: card}))


def test_talks_are_no_longer_than_the_base_can_take():
    knowledge, dimensions = read_knowledge(KNOWLEDGE), read_dimensions()
    bounded = settings(max_messages=60, max_context_tokens=2048)
    assert make_run_plan(bounded, dimensions, knowledge).most_messages == 44
    short = settings(max_messages=60, max_context_tokens=512)
    assert make_run_plan(short, dimensions, knowledge).most_messages == 8
    assert make_run_plan(settings(max_context_tokens=512), dimensions, knowledge).most_messages == 20
