"""The tokenizer is nanochat's, its pickle can run nothing, and conversations render as nanochat renders them."""

import copyreg
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import orjson
import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from nanosft.conversation import Conversation, Message, Part, parse_conversation
from nanosft.errors import ConfigError, DataError
from nanosft.nanochat.inference.text_stream import TextStream
from nanosft.nanochat.tokenizer import SPECIAL_TOKENS, Tokenizer, load_tokenizer, parse_tokenizer, train_tokenizer

GOLDEN = Path(__file__).parents[2] / "golden" / "nanochat"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(str(GOLDEN / "g5"))


def test_renders_every_golden_conversation_as_nanochat_does(tokenizer: Tokenizer) -> None:
    lines = (GOLDEN / "g5" / "render.jsonl").read_bytes().splitlines()
    assert len(lines) == 27
    for number, line in enumerate(lines, 1):
        expected = orjson.loads(line)
        ids, mask = tokenizer.render(parse_conversation(expected["conversation"], where=f"line {number}"))
        assert ids == expected["ids"], number
        assert mask == expected["mask"], number


def test_special_tokens_spelled_out_in_content_stay_plain_text(tokenizer: Tokenizer) -> None:
    text = "".join(SPECIAL_TOKENS)
    ids, _ = tokenizer.render(Conversation((Message("user", text), Message("assistant", text))))
    special = [token for token in ids if tokenizer.encoding.is_special_token(token)]
    assert special == [
        tokenizer.bos_id,
        tokenizer.user_start_id,
        tokenizer.user_end_id,
        tokenizer.assistant_start_id,
        tokenizer.assistant_end_id,
    ]


@settings(max_examples=60, deadline=None)
@given(question=st.text(), parts=st.lists(st.tuples(st.sampled_from(["text", "python", "python_output"]), st.text())))
def test_supervised_is_what_the_assistant_says_and_nothing_else(
    tokenizer: Tokenizer, question: str, parts: list[tuple[Any, str]]
) -> None:
    content = tuple(Part(kind, text) for kind, text in parts) or "plain"
    ids, mask = tokenizer.render(Conversation((Message("user", question), Message("assistant", content))))
    assert len(ids) == len(mask)
    assert ids.count(tokenizer.bos_id) == 1
    supervised = [token for token, is_on in zip(ids, mask, strict=True) if is_on]
    expected: list[int] = []
    for kind, text in parts or [("text", "plain")]:
        if kind == "text":
            expected += tokenizer.encode(text)
        elif kind == "python":
            expected += [tokenizer.python_start_id, *tokenizer.encode(text), tokenizer.python_end_id]
    assert supervised == [*expected, tokenizer.assistant_end_id]


def test_prompt_is_the_rendered_conversation_up_to_the_answer(tokenizer: Tokenizer) -> None:
    messages = [
        Message("system", "Be brief."),
        Message("user", "Hi"),
        Message("assistant", "Yes?"),
        Message("user", "2+2"),
    ]
    prompt = tokenizer.render_prompt(messages)
    whole, _ = tokenizer.render(Conversation((*messages, Message("assistant", "4"))))
    assert prompt == whole[: len(prompt)]
    assert prompt[-1] == tokenizer.assistant_start_id


def test_a_long_prompt_drops_its_oldest_turns_but_never_the_system_message(tokenizer: Tokenizer) -> None:
    system = Message("system", "Answer as a pirate.")
    turns = [Message("user" if i % 2 == 0 else "assistant", f"turn {i} " * 5) for i in range(9)]
    fitted = tokenizer.render_prompt([system, *turns], max_len=100)
    assert len(fitted) <= 100
    kept = next(n for n in (7, 5, 3, 1) if fitted == tokenizer.render_prompt([system, *turns[-n:]]))
    assert len(tokenizer.render_prompt([system, *turns[-kept - 2 :]])) > 100
    with pytest.raises(ConfigError, match="room for 5"):
        tokenizer.render_prompt([system, *turns], max_len=5)


@pytest.mark.parametrize("roles", [(), ("assistant",), ("user", "user"), ("user", "assistant", "assistant")])
def test_roles_out_of_order_are_refused(tokenizer: Tokenizer, roles: tuple[Any, ...]) -> None:
    with pytest.raises(DataError, match="conversation"):
        tokenizer.render(Conversation(tuple(Message(role, "x") for role in roles)))


def test_streamed_text_never_tears_a_character(tokenizer: Tokenizer) -> None:
    text = "naïve 日本語 🙂!"
    stream = TextStream(tokenizer)
    pieces = [*map(stream.feed, tokenizer.encode(text)), stream.finish()]
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_nine_special_tokens_are_the_last_ids(tokenizer: Tokenizer) -> None:
    assert [tokenizer.special(name) for name in SPECIAL_TOKENS] == list(range(732, 741))
    assert tokenizer.vocab_size == 741
    with pytest.raises(ConfigError, match="nope"):
        tokenizer.special("nope")


