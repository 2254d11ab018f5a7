"""A chat for scripts: answers on standard output, everything else on standard error."""

import io
import sys
from typing import Any

import orjson
import pytest
import torch

from nanosft.chat.stage import run_chat
from nanosft.errors import ConfigError, DataError
from nanosft.nanochat import TextStream
from nanosft.settings import load_settings
from nanosft.settings.chat import ChatSettings
from tests.unit.chat.chats import MODEL, OTHER, make_settings, open_chat, say


def test_a_prompt_is_answered_on_standard_output_alone(capsys: pytest.CaptureFixture[str]) -> None:
    run_chat(make_settings(prompt="Who are you?"))
    plain = capsys.readouterr()
    assert plain.err == "(cut at the limit of 8 tokens (--max-tokens))\n"
    run_chat(make_settings(prompt="Who are you?", json_output=True))
    (line,) = capsys.readouterr().out.splitlines()
    record = orjson.loads(line)
    assert record == {
        "prompt": "Who are you?",
        "answer": plain.out.removesuffix("\n"),
        "end": "limit",
        "tokens": {"prompt": record["tokens"]["prompt"], "answer": 8, "forgotten": 0},
        "model": {"name": "g5", "tag": "d4", "step": 7, "source": "base"},
    }


def test_a_prompt_that_is_no_utf8_is_answered_too(capsys: pytest.CaptureFixture[str]) -> None:
    run_chat(make_settings(prompt="caf\udce9", json_output=True))
    assert orjson.loads(capsys.readouterr().out)["prompt"] == "caf\ufffd"


def test_json_of_what_is_typed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    with pytest.raises(ConfigError, match="--json needs --prompt, or messages from a pipe"):
        run_chat(make_settings(json_output=True))


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
        ({"model": ("/nowhere",)}, "no nanochat checkpoint"),
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
    said = b"Who are you?\n/reset\n\n/what\n" + b"word " * 1000 + b"\nWho are you?\ncaf\xe9\n/quit\nnever read\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(said), encoding="utf-8"))
    run_chat(make_settings())
    shown = capsys.readouterr()
    first, again, last = shown.out.splitlines()
    assert first == again  # the first turn was cleared away
    assert first.strip()
    assert last.strip()
    assert shown.err.count("you>") == 8
    assert "shorten it" in shown.err
    assert "/what: no such command; /help lists them" in shown.err


class _Impatient(io.StringIO):
    """A standard output at whose second write the user has heard enough."""

    num_writes = 0

    def write(self, text: str, /) -> int:
        self.num_writes += 1
        if self.num_writes == 2:
            raise KeyboardInterrupt
        return super().write(text)


def test_ctrl_c_breaks_off_an_answer_and_not_the_conversation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("Who are you?\n/reset\nWho are you?\n"))
    monkeypatch.setattr(sys, "stdout", _Impatient())
    run_chat(make_settings())
    assert isinstance(sys.stdout, _Impatient)
    whole = say(open_chat(), "Who are you?")
    first_piece = next(open_chat().answer("Who are you?"))
    assert sys.stdout.getvalue() == f"{first_piece}{whole}\n"
    assert capsys.readouterr().err.count("(broken off)") == 1


def test_messages_from_a_pipe_are_answered_as_lines_of_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\\\ntwo\n//slash\n"))
    run_chat(make_settings(json_output=True))
    records = [orjson.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["prompt"] for record in records] == ["one\ntwo", "/slash"]
    chat = open_chat()
    assert [record["answer"] for record in records] == [say(chat, "one\ntwo"), say(chat, "/slash")]


def test_two_models_are_put_the_same_message(capsys: pytest.CaptureFixture[str]) -> None:
    both = (MODEL, f"other={OTHER}")
    expected = [say(open_chat(model=(uri,)), "Hello") for uri in (MODEL, OTHER)]
    run_chat(make_settings(model=both, prompt="Hello", json_output=True))
    records = [orjson.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(record["model"]["name"], record["answer"]) for record in records] == list(
        zip(["g5", "other"], expected, strict=True)
    )
    run_chat(make_settings(model=both, prompt="Hello"))
    assert capsys.readouterr().out == f"g5: {expected[0]}\nother: {expected[1]}\n"


@pytest.mark.parametrize("as_json", [False, True])
def test_no_control_character_of_an_answer_reaches_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, as_json: bool
) -> None:
    monkeypatch.setattr(TextStream, "feed", lambda *_: "\x1b[31m\x9b2J\u202e")
    run_chat(make_settings(prompt="Hello", max_tokens=1, json_output=as_json))
    assert "\x1b" in capsys.readouterr().out or as_json  # a pipe gets the answer as it is
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    run_chat(make_settings(prompt="Hello", max_tokens=1, json_output=as_json))
    shown = capsys.readouterr().out
    assert shown.isascii()
    assert not set(shown) & {"\x1b", "\x9b"}
    assert ("\\u001b[31m" if as_json else r"\x1b[31m\x9b2J\u202e") in shown


def test_two_models_of_one_name_need_names() -> None:
    with pytest.raises(ConfigError, match="two models have one name, g5: write --model name=URI"):
        load_settings(ChatSettings, {"model": [MODEL, MODEL]})
