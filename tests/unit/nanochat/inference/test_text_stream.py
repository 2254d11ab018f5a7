"""The pieces of a stream join to the text before the first stop string, and show nothing too early."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanosft.nanochat import TextStream, load_tokenizer

TOKENIZER = load_tokenizer(str(Path(__file__).parents[3] / "golden" / "nanochat" / "g5"))


def stream(ids: list[int], stop: list[str]) -> tuple[str, bool]:
    text = TextStream(TOKENIZER, stop)
    pieces = []
    for token in ids:
        pieces.append(text.feed(token))
        if text.stopped:
            break
    return "".join(pieces) + text.finish(), text.stopped


@given(
    st.text(alphabet="ab\nü🎉", max_size=30), st.lists(st.text(alphabet="ab\nü🎉", min_size=1, max_size=4), max_size=3)
)
def test_text_ends_before_the_first_stop_string(text: str, stop: list[str]) -> None:
    shown, stopped = stream(TOKENIZER.encode(text), stop)
    found = [text.find(item) for item in stop if item in text]
    assert stopped == bool(found)
    if found and len(stop) == 1:
        assert shown == text[: found[0]]
    elif not found:
        assert shown == text


def test_no_piece_shows_a_beginning_of_what_stops() -> None:
    text = TextStream(TOKENIZER, ["\nUser:"])
    pieces = [text.feed(token) for token in TOKENIZER.encode("Hello\nUser: more")]
    assert text.stopped
    assert "".join(pieces) == "Hello"
    assert text.finish() == ""


@pytest.mark.parametrize("stop", [[], ["never"]])
def test_a_character_of_several_tokens_comes_whole(stop: list[str]) -> None:
    pieces = [TextStream(TOKENIZER, stop).feed(token) for token in TOKENIZER.encode("🎉")[:1]]
    assert "\ufffd" not in "".join(pieces)
    assert stream(TOKENIZER.encode("a🎉b"), stop)[0] == "a🎉b"
    assert stream(TOKENIZER.encode("🎉")[:1], stop)[0].endswith("\ufffd") or len(TOKENIZER.encode("🎉")) == 1
