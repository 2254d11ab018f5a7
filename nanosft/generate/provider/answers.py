"""What a chat API answered, told apart by kind: a usable text, or one named problem. Pure.

    parse_answer(body)    HTTP 200's body -> Answer; `problem` is set when the answer cannot be used
    parse_messages(text)  the answer's text -> messages; raises `BadAnswerError` with the kind

An answer that is wholly inside one Markdown code fence is accepted: it was paid for, and nothing of it is lost.
"""

import re
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import orjson

from nanosft.conversation import Message, Part, parse_conversation, role_problem
from nanosft.errors import DataError
from nanosft.nanochat import evaluate_expression

Kind = Literal[
    "never_received",  # sent, then a time-out, a broken connection or our own end: it may have been billed
    "body_unreadable",  # HTTP 200 whose body is no JSON object of the API
    "body_empty",  # HTTP 200 without a choice or without text
    "error_in_200",  # HTTP 200 whose body is an error
    "batch_no_answer",  # a batch ended without an answer to the request
    "batch_gone",  # the provider does not know the batch, or no longer: it may have been billed
    "request_refused",  # HTTP 400, 404, 413, 422 of one row, where others were served
    "finish_length",  # cut at max_tokens
    "finish_content_filter",
    "finish_error",
    "finish_other",  # any reason but stop, or none given
    "refusal",  # the model declined
    "schema_ignored",  # prose, or JSON of another shape
    "json_invalid",  # meant as JSON, and broken
    "roles_wrong",
]

