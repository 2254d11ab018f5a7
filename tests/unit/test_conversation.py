"""Every accepted format is one type, and what is written is read back as it was."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanosft.conversation import (
    Conversation,
    Format,
    Message,
    Part,
    parse_conversation,
    parse_line,
    role_problem,
    to_line,
    to_list_line,
)
from nanosft.errors import DataError

WHERE = "s3://bucket/rows.jsonl:line 17"
TEXT = st.text(st.characters(exclude_categories=["Cs"]))  # any but halves of surrogate pairs, which UTF-8 has not
PARTS = st.lists(st.builds(Part, st.sampled_from(["text", "python", "python_output"]), TEXT), min_size=1).map(tuple)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
META = st.dictionaries(TEXT, JSON, max_size=4)


@st.composite
def messages(draw: st.DrawFn, *, parts: bool = True) -> tuple[Message, ...]:
    """Messages in an order that `role_problem` accepts."""
    answer = st.one_of(TEXT, PARTS) if parts else TEXT
    found = [Message("system", text) for text in draw(st.lists(TEXT, max_size=1))]
    for _ in range(draw(st.integers(1, 3))):
        found += [Message("user", draw(TEXT)), Message("assistant", draw(answer))]
    return tuple(found)


def simple(*texts: str) -> Conversation:
    roles = ("user", "assistant") * len(texts)
    return Conversation(tuple(Message(role, text) for role, text in zip(roles, texts, strict=False)))  # type: ignore[arg-type]


def parse(value: object, format: Format = "auto") -> Conversation:  # noqa: A002
    return parse_line(json.dumps(value), where=WHERE, format=format)


class TestRoundTrips:
    """Written and read again, a conversation is the same."""

    @given(messages(), META)
    def test_canonical(self, turns: tuple[Message, ...], meta: dict[str, Any]) -> None:
        conversation = Conversation(turns, meta)
        line = to_line(conversation)
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
        for format in ("auto", "canonical"):  # noqa: A001
            assert parse_line(line, where=WHERE, format=format) == conversation
        assert to_line(parse_line(line, where=WHERE)) == line

    @given(messages())
    def test_list(self, turns: tuple[Message, ...]) -> None:
        line = to_list_line(Conversation(turns))
        for format in ("auto", "list"):  # noqa: A001
            assert parse_line(line, where=WHERE, format=format) == Conversation(turns)

    @given(messages())
    def test_openai(self, turns: tuple[Message, ...]) -> None:
        value = {"messages": json.loads(to_list_line(Conversation(turns)))}
        assert parse(value) == parse(value, "openai") == Conversation(turns)

    @given(messages(parts=False), st.integers(0, 1))
    def test_sharegpt(self, turns: tuple[Message, ...], system_apart: int) -> None:
        names = {"system": "system", "user": "human", "assistant": "gpt"}
        value: dict[str, Any] = {"conversations": [{"from": names[item.role], "value": item.text} for item in turns]}
        if system_apart and turns[0].role == "system" and turns[0].text:
            value = {"system": turns[0].text, "conversations": value["conversations"][1:]}
        assert parse(value) == parse(value, "sharegpt") == Conversation(turns)

    @given(TEXT, TEXT, TEXT)
    def test_alpaca(self, instruction: str, context: str, output: str) -> None:
        value = {"instruction": instruction, "input": context, "output": output}
        question = "\n\n".join(text for text in (instruction, context) if text)
        assert parse(value) == parse(value, "alpaca") == simple(question, output)

    def test_of_real_sets_in_their_own_bytes(self, shared: Path) -> None:
        for name, num_rows in (("identity_a", 1000), ("identity_b", 950)):
            lines = (shared / "data" / f"{name}.jsonl").read_bytes().splitlines()
            assert len(lines) == num_rows
            for line in lines:
                conversation = parse_line(line, where=WHERE)
                assert role_problem(conversation.messages) is None
                assert json.loads(to_list_line(conversation)) == json.loads(line)
                assert parse_line(to_line(conversation), where=WHERE) == conversation


class TestId:
    """The id is the messages' alone."""

    def test_is_the_sha256_of_canonical_json(self) -> None:
        # Written out: keys sorted, no spaces, UTF-8 as it is, control characters escaped as RFC 8785 has it.
        expected = '[{"content":"Héllo \\"\\u0001\\n/","role":"user"},{"content":"日本","role":"assistant"}]'
        assert simple('Héllo "\x01\n/', "日本").id == hashlib.sha256(expected.encode()).hexdigest()

    def test_of_parts(self) -> None:
        turns = (Message("user", "1+1"), Message("assistant", (Part("python", "1+1"), Part("text", "2"))))
        expected = (
            '[{"content":"1+1","role":"user"},'
            '{"content":[{"text":"1+1","type":"python"},{"text":"2","type":"text"}],"role":"assistant"}]'
        )
        assert Conversation(turns).id == hashlib.sha256(expected.encode()).hexdigest()

    @given(messages(), messages(), META)
    def test_tells_messages_apart_and_nothing_else(
        self, one: tuple[Message, ...], other: tuple[Message, ...], meta: dict[str, Any]
    ) -> None:
        assert (Conversation(one).id == Conversation(other).id) == (one == other)
        assert Conversation(one, meta).id == Conversation(one).id

    def test_that_is_wrong_is_an_error(self) -> None:
        line = to_line(simple("Hi", "Hello")).replace(b"Hello", b"Hullo")
        with pytest.raises(DataError, match="is not the hash of its messages"):
            parse_line(line, where=WHERE)


