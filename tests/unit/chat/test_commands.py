"""What a line means: messages and commands."""

from collections.abc import Generator, Sequence
from pathlib import Path

import orjson
import pytest
from rich.text import Text

from nanosft.chat import Chat
from nanosft.chat.commands import COMMANDS, converse, take
from nanosft.chat.session import Session, describe_end
from nanosft.conversation import Conversation, Message
from nanosft.errors import ConfigError, DataError, Interrupted
from tests.unit.chat.chats import MODEL, OTHER, make_settings, open_chat, say


class Fake:
    """A front that is told lines, and keeps what it is told."""

    def __init__(self, *lines: str) -> None:
        self.lines = list(lines)
        self.told: list[str] = []
        self.answers: list[str] = []

    def ask(self, _: Session) -> str:
        if not self.lines:
            raise EOFError
        return self.lines.pop(0)

    def tell(self, text: str | Text, style: str = "") -> None:  # noqa: ARG002
        self.told.append(str(text))

    def show(self, chats: Sequence[Chat], streams: Sequence[Generator[str, None, None]]) -> None:
        self.answers += ["".join(stream) for stream in streams]
        assert all(chat.last for chat in chats)


@pytest.fixture(scope="module")
def loaded() -> Chat:
    return open_chat()


@pytest.fixture
def session(loaded: Chat) -> Session:
    return Session([Chat(loaded.checkpoint, make_settings(), name="g5", uri=MODEL)], Fake())


def told(session: Session) -> list[str]:
    assert isinstance(session.front, Fake)
    return session.front.told


def test_lines_are_taken_until_the_user_leaves(session: Session) -> None:
    front = session.front = Fake("", "Hello", "word " * 1000, "/nope", "/help", "/quit", "never read")
    converse(session)
    assert front.lines == ["never read"]
    assert front.answers == [say(Chat(session.chats[0].checkpoint, make_settings()), "Hello")]
    assert "shorten it" in front.told[0]
    assert "/nope: no such command" in front.told[1]
    assert [line.split()[0] for line in front.told[2:-1]] == list(COMMANDS)


def test_a_signal_ends_the_conversation(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_: Session) -> str:
        raise Interrupted(15, "not saved")

    monkeypatch.setattr(session.front, "ask", stop)
    with pytest.raises(Interrupted):
        converse(session)


def test_a_new_conversation_keeps_the_system_message(session: Session) -> None:
    for line in ("/system Be brief.", "Hello", "/reset"):
        take(session, line)
    assert session.chats[0].messages == [Message("system", "Be brief.")]
    assert session.chats[0].last is None
    take(session, "/system off")
    take(session, "/system")
    assert session.chats[0].messages == []
    assert told(session)[-1].startswith("no system message")


def test_seed_and_temperature_are_set_for_what_follows(session: Session) -> None:
    take(session, "/temperature 1")
    take(session, "Hello")
    take(session, "/reset")
    take(session, "/seed 7")
    take(session, "Hello")
    assert isinstance(session.front, Fake)
    checkpoint = session.chats[0].checkpoint
    settings = make_settings(temperature=1.0)
    expected = [say(Chat(checkpoint, settings.model_copy(update={"seed": seed})), "Hello") for seed in (0, 7)]
    assert session.front.answers == expected
    for line in ("/seed x", "/seed -1", f"/seed {2**63}", "/temperature hot", "/temperature nan", "/temperature -1"):
        with pytest.raises(ConfigError, match="is needed"):
            take(session, line)
    assert session.chats[0].settings.seed == 7


def test_another_answer_needs_a_first_one(session: Session) -> None:
    for line in ("/retry", "/save somewhere", "/save", "/load"):
        with pytest.raises(ConfigError):
            take(session, line)
    take(session, "Hello")
    take(session, "/retry")
    assert "temperature 0" in told(session)[-1]
    assert len(session.chats[0].messages) == 2


def test_a_saved_conversation_goes_on_where_it_was(session: Session, tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}')
    for line in ("/system Be brief.", "Hello", f"/save {path}"):
        take(session, line)
    said = list(session.chats[0].messages)
    first, line = path.read_text().splitlines()
    record = orjson.loads(line)
    assert record["meta"]["model"] == "g5"
    assert record["meta"]["checkpoint"]["uri"] == MODEL
    assert "b" in first
    take(session, "/system off")
    take(session, "/reset")
    take(session, f"/load {path}")
    assert session.chats[0].messages == said
    path.write_text("nonsense\n")
    with pytest.raises(DataError, match=r"talk.jsonl:line 1"):
        take(session, f"/load {path}")
    path.write_text("\n")
    with pytest.raises(DataError, match="no conversation"):
        take(session, f"/load {path}")
    assert session.chats[0].messages == said


def test_two_models_save_and_load_each_its_own(session: Session, tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    take(session, "Hello")
    take(session, f"/model {MODEL} other={OTHER}")
    assert [chat.name for chat in session.chats] == ["g5", "other"]
    assert session.chats[1].messages == session.chats[0].messages
    take(session, "And you?")
    said = [list(chat.messages) for chat in session.chats]
    assert said[0] != said[1]
    for line in (f"/save {path}", "/reset", f"/load {path}"):
        take(session, line)
    assert [chat.messages for chat in session.chats] == said
    with pytest.raises(ConfigError, match="2 models at the most"):
        take(session, "/model a b c")
    with pytest.raises(DataError, match="no nanochat checkpoint"):
        take(session, "/model /nowhere")
    assert [chat.name for chat in session.chats] == ["g5", "other"]


def test_a_message_too_long_for_one_model_is_put_to_neither(session: Session) -> None:
    take(session, f"/model {MODEL} other={OTHER}")
    session.chats[1].settings = make_settings(max_tokens=session.chats[1].checkpoint.context_len - 120)
    with pytest.raises(ConfigError, match="shorten it"):
        take(session, "word " * 80)
    assert [chat.messages for chat in session.chats] == [[], []]


def test_tokens_are_shown_with_their_probabilities(session: Session) -> None:
    take(session, "/tokens")
    assert told(session) == ["0 of 256 tokens of context"]
    take(session, "Hello")
    take(session, "/tokens")
    chat = session.chats[0]
    assert chat.last is not None
    ids, _ = chat.checkpoint.tokenizer.render(Conversation(tuple(chat.messages)))
    assert told(session)[1] == f"{len(ids)} of 256 tokens of context"
    assert "8 tokens by probability" in told(session)[2]
    assert all(entry.logprob < 0 for entry in chat.last.tokens)


def test_an_answer_that_was_cut_says_so(session: Session) -> None:
    chat = session.chats[0]
    assert describe_end(chat) is None
    take(session, "Hello")
    assert describe_end(chat) == "cut at the limit of 8 tokens (--max-tokens)"
    assert chat.last is not None
    chat.last.end = "context"
    chat.last.num_forgotten = 2
    assert describe_end(chat) == (
        "cut: the context of 256 tokens is full (/reset); the oldest 2 messages no longer fit in the context"
    )