MAX_RAW_CHARS: Final = 200_000
MAX_COST_USD: Final = 1000.0
"""Of one answer; a provider that states more states none, and the answer is priced by its tokens."""
_MAX_TOKENS: Final = 10**9
_MAX_DETAIL_CHARS: Final = 300
_FENCE: Final = "```"
_FENCE_START: Final = re.compile(r"```[A-Za-z]*[ \t]*\n")
_REFUSAL: Final = re.compile(
    r"\A\W*(?:(?:i['\u2019]?m|i am) sorry|sorry,|i apologi[sz]e|as an ai|"
    r"i (?:can['\u2019]?t|cannot|am unable|won['\u2019]?t))\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Problem:
    """Why an answer cannot be used."""

    kind: Kind
    detail: str


_FINISH: Final[dict[str, Problem]] = {
    "length": Problem("finish_length", "the answer was cut at the token limit: write a shorter conversation"),
    "content_filter": Problem("finish_content_filter", "the provider's content filter stopped the answer"),
    "error": Problem("finish_error", "the provider stopped the answer with an error"),
}


@dataclass(frozen=True, slots=True)
class Usage:
    """What an answer used; `cost_usd` is None where the provider states none.

    Of the prompt's tokens, `cached_tokens` came from the prompt cache; of the answer's, `reasoning_tokens` went before
    its text.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = None
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer to one request.

    Attributes:
        text: The assistant's text; empty when there is none.
        raw: What there is to keep of a rejected answer: the text, or the whole body where it has no text.
        finish_reason: As the provider gave it.
        model: The model that answered.
        usage: Tokens and cost.
        problem: None when `text` is a whole answer.
        status: The status of an error inside HTTP 200, where it has one.
    """

    text: str
    raw: str
    finish_reason: str | None
    model: str
    usage: Usage = Usage()
    problem: Problem | None = None
    status: int | None = None

    def with_cost(self, cost_usd: float) -> "Answer":
        """A copy whose cost is `cost_usd`."""
        return replace(self, usage=replace(self.usage, cost_usd=cost_usd))


class BadAnswerError(Exception):
    """A whole answer that is no conversation. Caught where answers are judged; never reaches a user."""

    def __init__(self, kind: Kind, detail: str) -> None:
        super().__init__(detail)
        self.problem = Problem(kind, detail)


def never_received(detail: str, *, model: str) -> Answer:
    """Stand-in for an answer that was asked for and may have been billed, and that never came."""
    return Answer("", "", None, model, problem=Problem("never_received", detail[:_MAX_DETAIL_CHARS]))


def request_refused(detail: str, *, model: str) -> Answer:
    """Stand-in for the answer to a request that the provider would not take."""
    problem = Problem("request_refused", detail[:_MAX_DETAIL_CHARS])
    return Answer("", "", None, model, Usage(cost_usd=0.0), problem)


def parse_answer(body: bytes, *, model: str) -> Answer:
    """Parse the body of an HTTP 200.

    Args:
        body: The response's bytes.
        model: The model asked for, where the body names none.
    """
    raw = body.decode("utf-8", "replace").strip()[:MAX_RAW_CHARS]
    if not raw:
        return _broken(raw, model, Problem("body_empty", "the body is empty"))
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        return _broken(raw, model, Problem("body_unreadable", f"the body is not JSON: {exc}"))
    if not isinstance(value, dict):
        return _broken(raw, model, Problem("body_unreadable", "the body is not a JSON object"))
    model = value["model"] if isinstance(value.get("model"), str) else model
    usage = _parse_usage(value.get("usage"))
    choices = value.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    finish_reason = choice.get("finish_reason") if isinstance(choice.get("finish_reason"), str) else None
    error = value.get("error") or choice.get("error")
    if error:
        status = error.get("code") if isinstance(error, dict) else None
        status = status if isinstance(status, int) else None
        problem = Problem("error_in_200", error_message(error))
        return Answer("", raw, finish_reason, model, usage, problem, status)
    message = choice["message"] if isinstance(choice.get("message"), dict) else {}
    text = _text_of(message.get("content"))
    found = _find_problem(text, message.get("refusal"), finish_reason, has_choice=bool(choice))
    return Answer(text, text or raw, finish_reason, model, usage, found)


def error_message(error: object) -> str:
    """The message of an API's error object or body, shortened to one line."""
    if isinstance(error, dict):
        inner = error.get("error")
        message = error.get("message") or (error_message(inner) if inner else None) or error.get("detail") or error
    else:
        message = error
    return " ".join(str(message).split())[:_MAX_DETAIL_CHARS]


def message_of(body: bytes) -> str:
    """What the body of a request that failed says, on one line."""
    try:
        message = error_message(orjson.loads(body))
    except orjson.JSONDecodeError:
        message = error_message(body.decode("utf-8", "replace"))
    return message or "no message"


def parse_messages(text: str) -> tuple[Message, ...]:
    """Parse an answer's text into the messages of one conversation.

    Raises:
        BadAnswerError: It is prose, broken JSON, JSON of another shape, or its roles do not alternate.
    """
    stripped = unfence(text)
    try:
        value = orjson.loads(stripped)
    except orjson.JSONDecodeError as exc:
        if stripped.startswith(("{", "[")):
            raise BadAnswerError("json_invalid", f"the answer is broken JSON: {exc}") from exc
        if _REFUSAL.match(stripped):
            raise BadAnswerError("refusal", f"the model declined: {stripped[:80]!r}") from exc
        raise BadAnswerError("schema_ignored", "the answer is prose where JSON was asked for") from exc
    messages = value.get("messages") if isinstance(value, dict) else value
    try:
        conversation = parse_conversation(messages, where="the answer", format="list")
    except DataError as exc:
        raise BadAnswerError("schema_ignored", str(exc)) from exc
    problem = role_problem(conversation.messages)
    if problem is None and conversation.messages[0].role == "system":
        problem = "it begins with a system message"
    if problem is not None:
        raise BadAnswerError("roles_wrong", f"the conversation {problem}")
    return tuple(_clean(message) for message in conversation.messages)


def _clean(message: Message) -> Message:
    """The message without space around it; where it computes something, with the value that we compute ourselves.

    Raises:
        BadAnswerError: What is computed has no value.
    """
    if isinstance(message.content, str):
        return Message(message.role, message.text.strip())
    parts: list[Part] = []
    value: str | None = ""
    for part in message.content:
        if part.type == "python":
            value = evaluate_expression(part.text)
            if value is None:
                raise BadAnswerError("schema_ignored", f"the answer computes what has no value: {part.text[:80]!r}")
            parts += [Part("python", part.text.strip()), Part("python_output", value)]
        elif part.type == "text" and part.text:
            if value and re.search(r"\d", part.text) and value not in part.text.replace(",", ""):
                raise BadAnswerError("schema_ignored", f"the answer computes {value} and says: {part.text[:80]!r}")
            parts.append(part)
    if not any(part.type == "python" for part in parts):
        return Message(message.role, "".join(part.text for part in parts).strip())
    return Message(message.role, tuple(parts))


def unfence(text: str) -> str:
    """The text without surrounding white space, and without a code fence that encloses all of it."""
    text = text.strip()
    start = _FENCE_START.match(text)
    if start is None or not text.endswith(_FENCE, start.end()):
        return text
    return text[start.end() : -len(_FENCE)].strip()


def _broken(raw: str, model: str, problem: Problem) -> Answer:
    return Answer("", raw, None, model, problem=problem)


def _find_problem(text: str, refusal: object, finish_reason: str | None, *, has_choice: bool) -> Problem | None:
    if not has_choice:
        return Problem("body_empty", "the answer has no choices")
    if isinstance(refusal, str) and refusal.strip():
        return Problem("refusal", f"the model declined: {refusal.strip()[:80]!r}")
    if finish_reason != "stop":
        return _FINISH.get(str(finish_reason)) or Problem(
            "finish_other", f"the answer ended with finish_reason {finish_reason!r}"
        )
    if not text.strip():
        return Problem("body_empty", "the answer has no text")
    return None


def _text_of(content: object) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, dict))
        return "".join(part for part in parts if isinstance(part, str))
    return ""


def _parse_usage(value: object) -> Usage:
    if not isinstance(value, dict):
        return Usage()
    details, made = value.get("prompt_tokens_details"), value.get("completion_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    reasoning = made.get("reasoning_tokens") if isinstance(made, dict) else None
    return Usage(
        prompt_tokens=_count(value.get("prompt_tokens")),
        cached_tokens=_count(cached),
        completion_tokens=_count(value.get("completion_tokens")),
        cost_usd=parse_cost(value.get("cost")),
        reasoning_tokens=_count(reasoning),
    )


def _count(value: Any) -> int:
    return value if isinstance(value, int) and 0 < value <= _MAX_TOKENS else 0


def parse_cost(value: Any, *, most_usd: float = MAX_COST_USD) -> float | None:
    """A cost in US dollars as a provider states it; None for what nothing costs."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value <= most_usd else None
