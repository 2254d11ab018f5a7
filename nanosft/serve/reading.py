"""From the body of a request to the ids of its prompts."""

import asyncio
from typing import Final, TypeVar

import orjson
from pydantic import ValidationError
from starlette.requests import Request

from nanosft.conversation import parse_conversation
from nanosft.errors import DataError
from nanosft.nanochat import Tokenizer
from nanosft.serve.answers import ApiError
from nanosft.serve.bodies import Body, ChatBody, CompletionBody

BODY_TIMEOUT_S: Final = 20.0
"""A client that promises a body and sends none holds a connection for so long."""

BodyT = TypeVar("BodyT", bound=Body)


async def read_body(request: Request, cls: type[BodyT], max_bytes: int) -> BodyT:
    """A body of JSON within the limit.

    Raises:
        ApiError: It is none, too long, or does not come.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # a page of another origin can send others without asking
        raise ApiError(415, "send the body as Content-Type: application/json")
    too_long = ApiError(413, f"the body is longer than {max_bytes} bytes", code="body_too_long")
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for chunk in request.stream():
                data += chunk
                if len(data) > max_bytes:
                    raise too_long
    except TimeoutError as exc:
        raise ApiError(408, f"the body did not come within {BODY_TIMEOUT_S:g} seconds", code="body_timeout") from exc
    try:
        return cls.model_validate(orjson.loads(data))
    except orjson.JSONDecodeError as exc:
        raise ApiError(400, f"the body is not JSON: {exc}") from exc
    except ValidationError as exc:
        error = exc.errors(include_url=False, include_input=False)[0]
        param = ".".join(map(str, error["loc"])) or None
        message = error["msg"].removeprefix("Value error, ")
        raise ApiError(400, f"{param}: {message}" if param else message, param=param) from exc


def render_chat(tokenizer: Tokenizer, body: ChatBody) -> list[int]:
    """Ids of a conversation up to where the assistant's turn begins.

    Raises:
        ApiError: The roles are not in order.
    """
    messages = [message.model_dump() for message in body.messages]
    try:
        conversation = parse_conversation(messages, where="messages", format="list")
        return tokenizer.render_prompt(conversation.messages)
    except DataError as exc:
        raise ApiError(400, str(exc), param="messages") from exc


def encode_prompts(tokenizer: Tokenizer, body: CompletionBody) -> tuple[list[list[int]], list[str]]:
    """Ids and text of each prompt; all begin with <|bos|>, as the documents that a base model was trained on."""
    prompts, texts = [], []
    for prompt in body.prompts:
        if isinstance(prompt, str):
            prompts.append([tokenizer.bos_id, *tokenizer.encode(prompt)])
            texts.append(prompt)
            continue
        if any(not 0 <= token < tokenizer.vocab_size for token in prompt):
            raise ApiError(400, f"prompt: a token is none of the {tokenizer.vocab_size}", param="prompt")
        prompts.append(prompt if prompt[:1] == [tokenizer.bos_id] else [tokenizer.bos_id, *prompt])
        texts.append(tokenizer.decode(prompt))
    if not prompts:
        raise ApiError(400, "prompt: give at least one", param="prompt")
    return prompts, texts
