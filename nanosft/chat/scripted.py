"""A chat for scripts: lines in, answers out; whatever else is said goes to standard error."""

import io
import json
import sys
from collections.abc import Generator, Sequence
from itertools import zip_longest
from typing import Any

import orjson
from rich.text import Text

from nanosft.chat.dialogue import Answer, Chat
from nanosft.chat.session import Session, describe_end
from nanosft.foreign import printable
from nanosft.progress import console


class Scripted:
    """Messages from standard input, a line each; answers on standard output.

    Args:
        as_json: An answer is a JSON object in a line.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="replace")

    def ask(self, _: Session) -> str:
        """A line; it goes on in the next one after a backslash at its end."""
        console.print("\nyou> ", end="")
        lines = [_read_line()]
        while lines[-1].endswith("\\"):
            lines[-1] = lines[-1].removesuffix("\\")
            lines.append(_read_line())
        return "\n".join(lines)

    def tell(self, text: str | Text, style: str = "") -> None:
        """To standard error."""
        shown = Text(printable(text)) if isinstance(text, str) else text
        console.print(shown, style=style, highlight=False, soft_wrap=True)

    def show(self, chats: Sequence[Chat], streams: Sequence[Generator[str, None, None]]) -> None:
        """Print one model's answer as it comes, two models' one after the other with their names."""
        if len(chats) == 1 and not self._as_json:
            for piece in streams[0]:
                write(piece, end="")
            write("")
        else:
            for _ in zip_longest(*streams):  # in turns, so that breaking off meets all of them
                pass
            for chat in chats:
                assert chat.last is not None
                write(_to_json(chat, chat.last) if self._as_json else f"{chat.name}: {chat.last.text}")
        for chat in chats:
            if note := describe_end(chat):
                head = f"{chat.name}: " if len(chats) > 1 else ""
                self.tell(f"({head}{note})", "dim")


def write(text: str, end: str = "\n") -> None:
    """Standard output: as it is to a pipe or a file, and without a control character to a terminal."""
    sys.stdout.write((printable(text) if sys.stdout.isatty() else text) + end)
    sys.stdout.flush()


def _to_json(chat: Chat, answer: Answer) -> str:
    checkpoint = chat.checkpoint
    record: dict[str, Any] = {
        "prompt": chat.turns[-2].text,
        "answer": answer.text,
        "end": answer.end,
        "tokens": {"prompt": answer.num_prompt, "answer": len(answer.tokens), "forgotten": answer.num_forgotten},
        "model": {"name": chat.name, "tag": checkpoint.tag, "step": checkpoint.step, "source": checkpoint.source},
    }
    return json.dumps(record) if sys.stdout.isatty() else orjson.dumps(record).decode()


def _read_line() -> str:
    line = sys.stdin.readline() if sys.stdin is not None else ""
    if not line:
        raise EOFError
    return line.removesuffix("\n").removesuffix("\r")
