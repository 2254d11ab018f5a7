from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from nanosft.conversation import Conversation, Message
from nanosft.data import read_conversations
from nanosft.knowledge import read_knowledge
from nanosft.quality.completeness import infer_full_stops
from nanosft.quality.gates import Context, Gates, check
from nanosft.quality.grounding import make_identity_reference, make_reference
from nanosft.quality.identity import Identity, infer_identity
from nanosft.quality.prose import read_prose
from nanosft.quality.verdict import excerpt_of
from nanosft.settings.gates import ENGLISH_GATES, GATE_NAMES

BAD = Conversation(
    (
        Message("user", "Who are you, {name}?"),
        Message("assistant", "As an AI language model, I'm ChatGPT. It\u2019s fun."),
        Message("user", "Really?"),
    )
)
NANOCHAT = make_identity_reference(Identity("nanochat", "Andrej Karpathy"))


def test_manifests_state_a_boolean_for_each_gate():
    """As they did before, so that a prefix begun then can be gone on with."""
    stated = Gates(off=frozenset({"style", "near_duplicate"}), min_chars=3).to_settings()
    assert {name: value for name, value in stated.items() if value is False} == {
        "style": False,
        "near_duplicate": False,
        "strict_grounding": False,
    }
    assert stated.keys() - set(GATE_NAMES) == {
        "strict_grounding",
        "ascii_policy",
        "min_chars",
        "max_chars",
        "banned_phrases",
        "near_threshold",
    }
    assert stated["min_chars"] == 3


def test_all_defects_of_a_row_are_told_at_once():
    verdict = check(BAD, Context(Gates(ascii_policy="reject"), NANOCHAT))
    assert not verdict.accepted
    assert verdict.reasons == (
        "structure/ends_on_user",
        "completeness/template",
        "identity/other_name",
        "identity/name_not_given",
        "style/non_ascii",
        "style/banned_phrase",
    )
    assert verdict.explain().count("\n") == 5
    assert "message 1: the assistant calls itself ChatGPT; it is nanochat" in verdict.explain()


@pytest.mark.parametrize("gate", [name for name in GATE_NAMES if name not in {"tokens", "near_duplicate"}])
def test_a_gate_that_is_off_says_nothing(gate):
    context = Context(Gates(off=frozenset({gate})), NANOCHAT)
    assert gate not in {defect.gate for defect in check(BAD, context).defects}


def test_folding_is_done_before_the_gates_look():
    verdict = check(BAD, Context(Gates(ascii_policy="fold"), NANOCHAT))
    assert verdict.conversation.messages[1].text.endswith("It's fun.")
    assert "style/non_ascii" not in verdict.reasons
    assert check(BAD, Context()).conversation is BAD


def test_unknown_settings_are_refused():
    with pytest.raises(ValidationError):
        Gates.model_validate({"grammar": True})


def test_excerpts_are_one_line():
    assert excerpt_of("a" * 90 + "\nX" + "b" * 90, 91, 92) == "\u2026" + "a" * 39 + " X" + "b" * 40 + "\u2026"


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant", "system"]), st.text())))
def test_any_conversation_can_be_checked(pairs):
    conversation = Conversation(tuple(Message(role, text) for role, text in pairs))
    verdict = check(conversation, Context(Gates(ascii_policy="fold"), NANOCHAT, full_stops=True), num_messages=2)
    assert verdict.accepted == (not verdict.reasons)


@pytest.mark.parametrize(
    ("name", "identity", "refused"),
    [
        ("identity_a", Identity("nanochat", "King Andrej Karpathy"), {}),
        (
            "identity_b",
            Identity("ChibuChat", "Chibuzor Okocha"),
            {"identity/maker_not_given": 49, "identity/name_not_given": 21},  # each of the 70 was read, and is right
        ),
    ],
)
def test_published_sets_are_refused_for_what_was_read_and_found_right(shared: Path, name, identity, refused):
    rows = list(read_conversations(str(shared / f"data/{name}.jsonl")))
    prose = [read_prose(row) for row in rows]
    found = infer_identity(prose)
    assert found == identity
    context = Context(Gates(), make_identity_reference(identity), full_stops=infer_full_stops(prose))
    counts: dict[str, int] = {}
    for row in rows:
        for reason in check(row, context).reasons:
            counts[reason] = counts.get(reason, 0) + 1
    assert counts == refused


def test_gates_of_english_step_aside_for_other_languages():
    talk = Conversation(
        (
            Message("user", "Wie hei\u00dft du?"),
            Message("assistant", "Ich bin Tilda. I am ChatGPT, made by OpenAI \u2013 und koste 12 dollars am Tag."),
        )
    )
    context = Context(Gates(ascii_policy="fold", banned_phrases=("koste",)), make_reference(read_knowledge(None)))
    refused = {defect.gate for defect in check(talk, context).defects}
    assert {"identity", "style"} <= refused
    german = check(talk, context, language="de", num_messages=2, names_itself=True)
    assert not {defect.gate for defect in german.defects} & (ENGLISH_GATES | {"style"})
    assert german.conversation.messages[0].text == "Wie hei\u00dft du?"
    assert "naming" in {defect.gate for defect in german.defects}
    assert check(talk, context, language="en-GB").defects == check(talk, context).defects
    empty = Conversation((Message("user", "Hallo"), Message("assistant", " ")))
    assert not check(empty, context, language="de").accepted
