"""What the tests of the chat share."""

from pathlib import Path
from typing import Any

from nanosft.chat.dialogue import Chat, open_chats
from nanosft.settings.chat import ChatSettings

MODEL = str(Path(__file__).parents[2] / "golden" / "nanochat" / "g5")
OTHER = str(Path(__file__).parents[2] / "golden" / "nanochat" / "g3")


def make_settings(**changes: Any) -> ChatSettings:
    return ChatSettings(**{"model": (MODEL,), "device": "cpu", "temperature": 0.0, "max_tokens": 8, **changes})


def open_chat(**changes: Any) -> Chat:
    return open_chats(make_settings(**changes))[0]


def say(chat: Chat, text: str) -> str:
    return "".join(chat.answer(text))
