"""Conversations that are put the same messages, and whom they are shown to."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from rich.text import Text

from nanosft.chat.dialogue import Chat

NOT_SAVED: Final = "the conversation is not saved; /save does that"


class Front(Protocol):
    """Whom a session talks to."""

    def ask(self, session: "Session") -> str:
        """The next message or command.

        Raises:
            EOFError: There is none.
        """

    def tell(self, text: str | Text, style: str = "") -> None:
        """Say something that is no answer."""

    def show(self, chats: Sequence[Chat], streams: Sequence[Generator[str, None, None]]) -> None:
        """Show the answers as they come, all of them side by side.

        KeyboardInterrupt passes through; whoever called closes the streams.
        """


@dataclass
class Session:
    """Conversations with one model or two.

    Attributes:
        chats: One for each model.
        front: Where lines come from and answers go.
    """

    chats: list[Chat]
    front: Front

    def put(self, message: str) -> None:
        """Have every model answer a message.

        Raises:
            ConfigError: It is too long for one of them.
        """
        for chat in self.chats:  # all of them can, or none is asked
            chat.check(message)
        self._show([chat.answer(message) for chat in self.chats])

    def retry(self) -> None:
        """Have every model answer the last message anew."""
        self._show([chat.retry() for chat in self.chats])

    def _show(self, streams: Sequence[Generator[str, None, None]]) -> None:
        try:
            self.front.show(self.chats, streams)
        except KeyboardInterrupt:
            self.front.tell("(broken off)", "dim")
        finally:
            for stream in streams:
                stream.close()


def describe_model(chat: Chat) -> str:
    """Which model answers."""
    checkpoint = chat.checkpoint
    return (
        f"{chat.name}: {checkpoint.source} model {checkpoint.tag}, step {checkpoint.step}, "
        f"generation {checkpoint.generation.name}, context {checkpoint.context_len:,} ({chat.uri})"
    )


def describe_end(chat: Chat) -> str | None:
    """What a reader must know of the last answer: that it was cut, or that the model did not read everything."""
    answer = chat.last
    if answer is None:
        return None
    said = []
    if answer.end == "limit":
        said.append(f"cut at the limit of {chat.settings.max_tokens:,} tokens (--max-tokens)")
    if answer.end == "context":
        said.append(f"cut: the context of {chat.checkpoint.context_len:,} tokens is full (/reset)")
    if answer.num_forgotten:
        said.append(f"the oldest {answer.num_forgotten} messages no longer fit in the context")
    return "; ".join(said) or None
