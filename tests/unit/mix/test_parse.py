from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanosft.conversation import parse_line, role_problem, to_line, to_list_line
from nanosft.errors import DataError
from nanosft.mix import parse
from nanosft.mix.parse import parse_row
from nanosft.mix.recipe import Source

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


@given(st.one_of(turns, messages), st.one_of(st.none(), metas), st.booleans(), st.booleans())
def test_the_short_way_and_the_long_way_agree(value: Any, meta: Any, with_keys: Any, as_list: Any):
    line = orjson.dumps({"messages": value, "meta": meta} if with_keys else value)
    try:
        expected = take_long_way(line, as_list=as_list)
    except DataError:
        with pytest.raises(DataError):
            parse_row(line, SOURCE, where="x", as_list=as_list)
        return
    row = parse_row(line, SOURCE, where="x", as_list=as_list)
    assert (row.line, row.digest.hex()) == expected
    assert row.num_turns == row.to_conversation().num_turns
    assert row.to_conversation().meta["source"] == "here"


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
