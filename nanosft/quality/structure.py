"""The structure gate, and the tokenizer's view of a conversation. Pure."""

from collections.abc import Iterator
from typing import Final, Protocol

from nanosft.conversation import Conversation, role_problem
from nanosft.errors import NanosftError
from nanosft.quality.verdict import Defect

_MAX_PIECES: Final = 1000


class Renderer(Protocol):
    """The part of a tokenizer that the gate needs."""

    @property
    def assistant_end_id(self) -> int:
        """Id of `<|assistant_end|>`."""

    def render(self, conversation: Conversation, /) -> tuple[list[int], list[int]]:
        """Ids and loss mask of equal length; mask 1 = supervised."""


def find_excess(conversation: Conversation) -> Defect | None:
    """More messages, or parts of one, than anybody talks; the other gates would compare them all."""
    counts = [len(message.content) for message in conversation.messages if not isinstance(message.content, str)]
    found = max([len(conversation.messages), *counts])
    if found <= _MAX_PIECES:
        return None
    return Defect("structure", "too_many", f"the conversation has {found} messages or parts, more than {_MAX_PIECES}")


def find_structure_defects(conversation: Conversation, *, num_messages: int | None = None) -> Iterator[Defect]:
    """Wrong roles, empty messages, another length than the dynamic's, no assistant at the end.

    Args:
        conversation: The conversation.
        num_messages: User and assistant messages there have to be; None where any number will do.
    """
    messages = conversation.messages
    for index, message in enumerate(messages):
        if not message.text.strip():
            yield Defect("structure", "empty_message", f"the {message.role}'s message is empty", index=index)
    if problem := role_problem(messages):
        yield Defect("structure", "role_order", f"the conversation {problem}")
    elif messages[-1].role != "assistant":
        detail = "the conversation must end on the assistant's message"
        yield Defect("structure", "ends_on_user", detail, index=len(messages) - 1)
    num_found = sum(message.role != "system" for message in messages)
    if num_messages is not None and num_found != num_messages:
        yield Defect("structure", "message_count", f"the conversation has {num_found} messages, not {num_messages}")


def find_token_defects(conversation: Conversation, tokenizer: Renderer, *, max_tokens: int | None) -> Iterator[Defect]:
    """What keeps training from using it: it does not render, is overlong, or teaches nothing.

    Args:
        conversation: The conversation.
        tokenizer: The base model's.
        max_tokens: The model's context; None for no limit.
    """
    try:
        ids, mask = tokenizer.render(conversation)
    except (NanosftError, ValueError) as exc:
        yield Defect("tokens", "does_not_render", f"the tokenizer cannot render the conversation: {exc}")
        return
    if max_tokens is not None and len(ids) > max_tokens:
        detail = f"the conversation has {len(ids)} tokens, more than the context's {max_tokens}"
        yield Defect("tokens", "overlong", detail)
    if not any(mask):
        yield Defect("tokens", "nothing_supervised", "no token of the conversation is supervised")
    if not ids or ids[-1] != tokenizer.assistant_end_id:
        yield Defect("tokens", "no_assistant_end", "the conversation does not end in the assistant's end token")
