"""One chat request, and the body it is sent as. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What is asked.

    Attributes:
        num_tokens: An estimate of prompt and answer, for the tokens-per-minute limit.
        reasoning: How much a model may reason before it answers, by slug: OpenRouter's `reasoning` field.
    """

    messages: Sequence[Mapping[str, Any]]
    response_format: Mapping[str, Any] | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    seed: int | None = None
    num_tokens: int = 0
    reasoning: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def encode_request(request: ChatRequest, model: str, *, openrouter: bool) -> bytes:
    """The body of a request of its own.

    Args:
        request: What is asked.
        model: The slug.
        openrouter: With OpenRouter's own fields.
    """
    return orjson.dumps({"model": model, **request_fields(request, model, openrouter=openrouter)})


def request_fields(request: ChatRequest, model: str, *, openrouter: bool) -> dict[str, Any]:
    """The fields of a body, all but the model; those that are not set are left out."""
    body: dict[str, Any] = {"messages": request.messages}
    optional = {
        "response_format": request.response_format,
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "seed": request.seed,
        "reasoning": request.reasoning.get(model),
    }
    body.update((key, value) for key, value in optional.items() if value is not None)
    if openrouter:
        body["usage"] = {"include": True}
        if request.response_format is not None:
            body["provider"] = {"require_parameters": True}
    return body
