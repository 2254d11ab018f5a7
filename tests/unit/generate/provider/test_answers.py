import json

import orjson
import pytest

from nanosft.conversation import Part
from nanosft.generate.provider.answers import BadAnswerError, Usage, parse_answer, parse_messages, unfence

MESSAGES = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
TEXT = orjson.dumps({"messages": MESSAGES}).decode()


def body(**choice) -> bytes:
    return orjson.dumps({"model": "m", "choices": [{"finish_reason": "stop", "message": {"content": TEXT}, **choice}]})


def test_a_whole_answer_has_text_usage_and_no_problem():
    data = {
        "model": "other",
        "choices": [{"finish_reason": "stop", "message": {"content": TEXT}}],
        "usage": {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "cost": 0.25,
            "prompt_tokens_details": {"cached_tokens": 8},
        },
    }
    answer = parse_answer(orjson.dumps(data), model="m")
    assert (answer.text, answer.finish_reason, answer.model, answer.problem) == (TEXT, "stop", "other", None)
    assert answer.usage == Usage(prompt_tokens=10, cached_tokens=8, completion_tokens=5, cost_usd=0.25)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "body_empty"),
        (b"\n  \n", "body_empty"),
        (b'{"choices": []}', "body_empty"),
        (b'{"choices": [{"finish_reason": "stop", "message": {"content": " "}}]}', "body_empty"),
        (b'{"choices": [{"finish_reason": "stop"}]}', "body_empty"),
        (b'{"choices": [{"finish_r', "body_unreadable"),
        (b"[1, 2]", "body_unreadable"),
        (b'{"error": {"message": "boom", "code": 502}}', "error_in_200"),
        (b'{"choices": [{"error": {"message": "boom"}}]}', "error_in_200"),
        (body(finish_reason="length"), "finish_length"),
        (body(finish_reason="content_filter"), "finish_content_filter"),
        (body(finish_reason="error"), "finish_error"),
        (body(finish_reason="tool_calls"), "finish_other"),
        (body(finish_reason=None), "finish_other"),
        (body(message={"content": None, "refusal": "I will not."}), "refusal"),
    ],
)
def test_each_unusable_body_has_a_kind_of_its_own(data, kind):
    answer = parse_answer(data, model="m")
    assert answer.problem is not None
    assert answer.problem.kind == kind


def test_an_error_inside_200_keeps_its_status_and_message():
    answer = parse_answer(b'{"error": {"message": "rate\\nlimited", "code": 429}, "usage": {"cost": 0.5}}', model="m")
    assert answer.status == 429
    assert answer.problem is not None
    assert answer.problem.detail == "rate limited"
    assert answer.usage.cost_usd == 0.5


def test_a_refused_answer_keeps_its_text_and_a_broken_body_itself():
    assert parse_answer(body(finish_reason="length"), model="m").raw == TEXT
    assert parse_answer(b'{"cut', model="m").raw == '{"cut'


def test_a_cost_that_is_no_number_is_no_cost():
    for cost in (True, "1", -1, None, 1e308, 10**400, 1001):  # 1e308 ended the run, and every later one on its prefix
        data = {"choices": [], "usage": {"cost": cost, "prompt_tokens": 10**18}}
        usage = parse_answer(json.dumps(data).encode(), model="m").usage
        assert (usage.cost_usd, usage.prompt_tokens) == (None, 0)


def test_messages_are_read_with_and_without_a_code_fence_and_as_a_bare_list():
    for text in (TEXT, f"```json\n{TEXT}\n```", f"\n```\n{TEXT}```\n", orjson.dumps(MESSAGES).decode()):
        assert [(m.role, m.content) for m in parse_messages(text)] == [("user", "hi"), ("assistant", "hello")]


def test_only_a_fence_around_the_whole_answer_is_taken_off():
    assert unfence(f"Here it is:\n```json\n{TEXT}\n```").startswith("Here")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Sure! User: hi", "schema_ignored"),
        ('{"conversation": []}', "schema_ignored"),
        ('{"messages": [{"role": "user"}]}', "schema_ignored"),
        ('"hello"', "schema_ignored"),
        ("I'm sorry, but I can't help with that.", "refusal"),
        ("I cannot write this.", "refusal"),
        (TEXT[:-5], "json_invalid"),
        (f"```json\n{TEXT[:-2]}\n```", "json_invalid"),
        ('{"messages": [{"role": "user", "content": "hi"}]}', "roles_wrong"),
        ('{"messages": [{"role": "assistant", "content": "hi"}, {"role": "user", "content": "hi"}]}', "roles_wrong"),
        (orjson.dumps([{"role": "system", "content": "x"}, *MESSAGES]).decode(), "roles_wrong"),
    ],
)
def test_each_text_that_is_no_conversation_has_a_kind_of_its_own(text, kind):
    with pytest.raises(BadAnswerError) as raised:
        parse_messages(text)
    assert raised.value.problem.kind == kind


@pytest.mark.timeout(60)  # took minutes: each white space was tried as the fence's end
@pytest.mark.parametrize("filling", [" ", "\n", "```\n\n", "`"])
def test_a_fence_that_never_ends_is_found_at_once(filling):
    text = "```json\n" + filling * 1_000_000 + "x"
    assert unfence(text) == text


def parts(expression: str, output: str, after: str) -> str:
    content = [
        {"type": "text", "text": "Let me see. "},
        {"type": "python", "text": expression},
        {"type": "python_output", "text": output},
        {"type": "text", "text": after},
    ]
    return orjson.dumps([{"role": "user", "content": "Hm?"}, {"role": "assistant", "content": content}]).decode()


def test_what_an_answer_computes_is_computed_by_us():
    (_, message) = parse_messages(parts("12 * 7", "85", "That makes 84."))
    assert [part.text for part in message.content if isinstance(part, Part)] == [
        "Let me see. ",
        "12 * 7",
        "84",
        "That makes 84.",
    ]


@pytest.mark.parametrize("answer", [parts("open('x')", "1", "One."), parts("12 * 7", "85", "That makes 85.")])
def test_what_has_no_value_or_is_told_wrong_is_refused(answer):
    with pytest.raises(BadAnswerError, match="computes"):
        parse_messages(answer)


def test_parts_without_a_tool_are_a_text():
    value = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": [{"type": "text", "text": " Hello! "}]},
    ]
    assert parse_messages(orjson.dumps(value).decode())[1].content == "Hello!"
