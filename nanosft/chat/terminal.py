"""A chat on a terminal: a line with history, answers as they come, two models in columns."""

import time
from collections.abc import Generator, Sequence
from itertools import zip_longest
from typing import Final

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.styles import Style
from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from nanosft.chat.commands import COMMANDS
from nanosft.chat.dialogue import Chat
from nanosft.chat.session import NOT_SAVED, Session, describe_end, describe_model
from nanosft.errors import Interrupted
from nanosft.foreign import printable
from nanosft.signals import diverting
from nanosft.user_directories import find_state_dir

_HINT: Final = "Enter sends, Alt-Enter begins a line, Ctrl-C stops an answer, Ctrl-D leaves; /help"
_COLOURS: Final = ("green", "magenta")
_FRAME_S: Final = 0.1
_LEAST_COLUMNS: Final = 60
_STYLE: Final = Style.from_dict({"prompt": "bold ansicyan", "bottom-toolbar": "noreverse fg:ansibrightblack"})


class Terminal:
    """A person at a terminal.

    Args:
        chats: Whose models are introduced.
        output: Where to write; None: standard output.
    """

    def __init__(self, chats: Sequence[Chat], output: Console | None = None) -> None:
        self._console = output or Console(highlight=False, markup=False, emoji=False)
        self._prompt: PromptSession[str] = PromptSession(
            multiline=True,
            history=_open_history(),
            key_bindings=_bind_keys(),
            completer=WordCompleter(list(COMMANDS), sentence=True),
            complete_while_typing=False,
            style=_STYLE,
            prompt_continuation="   … ",
        )
        for chat in chats:
            self.tell(describe_model(chat))
        self.tell(_HINT, "dim")

    def ask(self, session: Session) -> str:
        """What the user types. Ctrl-C empties the line."""
        toolbar = _make_toolbar(session)
        while True:
            self._console.print()
            try:
                with diverting(self._leave):
                    return self._prompt.prompt([("class:prompt", "you> ")], bottom_toolbar=toolbar)
            except KeyboardInterrupt:
                self.tell("(Ctrl-D leaves)", "dim")

    def tell(self, text: str | Text, style: str = "") -> None:
        """Between the answers."""
        self._console.print(Text(printable(text)) if isinstance(text, str) else text, style=style)

    def show(self, chats: Sequence[Chat], streams: Sequence[Generator[str, None, None]]) -> None:
        """One model's answer as it comes; two models' in columns, their ends while they write and the whole at last."""
        if len(chats) == 1:
            self._stream(chats[0], streams[0])
        else:
            self._stream_columns(chats, streams)

    def _leave(self, signum: int) -> None:
        """End the line that is being typed, so that the terminal is as it was, and then the conversation."""
        app, exc = self._prompt.app, Interrupted(signum, NOT_SAVED)
        if app.loop is None or not app.is_running:
            raise exc
        app.loop.call_soon_threadsafe(lambda: app.is_done or app.exit(exception=exc))

    def _stream(self, chat: Chat, stream: Generator[str, None, None]) -> None:
        begun = False
        try:
            for piece in stream:
                if not begun:
                    self._console.print(Text(f"{printable(chat.name)}> ", style=f"bold {_COLOURS[0]}"), end="")
                    begun = True
                self._console.file.write(printable(piece))
                self._console.file.flush()
        finally:
            if begun:
                self._console.print()
        self.tell(_describe(chat), "dim")

    def _stream_columns(self, chats: Sequence[Chat], streams: Sequence[Generator[str, None, None]]) -> None:
        texts = ["" for _ in chats]
        drawn_s = 0.0
        try:
            with Live(console=self._console, auto_refresh=False, transient=True) as live:
                for pieces in zip_longest(*streams, fillvalue=""):
                    texts = [text + printable(piece) for text, piece in zip(texts, pieces, strict=True)]
                    if time.monotonic() - drawn_s > _FRAME_S:
                        live.update(self._columns(chats, texts, self._console.height - 6), refresh=True)
                        drawn_s = time.monotonic()
        finally:
            self._console.print(self._columns(chats, texts))
        for chat in chats:
            self.tell(f"{chat.name}: {_describe(chat)}", "dim")

    def _columns(self, chats: Sequence[Chat], texts: Sequence[str], max_lines: int | None = None) -> RenderableType:
        """Answers side by side, or one below the other where the terminal is narrow; their last lines, where said."""
        width = self._console.width
        named = zip(chats, [f"bold {colour}" for colour in _COLOURS], texts, strict=False)
        if width < _LEAST_COLUMNS:
            half = max_lines and max_lines // 2
            return Group(
                *(
                    Text.assemble((f"{printable(chat.name)}> ", style), self._tail(text, width, half))
                    for chat, style, text in named
                )
            )
        table = Table(box=box.SIMPLE_HEAD, expand=True, pad_edge=False)
        cells = []
        for chat, style, text in named:
            table.add_column(Text(printable(chat.name)), header_style=style, ratio=1, overflow="fold")
            cells.append(self._tail(text, (width - 5) // 2, max_lines))
        table.add_row(*cells)
        return table

    def _tail(self, text: str, width: int, max_lines: int | None) -> Text:
        if max_lines is None:
            return Text(text)
        return Text("\n").join(Text(text).wrap(self._console, width)[-max(max_lines, 1) :])


def _describe(chat: Chat) -> str:
    """The last answer's size and speed, and that it was cut."""
    assert chat.last is not None
    num, elapsed_s = len(chat.last.tokens), chat.last.elapsed_s
    note = describe_end(chat)
    return f"{num:,} tokens, {num / max(elapsed_s, 1e-9):,.1f} a second" + (f"; {note}" if note else "")


def _make_toolbar(session: Session) -> StyleAndTextTuples:
    settings = session.chats[0].settings
    sizes = [
        f"{printable(chat.name)[:24]} {chat.count_context():,} of {chat.checkpoint.context_len:,}"
        for chat in session.chats
    ]
    return [("", " · ".join([*sizes, f"temperature {settings.temperature:g}", f"seed {settings.seed}", "/help"]))]


def _bind_keys() -> KeyBindings:
    bindings = KeyBindings()

    @bindings.add("enter")
    def _send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.text_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @bindings.add("escape", "enter")
    def _begin_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return bindings


def _open_history() -> History:
    """What was typed in all sessions, for this user's eyes; of this session alone where it cannot be kept."""
    directory = find_state_dir()
    if directory is None:
        return InMemoryHistory()
    path = directory / "chat_history"
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
        with path.open("ab"):
            return FileHistory(str(path))
    except OSError:
        return InMemoryHistory()