class TestForeignFormats:
    """What they add is kept, what they call otherwise is understood."""

    @pytest.mark.parametrize("user", ["user", "human"])
    @pytest.mark.parametrize("assistant", ["assistant", "gpt", "chatgpt", "bot", "model"])
    @pytest.mark.parametrize("system", ["system", "developer"])
    def test_roles_have_many_names(self, user: str, assistant: str, system: str) -> None:
        names = (system, user, assistant)
        value = {"conversations": [{"from": name, "value": text} for name, text in zip(names, "abc", strict=True)]}
        found = parse(value)
        assert [message.role for message in found.messages] == ["system", "user", "assistant"]
        assert [message.text for message in found.messages] == ["a", "b", "c"]

    @pytest.mark.parametrize(
        "value",
        [
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
            {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
            {"instruction": "a", "output": "b"},
        ],
        ids=["openai", "sharegpt", "alpaca"],
    )
    def test_their_other_keys_go_to_meta(self, value: dict[str, Any]) -> None:
        extra = {"id": 17, "language": "en", "source": "web", "meta": {"source": "book", "page": 3}}
        found = parse({**value, **extra})
        assert found.meta == {"language": "en", "source": "book", "page": 3, "source_id": 17}
        assert parse({**value, "meta": "a word"}).meta == {"meta": "a word"}
        assert parse({**value, "meta": None}).meta == {}
        assert parse(value).meta == {}
        assert found.messages == simple("a", "b").messages

    def test_text_parts_of_a_user_are_joined(self) -> None:
        content = [{"type": "text", "text": "What is "}, {"type": "text", "text": "it?"}]
        found = parse([{"role": "user", "content": content}, {"role": "assistant", "content": content}])
        assert found.messages[0].content == "What is it?"
        assert found.messages[1].content == (Part("text", "What is "), Part("text", "it?"))
        assert role_problem(found.messages) is None

    def test_an_alpaca_row_may_have_a_system_text_and_no_input(self) -> None:
        found = parse({"system": "Be brief.", "instruction": "Name it.", "input": None, "output": "nanochat"})
        assert [(message.role, message.text) for message in found.messages] == [
            ("system", "Be brief."),
            ("user", "Name it."),
            ("assistant", "nanochat"),
        ]

    def test_an_id_of_another_kind_is_no_content_id(self) -> None:
        value = {"id": "abc", "messages": [], "meta": {"row": 1}}
        assert parse(value).meta == {"row": 1, "source_id": "abc"}


GOOD = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


class TestBadLines:
    """A line that cannot be right is an error with its place and its reason."""

    @pytest.mark.parametrize(
        ("line", "says"),
        [
            ("", "not JSON"),
            ("{", "not JSON"),
            ("[1,]", "not JSON"),
            ('{"messages": [{"role": "user", "content": "\\ud800"}]}', "not JSON"),
            ("null", "expected a JSON object or list, found null"),
            ("17", "expected a JSON object or list, found a number"),
            ('"text"', "expected a JSON object or list, found text"),
            ('{"text": "a", "b": 1}', "no known conversation format: its keys are 'b', 'text'"),
            ("{}", "its keys are none"),
            ("[17]", "message 0 must be an object, found a number"),
            ('[{"role": "user"}]', "message 0 has no 'content'"),
            ('[{"role": "wizard", "content": ""}]', "message 0 has role 'wizard'; known are system, "),
            ('[{"content": ""}]', "message 0 has role None"),
            ('[{"role": ["user"], "content": ""}]', r"message 0 has role \['user'\]"),
            ('[{"role": "user", "content": null}]', "message 0: content must be text or a list of parts, found null"),
            ('[{"role": "user", "content": []}]', "message 0: content must be text or a list of parts, found a list"),
            ('[{"role": "user", "content": ["a"]}]', "message 0, part 0 must be an object with a 'type' and a 'text'"),
            ('[{"role": "user", "content": [{"type": "image", "text": ""}]}]', "part 0 has type 'image'; known are "),
            ('[{"role": "user", "content": [{"type": [], "text": ""}]}]', r"part 0 has type \[\]"),
            ('{"messages": "a"}', "messages must be a list, found text"),
            ('{"conversations": null}', "messages must be a list, found null"),
            ('{"conversations": [{"from": "human"}]}', "message 0 has no 'value'"),
            ('{"conversations": [], "system": ["a"]}', "'system' must be text, found a list"),
            ('{"instruction": "a", "output": 0}', "'output' must be text, found a number"),
            ('{"instruction": "a", "input": [], "output": ""}', "'input' must be text, found a list"),
        ],
    )
    def test_reasons(self, line: str, says: str) -> None:
        with pytest.raises(DataError, match=says) as caught:
            parse_line(line, where=WHERE)
        assert str(caught.value).startswith(f"{WHERE}: ")
        assert "\n" not in str(caught.value)

    def test_bytes_that_are_not_utf8(self) -> None:
        with pytest.raises(DataError, match=f"{WHERE}: not JSON"):
            parse_line(b'["\xff"]', where=WHERE)

    def test_one_that_is_nested_too_deep(self) -> None:
        with pytest.raises(DataError, match="not JSON"):
            parse_line(b"[" * 100_000, where=WHERE)

    @pytest.mark.parametrize("format", ["canonical", "openai", "sharegpt", "alpaca"])
    def test_a_format_that_was_asked_for_is_held_to(self, format: Format) -> None:  # noqa: A002
        with pytest.raises(DataError, match=f"expected a JSON object in {format} format, found a list"):
            parse(GOOD, format)
        if format != "alpaca":
            with pytest.raises(DataError):
                parse({"instruction": "a", "output": "b"}, format)

    def test_a_list_that_was_asked_for_is_held_to(self) -> None:
        with pytest.raises(DataError, match="messages must be a list, found an object"):
            parse({"messages": GOOD}, "list")

    @pytest.mark.parametrize(
        ("change", "says"),
        [({"extra": 1}, "unknown key 'extra'"), ({"meta": []}, "'meta' must be an object"), ({"id": None}, "id None")],
    )
    def test_a_canonical_line_is_strict(self, change: dict[str, Any], says: str) -> None:
        value = {**json.loads(to_line(simple("a", "b"))), **change}
        with pytest.raises(DataError, match=says):
            parse(value, "canonical")


class TestRoleOrder:
    """At most one system message, first; then user and assistant in turn."""

    @given(messages())
    def test_what_is_right(self, turns: tuple[Message, ...]) -> None:
        assert role_problem(turns) is None
        assert role_problem((*turns, Message("user", "more"))) is None

    @pytest.mark.parametrize(
        ("roles", "says"),
        [
            ("", "has no user message with an assistant's answer"),
            ("s", "has no user message with an assistant's answer"),
            ("u", "has no user message with an assistant's answer"),
            ("su", "has no user message with an assistant's answer"),
            ("au", "message 0 is from 'assistant' where 'user' is due"),
            ("uu", "message 1 is from 'user' where 'assistant' is due"),
            ("uaa", "message 2 is from 'assistant' where 'user' is due"),
            ("suas", "message 3 is from 'system' where 'user' is due"),
            ("ssua", "message 1 is from 'system' where 'user' is due"),
            ("usa", "message 1 is from 'system' where 'assistant' is due"),
        ],
    )
    def test_what_is_wrong(self, roles: str, says: str) -> None:
        names = {"s": "system", "u": "user", "a": "assistant"}
        turns = [Message(names[role], "x") for role in roles]  # type: ignore[arg-type]
        assert role_problem(turns) == says

    @pytest.mark.parametrize("position", [0, 1])
    def test_only_the_assistant_calls_tools(self, position: int) -> None:
        turns = [Message("system", "s"), Message("user", "u"), Message("assistant", "a")]
        turns[position] = Message(turns[position].role, (Part("python", "1"),))
        assert "parts; only the assistant's may" in str(role_problem(turns))


def test_meta_that_is_nested_too_deep_to_be_written_is_a_data_error() -> None:
    line = '{"messages": [{"role": "user", "content": "a"}], "x": ' + "[" * 300 + "]" * 300 + "}"
    conversation = parse_line(line, where=WHERE)
    with pytest.raises(DataError, match=f"conversation {conversation.id}: its meta cannot be written"):
        to_line(conversation)


def test_a_copy_with_meta_leaves_the_first_as_it_was() -> None:
    one = Conversation(simple("a", "b").messages, {"row": 1, "cell": "x"})
    other = one.with_meta(row=2, source="mix")
    assert one.meta == {"row": 1, "cell": "x"}
    assert other.meta == {"row": 2, "cell": "x", "source": "mix"}
    assert other.id == one.id


def test_turns_are_counted_by_their_answers() -> None:
    assert simple("a", "b", "c", "d").num_turns == 2
    assert simple("a", "b", "c").num_turns == 1


def test_the_text_of_parts_is_joined() -> None:
    assert Message("assistant", (Part("text", "a"), Part("python", "b"))).text == "ab"


def test_a_decoded_value_is_parsed_as_its_line_is() -> None:
    assert parse_conversation(GOOD, where=WHERE) == parse(GOOD)