def test_a_trained_tokenizer_survives_its_pickle_and_plain_pickle_reads_it() -> None:
    texts = ["It is what it is, and that is 100% of it.\n"] * 50 + ["naïve 日本語\n"]
    trained = train_tokenizer(iter(texts), 290)
    assert trained.vocab_size == 290
    assert [trained.special(name) for name in SPECIAL_TOKENS] == list(range(281, 290))
    again = parse_tokenizer(trained.to_pickle(), where="test")
    nanochats = pickle.loads(trained.to_pickle())
    for text in (*texts[-2:], "  It's\n\n 12345 <|bos|>"):
        assert again.encode(text) == trained.encode(text) == nanochats.encode_ordinary(text)
        assert again.decode(again.encode(text)) == text
    assert len(trained.encode(texts[0])) < len(texts[0]) / 2
    with pytest.raises(ConfigError, match="vocab_size 200"):
        train_tokenizer(texts, 200)


class _RunsOnLoad:
    """Pickles to a call of `function(*arguments)`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def _nested(payload: object) -> object:
    return {"name": "x", "pat_str": "", "mergeable_ranks": {b"a": payload}, "special_tokens": {}}


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("shape", ["bare", "nested", "getattr", "subclass", "copyreg"])
def test_a_malicious_pickle_is_refused_and_runs_nothing(tmp_path: Path, shape: str, protocol: int) -> None:
    proof = tmp_path / "it-ran"
    command = _RunsOnLoad(os.system, f"touch {proof}")
    payloads = {
        "bare": command,
        "nested": _nested(_RunsOnLoad(eval, f"__import__('pathlib').Path({str(proof)!r}).touch()")),
        "getattr": _RunsOnLoad(getattr, _RunsOnLoad(__import__, "os"), "system"),
        "subclass": _RunsOnLoad(subprocess.call, ["touch", str(proof)]),
        "copyreg": _RunsOnLoad(copyreg._reconstructor, Tokenizer, object, None),  # type: ignore[attr-defined]
    }
    data = pickle.dumps(payloads[shape], protocol)
    with pytest.raises(DataError, match=r"base/tokenizer\.pkl: refused, and nothing of it was run"):
        parse_tokenizer(data, where="base/tokenizer.pkl")
    assert not proof.exists()
    if shape in {"bare", "nested", "subclass"}:
        pickle.loads(data)
        assert proof.exists(), "the payload is harmless: this test proves nothing"


def test_a_real_tokenizer_with_a_payload_in_its_merges_is_refused(tmp_path: Path) -> None:
    proof = tmp_path / "it-ran"

    class Disguised(tiktoken.Encoding):
        def __reduce__(self) -> tuple[Any, ...]:
            return (tiktoken.Encoding.__new__, (tiktoken.Encoding,), _nested(_RunsOnLoad(os.system, f"touch {proof}")))

    disguised = Disguised.__new__(Disguised)
    with pytest.raises(DataError, match="refused"):
        parse_tokenizer(pickle.dumps(disguised), where="t")
    assert not proof.exists()


def pickle_encoding(state: object) -> bytes:
    """The pickle of a tiktoken Encoding whose state is what is given."""
    encoding = tiktoken.Encoding.__new__(tiktoken.Encoding)
    with mock.patch.object(tiktoken.Encoding, "__getstate__", return_value=state):
        return pickle.dumps(encoding)


_BYTES = {bytes([byte]): byte for byte in range(256)}


@pytest.mark.parametrize(
    ("state", "match"),
    [
        ("gpt2", "with its merges"),  # tiktoken itself would fetch it from the network
        ({"name": "x"}, "has keys"),
        ({"name": "x", "pat_str": ".", "mergeable_ranks": [], "special_tokens": {}}, "no table"),
        ({"name": "x", "pat_str": ".", "mergeable_ranks": {b"a": -1}, "special_tokens": {}}, "no table"),
        ({"name": "x", "pat_str": ".", "mergeable_ranks": {b"a": 1}, "special_tokens": {}}, "single bytes"),
        ({"name": "x", "pat_str": ".", "mergeable_ranks": _BYTES, "special_tokens": {"<s>": 7}}, "same id"),
        ({"name": "x", "pat_str": "(", "mergeable_ranks": _BYTES, "special_tokens": {}}, "refuses"),
        (
            {"name": "x", "pat_str": ".", "mergeable_ranks": _BYTES, "special_tokens": {"<s>": 2**40}},
            "an id of 1,048,576",
        ),
        ({"name": "x", "pat_str": ".", "mergeable_ranks": _BYTES, "special_tokens": {"<s>": 256}}, "no special token"),
    ],
)
def test_an_encoding_that_is_no_nanochat_tokenizer_is_a_data_error(state: object, match: str) -> None:
    with pytest.raises(DataError, match=match):
        parse_tokenizer(pickle_encoding(state), where="t")


@pytest.mark.parametrize("data", [b"", b"\x80\x05", b"no pickle", pickle.dumps({"a": 1}), pickle.dumps(None)])
def test_what_is_no_encoding_is_a_data_error(data: bytes) -> None:
    with pytest.raises(DataError, match="not a pickle of a tiktoken Encoding"):
        parse_tokenizer(data, where="t")


def test_a_missing_tokenizer_says_where_it_should_be(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no tokenizer: looked for tokenizer/tokenizer\.pkl, tokenizer\.pkl, "):
        load_tokenizer(str(tmp_path))


def test_reading_and_rendering_load_no_torch() -> None:
    code = (
        "import sys; from nanosft.nanochat import load_tokenizer, train_tokenizer, find_checkpoint, ModelConfig;"
        f"load_tokenizer({str(GOLDEN / 'g5')!r}).encode('x'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
