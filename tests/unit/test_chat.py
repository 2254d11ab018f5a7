"""Chat: one answer as text or JSON, a conversation on a terminal, and what cannot be answered."""

import io
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch

from nanosft.chat.stage import Chat, load_chat_model, run_chat
from nanosft.conversation import Message
from nanosft.errors import ConfigError, DataError
from nanosft.nanochat import Checkpoint
from nanosft.settings import load_settings
from nanosft.settings.chat import ChatSettings

MODEL = str(Path(__file__).parents[1] / "golden" / "nanochat" / "g5")
START_TIMEOUT_S = 90.0


def make_settings(**changes: Any) -> ChatSettings:
    return ChatSettings(**{"model": MODEL, "device": "cpu", "temperature": 0.0, "max_tokens": 8, **changes})


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    torch.set_num_threads(1)
    return load_chat_model(make_settings())


def say(chat: Chat, text: str) -> str:
    return "".join(chat.answer(text))


def test_an_answer_is_what_the_cacheless_model_says(checkpoint: Checkpoint) -> None:
    """Greedy, token by token, by whole forward passes over the prompt that the tokenizer renders."""
    tokenizer = checkpoint.tokenizer
    ids = tokenizer.render_prompt([Message("user", "Who are you?")])
    prompt_len = len(ids)
    with torch.inference_mode():
        while len(ids) < prompt_len + 8:
            token = int(checkpoint.model(torch.tensor([ids]))[0, -1].argmax())
            if token in {tokenizer.assistant_end_id, tokenizer.bos_id}:
                break
            ids.append(token)
    answer = say(Chat(checkpoint, make_settings()), "Who are you?")
    assert answer == tokenizer.decode(ids[prompt_len:])
    assert answer


def test_the_model_reads_what_was_said_before(checkpoint: Checkpoint) -> None:
    chat = Chat(checkpoint, make_settings())
    first = say(chat, "Who are you?")
    second = say(chat, "And who made you?")
    assert chat.messages == [
        Message("user", "Who are you?"),
        Message("assistant", first),
        Message("user", "And who made you?"),
        Message("assistant", second),
    ]
    assert second != say(Chat(checkpoint, make_settings()), "And who made you?")


def test_equal_seeds_give_equal_answers_and_others_do_not(checkpoint: Checkpoint) -> None:
    def sample(seed: int) -> str:
        return say(Chat(checkpoint, make_settings(temperature=1.0, max_tokens=16, seed=seed)), "Hello")

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)


def test_the_oldest_turns_leave_a_context_that_is_full(checkpoint: Checkpoint) -> None:
    chat = Chat(checkpoint, make_settings(max_tokens=4))
    for number in range(checkpoint.context_len // 20):  # 40 ids a turn: twice the context
        say(chat, f"{number}: " + "word " * 30)
    assert len(chat.messages) == 2 * (checkpoint.context_len // 20)
    fresh = Chat(checkpoint, make_settings(max_tokens=4), messages=chat.messages[-6:])
    assert say(chat, "Hello") == say(fresh, "Hello")


def test_a_message_longer_than_the_context_is_refused_and_not_remembered(checkpoint: Checkpoint) -> None:
    chat = Chat(checkpoint, make_settings())
    with pytest.raises(ConfigError, match="shorten it"):
        say(chat, "word " * checkpoint.context_len)
    assert chat.messages == []
    assert say(chat, "Hello")


def test_an_answer_that_is_broken_off_is_what_was_said(checkpoint: Checkpoint) -> None:
    chat = Chat(checkpoint, make_settings())
    pieces = chat.answer("Hello")
    first = next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert chat.messages == [Message("user", "Hello"), Message("assistant", first)]


def test_a_prompt_is_answered_on_standard_output_alone(capsys: pytest.CaptureFixture[str]) -> None:
    run_chat(make_settings(prompt="Who are you?"))
    plain = capsys.readouterr()
    assert plain.err == ""
    run_chat(make_settings(prompt="Who are you?", json_output=True))
    (line,) = capsys.readouterr().out.splitlines()
    record = orjson.loads(line)
    assert record == {
        "prompt": "Who are you?",
        "answer": plain.out.removesuffix("\n"),
        "model": {"tag": "d4", "step": 7, "source": "base"},
    }


def test_a_prompt_that_is_no_utf8_is_answered_too(capsys: pytest.CaptureFixture[str]) -> None:
    run_chat(make_settings(prompt="caf\udce9", json_output=True))
    assert orjson.loads(capsys.readouterr().out)["prompt"] == "caf\ufffd"


def test_json_needs_a_prompt() -> None:
    with pytest.raises(ConfigError, match="--json needs --prompt"):
        load_settings(ChatSettings, {"model": MODEL, "json_output": True})


@pytest.mark.parametrize("device", ["cuda", "cuda:99", "meta", "mps", "tpu", ""])
def test_a_device_that_is_not_there_is_one_line(device: str) -> None:
    if torch.cuda.is_available() and device == "cuda":
        pytest.skip("this machine has a GPU")
    with pytest.raises(ConfigError, match=f"--device {device}: not on this machine") as caught:
        run_chat(make_settings(device=device, prompt="Hello"))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": "/nowhere"}, "no nanochat checkpoint"),
        ({"source": "chat"}, "chatsft_checkpoints"),
        ({"tag": "d99"}, "no tag 'd99'"),
        ({"step": 8}, "no step 8"),
    ],
)
def test_a_model_that_is_not_there_is_told(changes: dict[str, Any], says: str) -> None:
    with pytest.raises((DataError, ConfigError), match=says):
        run_chat(make_settings(prompt="Hello", **changes))


