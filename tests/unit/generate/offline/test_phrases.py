"""The shipped wordings are whole, and a slip in the file is named."""

from importlib.resources import files

import pytest

from nanosft.generate.offline.phrases import load_phrases, parse_phrases

SHIPPED = files("nanosft.generate.offline").joinpath("phrases.toml").read_text("utf-8")


def test_who_asks_for_a_name_gets_one_and_who_asks_for_a_maker_gets_him():
    identity = load_phrases().identity
    assert all("{name}" in text for intent, pool in identity.items() if intent != "made" for text in pool)
    assert all("{maker}" in text for text in identity["made"])


def test_no_phrase_that_may_stand_in_any_conversation_needs_the_users_name():
    """Of a user who gave none, "" would be said."""
    phrases = load_phrases()
    pools = [pool for name, pool in phrases if name != "named_greetings" and isinstance(pool, tuple)]
    pools += [*phrases.identity.values(), *phrases.leads.values()]
    assert not [text for pool in pools for text in pool if "{user}" in text]


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("I was made by {maker}.", "I was made by {creator}.", r"no slot \{creator\}"),
        ("[leads]\nsimple", "[leads]\neasy", "leads.easy"),
        ("\nmade = [", "\nbuilt = [", "identity.built"),
        ("thanks = [", "thank = [", "thanks\n  Field required"),
    ],
)
def test_a_slip_in_the_file_is_named(before, after, message):
    assert before in SHIPPED
    with pytest.raises(ValueError, match=message):
        parse_phrases(SHIPPED.replace(before, after, 1))


def test_an_intent_without_phrases_is_named():
    start = SHIPPED.index("\nwho = [")
    with pytest.raises(ValueError, match="identity: 'who' has no phrases"):
        parse_phrases(SHIPPED[:start] + SHIPPED[SHIPPED.index("]", start) + 1 :])
