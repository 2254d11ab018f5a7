"""Foreign values: bounded where they enter, and quoted within a bound."""

import itertools
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from nanosft import cli
from nanosft.conversation import parse_line
from nanosft.errors import ConfigError, DataError
from nanosft.foreign import clip, parse_toml, quote
from nanosft.settings import StageSettings, load_settings
from nanosft.settings.generate import GenerateSettings
from nanosft.settings.options import kind_of

DEEP = b"[" * 900 + b"]" * 900
LONG = b'"' + b"r" * 2_000_000 + b'"'


def nest(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("value", [nest(5000), "r" * 2_000_000, {"k" * 1000: nest(900)}, 10**4000, b"\0" * 9999])
def test_a_quoted_value_is_short_whatever_it_is(value):
    assert 0 < len(quote(value)) <= 120


def test_clipped_text_keeps_both_ends():
    assert clip("short") == "short"
    assert clip("a" * 100 + "b" * 100, 10) == "aaaaa…bbbb"


@pytest.mark.parametrize(
    "text", ["x = " + "[" * 5000 + "]" * 5000, "n = " + "9" * 5000, "x = \0", b"\xff", "x = 1\nx = 2"]
)
def test_toml_that_python_cannot_hold_is_a_config_error(text, tmp_path):
    with pytest.raises(ConfigError, match=r"^file\.toml: not TOML"):
        parse_toml(text, where="file.toml")
    path = tmp_path / "config.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match="not TOML"):
        load_settings(GenerateSettings, {}, config=str(path))


@pytest.mark.parametrize(
    "template",
    [
        b'{"messages":[{"role":%b,"content":"x"}]}',
        b'{"messages":[{"role":"assistant","content":[{"type":%b,"text":"x"}]}]}',
        b'{"conversations":[{"from":%b,"value":"x"}]}',
        b'{"instruction":[%b],"output":"x"}',
    ],
)
@pytest.mark.parametrize("value", [DEEP, LONG])
def test_a_line_with_a_deep_or_long_value_gives_a_short_error(template, value):
    line = template % value
    with pytest.raises(DataError) as caught:
        parse_line(line, where="a.jsonl:line 1")
    assert len(str(caught.value)) < 1200
    assert str(caught.value).startswith("a.jsonl:line 1")


def numbers() -> list[tuple[type[StageSettings], str]]:
    found = []
    for cls in StageSettings.__subclasses__():
        for name, field in cls.model_fields.items():
            if {"N", "X"} & set(kind_of(field.annotation).replace(" …", "").split("|")):
                found.append((cls, name))
    return found


def test_no_setting_takes_a_number_beyond_64_bits_or_infinity():
    """The class of 'a seed of 2^64' and 'a learning rate of 1e308'."""
    assert cli.app  # it imports the settings of all commands
    fields = numbers()
    assert len(fields) > 60
    for (cls, name), value in itertools.product(fields, [1 << 64, 10**30, float("inf"), float("nan"), 1e308]):
        required = [key for key, field in cls.model_fields.items() if field.is_required()]
        with pytest.raises(ValidationError):
            cls.model_validate(dict.fromkeys(required, "x") | {name: value})


def test_a_million_spaces_are_a_data_error_and_no_panic():
    from nanosft.nanochat import load_tokenizer  # noqa: PLC0415 - torch, for this test alone

    tokenizer = load_tokenizer(str(Path(__file__).parents[1] / "golden/nanochat/g5"))
    with pytest.raises(DataError, match=r"cannot encode a text of 1,000,001 characters"):
        tokenizer.encode(" " * 1_000_000 + "x")
    line = orjson.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": " " * 10**6}]})
    with pytest.raises(DataError, match="cannot encode"):
        tokenizer.render(parse_line(line, where="x"))
