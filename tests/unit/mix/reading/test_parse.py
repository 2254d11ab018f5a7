import hashlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanosft.conversation import parse_line, role_problem, to_line, to_list_line
from nanosft.errors import DataError
from nanosft.mix.reading import parse
from nanosft.mix.reading.parse import Row, parse_row
from nanosft.mix.recipe import Source

PLAIN = [{"role": "user", "content": "a\n\u00e9"}, {"role": "assistant", "content": 'b"'}]
SOURCE = Source(name="here", uri=("x",))
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
messages = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system", "human"]), "content": texts}),
    max_size=5,
)
turns = st.lists(st.tuples(texts, texts), min_size=1, max_size=3).map(
    lambda pairs: [
        {"role": role, "content": text}
        for pair in pairs
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
)
metas = st.dictionaries(
    st.sampled_from(["cell", "row", "source", "x"]), st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), texts)
)


def take_long_way(line: bytes, *, as_list: bool) -> tuple[bytes, str]:
    conversation = parse_line(line, where="x")
    if problem := role_problem(conversation.messages):
        raise DataError(problem)
    conversation = conversation.with_meta(source="here")
    return (to_list_line if as_list else to_line)(conversation), conversation.id


def take_both_ways(line: bytes, *, as_list: bool) -> Row | None:
    """The row, where the long way gives the same; None where both refuse the line."""
    try:
        expected = take_long_way(line, as_list=as_list)
    except DataError:
        with pytest.raises(DataError):
            parse_row(line, SOURCE, where="x", as_list=as_list)
        return None
    row = parse_row(line, SOURCE, where="x", as_list=as_list)
    assert (row.line, row.digest.hex()) == expected
    return row


ids = st.sampled_from(["none", "own", "wrong", 7, None])


@given(st.one_of(turns, messages), st.one_of(st.none(), st.integers(0, 1), metas), ids, st.booleans(), st.booleans())
def test_the_short_way_and_the_long_way_agree(value: Any, meta: Any, given_id: Any, with_keys: Any, as_list: Any):
    fields = {"messages": value, "meta": meta}
    if given_id != "none":
        sha256 = hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()
        fields["id"] = {"own": sha256, "wrong": "0" * 64}.get(given_id, given_id)
    row = take_both_ways(orjson.dumps(fields if with_keys else value), as_list=as_list)
    if row is None:
        return
    assert row.num_turns == row.to_conversation().num_turns
    assert row.to_conversation().meta["source"] == "here"
    assert row.meta == orjson.dumps(dict(row.to_conversation().meta), option=orjson.OPT_SORT_KEYS)


@given(st.binary(max_size=3), st.integers(0, 200))
def test_what_is_no_json_is_refused_by_the_short_way_too(damage: bytes, place: int):
    line = orjson.dumps({"messages": PLAIN, "meta": {"x": "\u00e9"}})
    line = line[: place % len(line)] + damage + line[place % len(line) :]
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        with pytest.raises(DataError, match=r"f\.jsonl:line 3: not JSON"):
            parse_row(line, SOURCE, where="f.jsonl:line 3", as_list=False)


def test_plain_lines_take_the_short_way(monkeypatch):
    monkeypatch.setattr(parse, "parse_conversation", lambda *_, **__: pytest.fail("took the long way"))
    plain = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "a"},
        {"content": "b", "role": "assistant"},
    ]
    for value in (plain, {"messages": plain}, {"messages": plain, "meta": {"cell": "t"}}):
        assert parse_row(orjson.dumps(value), SOURCE, where="x", as_list=False).num_turns == 1


def test_a_canonical_line_comes_out_as_it_went_in_but_for_its_source():
    line = to_line(parse_line(b'[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]', where="x"))
    out = orjson.loads(parse_row(line, SOURCE, where="x", as_list=False).line)
    assert {**out, "meta": {}} == orjson.loads(line)
    assert out["meta"] == {"source": "here"}


def test_a_line_whose_id_is_not_its_hash_is_refused():
    line = b'{"id":"%b","messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}],"meta":{}}'
    with pytest.raises(DataError, match="is not the hash"):
        parse_row(line % (b"0" * 64), SOURCE, where="f:line 3", as_list=False)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'{"messages"', b'{"messages":1,"messages"'),
        (b'"a', rb'"\ud800'),
        (b'"a', rb'"\udc00\udc00'),
        (b'"a', b'"\x01'),
        (b'"a', b'"\x00'),
        (b'"a', b'"\xed\xa0\x80'),
        (b'"a', rb'"\ud83d\ude00'),
        (b'"meta":{', b'"meta":{"n":123456789012345678901234567890,'),
        (b'"meta":{', b'"meta":{"n":1e999,'),
        (b'"meta":{', b'"meta":{"x":1,"x":2,'),
    ],
)
def test_the_short_way_reads_odd_json_as_the_long_one_does(old: bytes, new: bytes):
    line = b'{"messages":%b,"meta":{"k":"v"}}' % orjson.dumps(PLAIN)
    assert old in line
    take_both_ways(line.replace(old, new, 1), as_list=False)


def test_a_rows_own_key_is_not_taken_for_its_messages():
    source = Source(name="here", uri=("x",), fields={"content": "text"})
    line = b'{"messages":[{"role":"user","text":"hi"},{"role":"assistant","text":"yes?"}],"text":"hi, yes?"}'
    assert parse_row(line, source, where="x", as_list=False).to_conversation().meta["text"] == "hi, yes?"


def test_fields_and_roles_are_mapped():
    source = Source(
        name="here",
        uri=("x",),
        fields={"messages": "dialog", "role": "speaker", "content": "text"},
        roles={"customer": "user", "agent": "assistant"},
    )
    line = b'{"dialog":[{"speaker":"customer","text":"hi"},{"speaker":"agent","text":"yes?"}],"shop":4}'
    conversation = parse_row(line, source, where="x", as_list=False).to_conversation()
    assert [(m.role, m.text) for m in conversation.messages] == [("user", "hi"), ("assistant", "yes?")]
    assert conversation.meta["shop"] == 4


def test_alpaca_columns_are_mapped():
    source = Source(name="here", uri=("x",), format="alpaca", fields={"instruction": "q", "output": "a"})
    row = parse_row(b'{"q":"two and two?","a":"four"}', source, where="x", as_list=False)
    assert row.texts == ["two and two?", "four"]
