"""Foreign values: bounded where they enter, and quoted within a bound."""

import errno
import itertools
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from nanosft import cli
from nanosft.conversation import parse_line
from nanosft.data import is_same, iter_lines, list_data_objects
from nanosft.errors import ConfigError, DataError, Interrupted, clip
from nanosft.foreign import parse_toml, quote
from nanosft.manifest import Manifest
from nanosft.settings import StageSettings, load_settings
from nanosft.settings.generate import GenerateSettings
from nanosft.settings.options import kind_of
from nanosft.store import find_local_path, open_object, open_store

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


def test_no_message_is_longer_than_a_screen_whatever_it_quotes():
    for error in (ConfigError("k" * 10**6), DataError("k" * 10**6), Interrupted(15, "k" * 10**6)):
        assert len(str(error)) == 4000
        assert len(str(pickle.loads(pickle.dumps(error)))) == 4000


def test_clipped_text_keeps_both_ends():
    assert clip("short", 10) == "short"
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


@pytest.mark.parametrize("value", ["http://127.0.0.1:999999/v1", "http://[::1", "http://h:port"])
def test_an_address_that_is_none_is_told_before_anything_is_asked(value):
    with pytest.raises(ConfigError, match="--base-url: is no URL"):
        load_settings(GenerateSettings, {"out": "o", "base_url": value})


def test_a_name_with_a_nul_is_a_config_error(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text('out = "a\\u0000b"\n')
    with pytest.raises(ConfigError, match="--out: holds a NUL"):
        load_settings(GenerateSettings, {}, config=str(path))
    for uri in ("a\0b", "s3://bucket/a\0b"):
        for look in (open_store, open_object):
            with pytest.raises(ConfigError, match="a name has no NUL"):
                look(uri)


def test_times_that_python_cannot_hold_are_named(tmp_path):
    pq.write_table(pa.table({"t": pa.array([2**62], pa.timestamp("us"))}), tmp_path / "a.parquet")
    (item,) = list_data_objects(str(tmp_path / "a.parquet"))
    with pytest.raises(DataError, match=r"a\.parquet: not a Parquet file of conversations: date value out of range"):
        list(iter_lines(item))


@pytest.mark.parametrize("key", ["pipe.jsonl", "zero.jsonl"])
def test_a_device_or_a_pipe_is_refused_and_not_waited_for(tmp_path, key):
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "zero.jsonl").symlink_to("/dev/zero")
    store = open_store(str(tmp_path))
    for read in (store.read, lambda key: store.open_read(key).__enter__(), lambda key: store.read_range(key, 0, 9)):
        with pytest.raises(DataError, match="is a device, a pipe or a socket"):
            read(key)
    with pytest.raises(ConfigError):
        load_settings(GenerateSettings, {}, config="/dev/zero")


def test_a_full_disk_or_a_full_standard_output_is_no_defect():
    lines: list[str] = []

    def complain(line: str, **_: object) -> None:
        lines.append(line)

    for exc in (OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EDQUOT, "Quota exceeded", "/tmp/x")):
        assert cli._tell_unexpected(exc, complain, debug=False) == 75
    assert [line.rpartition(": ")[2] for line in lines] == ["free some space and run the same command again"] * 2
    assert lines[1].startswith("error: /tmp/x: Quota exceeded")


def test_a_name_that_is_no_utf8_is_refused_with_the_uri_that_names_it(tmp_path):
    """`report`, `export`, `train` and `audit --json` were exit 1 at the first JSON or page that held it."""
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    with pytest.raises(ConfigError, match=r"--out: is no UTF-8, .* where it means a file, write file:///.*%FF$"):
        load_settings(GenerateSettings, {"out": path})
    open_store(Path(path).as_uri()).write("a", b"1")
    assert Path(path, "a").read_bytes() == b"1"


def test_two_names_that_are_no_utf8_are_two(tmp_path):
    """Both were one with U+FFFD in it: an --out beside the data was refused, and a pattern matched the other too."""
    names = [os.fsdecode(name) for name in (b"\xfe.jsonl", b"\xff.jsonl")]
    uris = [(tmp_path / name).as_uri() for name in names]
    for name in names:
        (tmp_path / name).write_bytes(b"{}\n")
    assert not is_same(*uris)
    assert is_same(uris[0], uris[0])
    assert find_local_path(uris[1]) == tmp_path / names[1]
    assert [item.key for item in list_data_objects(f"{tmp_path.as_uri()}/%FF*")] == [names[1]]


@pytest.mark.parametrize("before", ["exec <&- >&- 2>&-", "export PYTHONIOENCODING=ascii"])
def test_a_closed_stream_and_one_of_ascii_are_no_defect(tmp_path, before):
    """Each was exit 1: None has no flush, and box drawing and 日本 have no ASCII."""
    manifest = Manifest(kind="mixture", name="日本", objects=(), counts={"rows": 0}).to_bytes()
    (tmp_path / "manifest.json").write_bytes(manifest)
    command = f"{before}; exec {sys.executable} -m nanosft describe --json {tmp_path}"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    if done.stdout:
        assert orjson.loads(done.stdout)["manifest"]["name"] == "日本"
