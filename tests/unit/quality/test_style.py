import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanosft.conversation import Conversation, Message, Part
from nanosft.quality.prose import read_prose
from nanosft.quality.style import BANNED_PHRASES, find_overlong, find_style_defects, fold_conversation, fold_text


def reasons(answer: str, **changes) -> list[str]:
    options = {"ascii_policy": "keep", "min_chars": 1, "banned_phrases": BANNED_PHRASES, **changes}
    prose = read_prose(Conversation((Message("user", "hi"), Message("assistant", answer))))
    return [defect.reason for defect in find_style_defects(prose, **options)]


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("It\u2019s \u201cfine\u201d\u2026", 'It\'s "fine"...'),
        ("just for fun\u2014he's the King", "just for fun - he's the King"),
        ("just for fun \u2014 he's", "just for fun - he's"),
        ("na\u00efve caf\u00e9", "naive cafe"),
        ("Great \U0001f600 day", "Great day"),
        ("3 \u00d7 4 \u2264 12", "3 x 4 <= 12"),
        ("code:\n    x = \u201c1\u201d\n", 'code:\n    x = "1"\n'),
    ],
)
def test_folding(text, folded):
    assert fold_text(text) == folded


def test_other_scripts_stay_for_the_gate_to_see():
    assert not fold_text("\u041f\u0440\u0438\u0432\u0435\u0442").isascii()
    assert reasons("\u041f\u0440\u0438\u0432\u0435\u0442", ascii_policy="fold") == ["non_ascii"]


@given(st.text())
def test_folding_twice_is_folding_once(text):
    assert fold_text(fold_text(text)) == fold_text(text)


@given(st.text(st.characters(max_codepoint=127)))
def test_ascii_is_left_alone(text):
    assert fold_text(text) == text


def test_folding_keeps_parts_and_meta():
    parts = (Part("text", "It\u2019s"), Part("python", "1"))
    folded = fold_conversation(Conversation((Message("assistant", parts),), {"row": 7}))
    assert folded == Conversation((Message("assistant", (Part("text", "It's"), Part("python", "1"))),), {"row": 7})


def test_ascii_policies():
    assert reasons("caf\u00e9") == []
    assert reasons("caf\u00e9", ascii_policy="reject") == ["non_ascii"]


def test_length_bounds():
    prose = read_prose(Conversation((Message("user", "hi"), Message("assistant", "x" * 201))))
    assert [defect.index for defect in find_overlong(prose, 200)] == [1]
    assert not list(find_overlong(prose, 201))
    assert reasons("ok", min_chars=3) == ["too_short"]


def test_banned_phrases():
    assert reasons("Well, as an AI language model, I cannot.") == ["banned_phrase"]
    assert reasons("I\u2019m sorry, but I cannot assist with that.") == ["banned_phrase"]
    assert reasons("I'm nanochat, a Large Language Model.") == []
    assert reasons("As an AI, I don't have feelings.") == []
    assert reasons("Anything", banned_phrases=()) == []
