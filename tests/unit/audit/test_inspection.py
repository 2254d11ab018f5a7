import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanosft.audit.inspection import run_inspect
from nanosft.conversation import Conversation, Message, to_line
from nanosft.errors import DataError
from nanosft.inspection import guess_language, inspect_conversations
from nanosft.settings.audit import InspectSettings


def make(question: str, answer: str, **meta: str) -> Conversation:
    return Conversation((Message("user", question), Message("assistant", answer)), meta)


def test_figures_of_a_small_set():
    rows = [make("Hello!", "Good day to you, my friend.", source="a"), make("hello", "GOOD day to you, my friend")]
    rows += [make("hello", "Good day to you, my fiend."), make("Bye", "So long, and thanks for it all.")]
    found = inspect_conversations(rows, num_samples=2)
    assert (found.num_rows, found.num_exact, found.num_near) == (4, 1, 1)
    assert found.openings.most_common(1) == [("hello", 3)]
    assert found.sources == {"a": 1}
    assert found.turns == {1: 4}
    assert len(found.samples) == 2
    assert found.samples == inspect_conversations(rows, num_samples=2).samples


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("What is the name of that and how are you?", "English"),
        ("Wie ist das und was ich nicht sehe", "German"),
        ("\u4f60\u597d\u5417", "Chinese"),
        ("\u3053\u3093\u306b\u3061\u306f\u4e16\u754c", "Japanese"),
        ("\u041f\u0440\u0438\u0432\u0435\u0442", "Cyrillic"),
        ("zzz qqq", "other"),
        ("?! 42", "none"),
    ],
)
def test_languages_are_guessed(text: str, language: str):
    assert guess_language(text) == language


def test_conversations_without_words_are_told_apart():
    rows = [make("\U0001f600", "\U0001f44d"), make("?", "!!!"), make("==>", "<=="), make("?", " !!! ")]
    found = inspect_conversations(rows)
    assert (found.num_exact, found.num_near) == (1, 0)


def test_markup_and_control_characters_of_the_data_are_shown_as_they_are(tmp_path, capsys):
    lines = [to_line(make("\\[/]", "\x1b[31mred\x07", source="x\\[/y]")), to_line(make("[/bold] [red]", "ok"))]
    (tmp_path / "a.jsonl").write_bytes(b"".join(lines))
    run_inspect(InspectSettings(uri=str(tmp_path / "a.jsonl"), samples=2))
    shown = capsys.readouterr().out
    assert "x\\[/y]" in shown
    assert "user: [/bold] [red]" in shown
    assert "assistant: \\x1b[31mred\\x07" in shown


def test_a_conversation_of_very_many_messages_is_not_shown_whole(tmp_path, capsys):
    """One of 100,000 messages took 46 s and 400,000 lines of the screen."""
    messages = tuple(Message(role, "x") for role in ("user", "assistant")) * 500
    (tmp_path / "a.jsonl").write_bytes(to_line(Conversation(messages)))
    run_inspect(InspectSettings(uri=str(tmp_path / "a.jsonl")))
    shown = capsys.readouterr().out
    assert shown.count("assistant") == 20
    assert "… and 960 messages more" in shown


@pytest.mark.parametrize("messages", [[], [{"role": "assistant", "content": "a"}]])
def test_a_parquet_row_that_is_no_conversation_is_named(tmp_path: Path, messages: list[dict[str, str]]):
    good = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    pq.write_table(pa.Table.from_pylist([{"messages": good}, {"messages": messages}]), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet:row 2: the conversation"):
        run_inspect(InspectSettings(uri=str(tmp_path / "a.parquet")))


def test_published_sets_are_described(shared: Path, capsys: pytest.CaptureFixture[str]):
    run_inspect(InspectSettings(uri=str(shared / "data/identity_b.jsonl"), json_output=True))
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == 950
    assert sum(found["lengths"].values()) == 950
    assert found["exact_duplicates"] == 96
    run_inspect(InspectSettings(uri=str(shared / "data/identity_?.jsonl"), samples=1))
    shown = capsys.readouterr().out
    assert "1,950 conversations in 2 objects" in shown
