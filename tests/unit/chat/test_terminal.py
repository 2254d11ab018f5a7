"""`nanosft chat` on a pseudo-terminal."""

import fcntl
import io
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput
from rich.cells import cell_len
from rich.console import Console

from nanosft.chat.commands import converse
from nanosft.chat.dialogue import open_chats
from nanosft.chat.session import Session
from nanosft.chat.terminal import Terminal
from nanosft.errors import EXIT_OK, Interrupted
from nanosft.foreign import printable
from nanosft.nanochat import TextStream
from nanosft.user_directories import find_state_dir
from tests.unit.chat.chats import MODEL, OTHER, make_settings, open_chat, say

START_TIMEOUT_S = 90.0


class Process:
    """A process on a pseudo-terminal."""

    def __init__(self, process: "subprocess.Popen[bytes]", descriptor: int) -> None:
        self.process, self._descriptor = process, descriptor
        self._read = ""

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def read_until(self, wanted: str) -> str:
        """What was shown since the last call, up to what is wanted; what came with it is left for the next call."""
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while wanted not in self._read:
            assert time.monotonic() < deadline_s, self._read
            if select.select([self._descriptor], [], [], 0.5)[0]:
                try:
                    self._read += os.read(self._descriptor, 65536).decode(errors="replace")
                except OSError as exc:  # the other end is closed
                    raise AssertionError(self._read) from exc
        before, found, self._read = self._read.partition(wanted)
        return before + found


@contextmanager
def open_terminal(state_dir: Path, *options: str) -> Iterator[Process]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    command = [sys.executable, "-m", "nanosft", "chat", "--device", "cpu", "--temperature", "0", *options]
    env = {
        **os.environ,
        "TERM": "xterm",
        "PROMPT_TOOLKIT_NO_CPR": "1",
        "XDG_STATE_HOME": str(state_dir),
        "OMP_NUM_THREADS": "1",
    }
    environment = {name: value for name, value in env.items() if name not in {"COLUMNS", "LINES"}}
    streams: dict[str, Any] = {"stdin": theirs, "stdout": theirs, "stderr": theirs}

    # Of tests in the background it would inherit that SIGINT is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command, env=environment, start_new_session=True, **streams) as process:
        signal.signal(signal.SIGINT, before)
        os.close(theirs)
        try:
            yield Process(process, ours)
        finally:
            process.kill()
            os.close(ours)


PROMPT = "you> "


def test_a_conversation_on_a_terminal(tmp_path: Path) -> None:
    history = tmp_path / "nanosft" / "chat_history"
    history.parent.mkdir()
    history.write_text("\n# 2026-01-01 00:00:00.000000\n+i there\n")
    answer = say(open_chat(max_tokens=100_000), "hi there")
    with open_terminal(tmp_path, "--model", MODEL, "--max-tokens", "100000") as terminal:
        assert "g5: base model d4, step 7" in terminal.read_until(PROMPT)
        terminal.type("\x1b[A\x01h\r")  # up: what an earlier session said; Ctrl-A: to the line's start
        terminal.read_until(answer.split()[0])
        terminal.process.send_signal(signal.SIGINT)  # what Ctrl-C is while nobody reads the keyboard
        terminal.read_until("(broken off)")
        terminal.read_until(PROMPT)
        terminal.type("half a line\x03")  # Ctrl-C
        terminal.read_until("Ctrl-D leaves")
        terminal.read_until(PROMPT)
        terminal.type("/tokens\r")
        terminal.read_until("least likely")
        terminal.read_until(PROMPT)
        terminal.type("\x04")  # Ctrl-D
        assert terminal.process.wait(START_TIMEOUT_S) == EXIT_OK
    assert "+hi there" in history.read_text()


class Screen:
    """A terminal without a process: what was typed, and what was shown."""

    def __init__(self, state_dir: Path, monkeypatch: pytest.MonkeyPatch, width: int = 100) -> None:
        monkeypatch.setenv("XDG_STATE_HOME", str(state_dir))
        self.file = io.StringIO()
        self.console = Console(file=self.file, width=width, height=40, force_terminal=True, color_system=None)

    def converse(self, typed: str, **changes: Any) -> Session:
        with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
            keys.send_text(typed + "\x04")  # Ctrl-D
            chats = open_chats(make_settings(**changes))
            session = Session(chats, Terminal(chats, self.console))
            converse(session)
        return session

    @property
    def lines(self) -> list[str]:
        return self.file.getvalue().splitlines()


def test_enter_sends_and_a_message_may_have_several_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(tmp_path, monkeypatch)
    session = screen.converse("one\x1b\rtwo\\\rthree\r\x1b[200~a\nb\x1b[201~\r/seed\r")
    assert [message.text for message in session.chats[0].turns if message.role == "user"] == ["one\ntwo\nthree", "a\nb"]
    assert "seed 0" in screen.lines
    assert any("8 tokens, " in line and "cut at the limit of 8 tokens" in line for line in screen.lines)
    assert (tmp_path / "nanosft" / "chat_history").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("width", [100, 80, 40])
def test_two_models_answer_side_by_side_or_below_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    screen = Screen(tmp_path, monkeypatch, width)
    both = (MODEL, f"other={OTHER}")
    session = screen.converse("Hello\r", model=both, max_tokens=60)
    shown = screen.file.getvalue()
    whole = shown[shown.rindex("g5", 0, shown.index("60 tokens, ") - 40) :]
    for chat in session.chats:
        words = [word for word in printable(chat.turns[1].text).split() if len(word) < 10]
        assert all(word in whole for word in words)
    assert any("g5" in line and "other" in line for line in screen.lines) == (width > 60)
    assert all(cell_len(line) <= width for line in whole.splitlines())


def test_what_a_model_says_steers_no_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TextStream, "feed", lambda *_: "\x1b[31m\x07\x9b2J")
    screen = Screen(tmp_path, monkeypatch)
    screen.converse("Hello\r", max_tokens=1)
    assert r"\x1b[31m\x07\x9b2J" in screen.file.getvalue()
    assert not set(screen.file.getvalue()) & {"\x07", "\x9b"}
    assert "\x1b[31m" not in screen.file.getvalue()


def test_without_a_home_the_history_is_this_session_s_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "nanosft").write_text("a file where the directory should be")
    Screen(tmp_path, monkeypatch).converse("/seed\r")

    def fail() -> Path:
        raise RuntimeError

    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr(Path, "home", fail)
    assert find_state_dir() is None
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert find_state_dir() is None


def test_sigterm_ends_the_line_in_order_and_then_the_conversation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Screen(tmp_path, monkeypatch)
    chats = open_chats(make_settings())
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        terminal = Terminal(chats, screen.console)
        app = terminal._prompt.app

        def stop() -> None:
            while not app.is_running:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGTERM)

        thread = threading.Thread(target=stop)
        thread.start()
        with pytest.raises(Interrupted, match="not saved"):
            converse(Session(chats, terminal))
        thread.join()
        assert not app.is_running
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        with pytest.raises(Interrupted):
            terminal._leave(signal.SIGTERM)  # before the line is begun
