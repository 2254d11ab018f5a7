"""The chat API: prompts in, answers out.

`prompts` writes what is asked; `client` sends a `request`, within `limits`, through a `transport`, which `http` is in
production; `answers` tells what came back, `generation` what a lost answer cost; `local` serves the packaged small
model to the same client; `catalogue` tells what an endpoint offers, as `cards` with prices. `open_http` and `Catalogue`
are looked up when they are first used: until a connection is opened, no HTTP library is loaded.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nanosft.generate.provider.answers import (
    MAX_COST_USD,
    Answer,
    BadAnswerError,
    Kind,
    Problem,
    Usage,
    error_message,
    message_of,
    parse_answer,
    parse_cost,
    parse_messages,
    unfence,
)
from nanosft.generate.provider.cards import SOON_DAYS, ModelCard, Prices, Reasoning, find_card, show_million
from nanosft.generate.provider.client import ChatClient, ClientOptions, Meter
from nanosft.generate.provider.generation import read_generation_cost
from nanosft.generate.provider.limits import AdaptiveLimit
from nanosft.generate.provider.local import LOCAL_MODEL, narrow_schema, serve_local_model
from nanosft.generate.provider.prompts import (
    PromptTemplate,
    estimate_row_tokens,
    make_template,
    parse_draft,
    response_format,
    write_draft_messages,
    write_fixed_part,
    write_messages,
)
from nanosft.generate.provider.request import ChatRequest, encode_request, request_fields
from nanosft.generate.provider.transport import (
    CREDIT_STATUSES,
    HttpReply,
    LostError,
    NotSentError,
    Send,
    draw_wait_s,
    make_post,
    match_secret,
    parse_retry_after,
    read_key,
    redact,
    require_key,
    speaks_openrouter,
)

if TYPE_CHECKING:
    from nanosft.generate.provider.catalogue import Catalogue
    from nanosft.generate.provider.http import open_http, open_post

__all__ = [
    "CREDIT_STATUSES",
    "LOCAL_MODEL",
    "MAX_COST_USD",
    "SOON_DAYS",
    "AdaptiveLimit",
    "Answer",
    "BadAnswerError",
    "Catalogue",
    "ChatClient",
    "ChatRequest",
    "ClientOptions",
    "HttpReply",
    "Kind",
    "LostError",
    "Meter",
    "ModelCard",
    "NotSentError",
    "Prices",
    "Problem",
    "PromptTemplate",
    "Reasoning",
    "Send",
    "Usage",
    "draw_wait_s",
    "encode_request",
    "error_message",
    "estimate_row_tokens",
    "find_card",
    "make_post",
    "make_template",
    "match_secret",
    "message_of",
    "narrow_schema",
    "open_http",
    "open_post",
    "parse_answer",
    "parse_cost",
    "parse_draft",
    "parse_messages",
    "parse_retry_after",
    "read_generation_cost",
    "read_key",
    "redact",
    "request_fields",
    "require_key",
    "response_format",
    "serve_local_model",
    "show_million",
    "speaks_openrouter",
    "unfence",
    "write_draft_messages",
    "write_fixed_part",
    "write_messages",
]


_LAZY = {"open_http": "http", "open_post": "http", "Catalogue": "catalogue"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return __all__
