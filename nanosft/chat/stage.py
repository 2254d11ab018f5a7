"""`nanosft chat`: one answer, messages from a pipe, or a conversation on a terminal."""

import sys

from nanosft.chat.commands import converse
from nanosft.chat.dialogue import open_chats
from nanosft.chat.scripted import Scripted
from nanosft.chat.session import NOT_SAVED, Session
from nanosft.errors import ConfigError
from nanosft.settings.chat import ChatSettings
from nanosft.signals import raising


def run_chat(settings: ChatSettings) -> None:
    """Answer `settings.prompt`, or hold a conversation.

    Raises:
        DataError: There is no checkpoint under the URI.
        ConfigError: The prompt is longer than the model's context, or there is no such device, tag or step.
    """
    typed = settings.prompt is None and sys.stdin is not None and sys.stdin.isatty()
    if typed and settings.json_output:
        raise ConfigError("--json needs --prompt, or messages from a pipe: what is typed on a terminal is read there")
    with raising(NOT_SAVED):
        chats = open_chats(settings)
        if settings.prompt is not None:
            # What the shell gave that is no UTF-8 came as lone surrogates.
            prompt = settings.prompt.encode(errors="surrogateescape").decode(errors="replace")
            Scripted(as_json=settings.json_output).show(chats, [chat.answer(prompt) for chat in chats])
        elif typed and sys.stdout.isatty():
            from nanosft.chat.terminal import Terminal  # noqa: PLC0415 - scripts need not wait for prompt_toolkit

            converse(Session(chats, Terminal(chats)))
        else:
            converse(Session(chats, Scripted(as_json=settings.json_output)))