def test_a_conversation_on_a_pipe_prints_answers_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = b"Who are you?\n/clear\n\n/what\n" + b"word " * 1000 + b"\nWho are you?\ncaf\xe9\n/quit\nnever read\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(said), encoding="utf-8"))
    run_chat(make_settings())
    shown = capsys.readouterr()
    first, again, last = shown.out.splitlines()
    assert first == again  # the first turn was cleared away
    assert first.strip()
    assert last.strip()
    assert shown.err.count("you>") == 8
    assert "shorten it" in shown.err
    assert shown.err.count("/clear starts a new conversation") == 2


class _Impatient(io.StringIO):
    """A standard output at whose second write the user has heard enough."""

    num_writes = 0

    def write(self, text: str, /) -> int:
        self.num_writes += 1
        if self.num_writes == 2:
            raise KeyboardInterrupt
        return super().write(text)


def test_ctrl_c_breaks_off_an_answer_and_not_the_conversation(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("Who are you?\n/clear\nWho are you?\n"))
    monkeypatch.setattr(sys, "stdout", _Impatient())
    run_chat(make_settings())
    assert isinstance(sys.stdout, _Impatient)
    whole = say(Chat(checkpoint, make_settings()), "Who are you?")
    first_piece = next(Chat(checkpoint, make_settings()).answer("Who are you?"))
    assert sys.stdout.getvalue() == f"{first_piece}{whole}\n"
    assert capsys.readouterr().err.count("(broken off)") == 1


class Terminal:
    """`nanosft chat` on a pseudo-terminal."""

    def __init__(self, process: "subprocess.Popen[bytes]", descriptor: int) -> None:
        self.process, self._descriptor = process, descriptor

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def read_until(self, wanted: str) -> str:
        shown = b""
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while wanted.encode() not in shown:
            assert time.monotonic() < deadline_s, shown
            if select.select([self._descriptor], [], [], 0.5)[0]:
                try:
                    shown += os.read(self._descriptor, 65536)
                except OSError as exc:  # the other end is closed
                    raise AssertionError(shown) from exc
        return shown.decode(errors="replace")


@contextmanager
def open_terminal(*options: str) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "nanosft", "chat", "--model", MODEL, "--device", "cpu", *options]
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
    streams: dict[str, Any] = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    with subprocess.Popen(command, env=env, start_new_session=True, **streams) as process:
        os.close(theirs)
        try:
            yield Terminal(process, ours)
        finally:
            process.kill()
            os.close(ours)


def test_a_conversation_on_a_terminal() -> None:
    with open_terminal("--max-tokens", "8", "--temperature", "0") as terminal:
        assert "base model d4, step 7" in terminal.read_until("you> ")
        terminal.type("i there\x01h\n")  # Ctrl-A: to the line's start
        one = terminal.read_until("you> ").splitlines()[-3]
        terminal.type("/clear\n")
        terminal.read_until("you> ")
        terminal.type("\x1b[A\x1b[A\n")  # up, twice: the line before /clear
        two = terminal.read_until("you> ").splitlines()[-3]
        assert one == two
        assert one.strip()
        terminal.type("\x04")  # Ctrl-D
        assert terminal.process.wait(START_TIMEOUT_S) == 0
