import numpy as np
import pytest

from nanosft.data import list_data_objects
from nanosft.errors import DataError
from nanosft.nanochat import load_tokenizer
from nanosft.store import open_store
from nanosft.train.data.tokens import cache_key, hash_objects, read_lines, read_tokens, tokenize, write_tokens
from tests.unit.train.make import GOLDEN, talk, tokenizer_pickle, tokens_of

LONG = "word " * 60


def lines_of(*lines):
    return [(f"test:line {number}", line) for number, line in enumerate(lines, 1)]


def test_an_overlong_conversation_keeps_the_leading_turns_that_fit():
    tokenizer = load_tokenizer(str(GOLDEN / "g5"))
    tokens = tokens_of(talk("Hi", "Hello.", LONG, LONG, "Bye", "See you."), talk("Hi", "Hello."), capacity=100)
    ids, mask = tokens.conversation(0)
    assert ids.tolist() == tokens.conversation(1)[0].tolist()
    assert ids[-1] == tokenizer.assistant_end_id
    assert mask[-1] == 1
    assert {key: tokens.counts[key] for key in ("num_shortened", "num_dropped", "num_turns_cut")} == {
        "num_shortened": 1,
        "num_dropped": 0,
        "num_turns_cut": 2,
    }


def test_a_conversation_whose_first_turn_does_not_fit_is_dropped_and_counted():
    tokens = tokens_of(talk(LONG, "Yes."), talk("Hi", "Hello."), capacity=50)
    assert len(tokens) == 1
    assert tokens.counts["num_dropped"] == 1
    assert tokens.counts["num_conversations"] == 2


def test_overlong_may_be_dropped_or_refused():
    lines = lines_of(talk("Hi", "Hello."), talk("Hi", "Hello.", LONG, LONG))
    pickle = tokenizer_pickle()
    assert len(tokenize(lines, pickle, capacity=100, overlong="drop", num_workers=1)) == 1
    with pytest.raises(DataError, match=r"test:line 2: \d+ tokens, a row holds 100"):
        tokenize(lines, pickle, capacity=100, overlong="error", num_workers=1)


def test_roles_out_of_order_are_named_by_their_line():
    with pytest.raises(DataError, match="test:line 1"):
        tokens_of(talk("Hi"))


def test_processes_give_what_one_does():
    lines = lines_of(*(talk(f"Number {number}?", "It is " * (number % 7)) for number in range(2100)))
    one, two = (tokenize(lines, tokenizer_pickle(), capacity=64, overlong="turns", num_workers=num) for num in (1, 2))
    assert np.array_equal(one.ids, two.ids)
    assert np.array_equal(one.names, two.names)
    assert one.counts == two.counts


def test_sources_of_the_mixture_are_kept():
    tokens = tokens_of(talk("a", "b", source="zoo"), talk("a", "b"), talk("a", "c", source="ark"))
    assert tokens.source_names == ("ark", "data", "zoo")
    assert tokens.sources.tolist() == [2, 1, 0]


def test_tokens_come_back_from_the_store_as_they_were_put(tmp_path):
    tokens = tokens_of(talk("Hi", "Hello."), talk("Who?", "Me."))
    store = open_store(str(tmp_path))
    write_tokens(store, "plan/x.tokens", tokens)
    back = read_tokens(store, "plan/x.tokens")
    for name in ("ids", "mask", "offsets", "sources", "supervised", "names"):
        assert np.array_equal(getattr(tokens, name), getattr(back, name)), name
    assert back.supervised.tolist() == [int(tokens.conversation(index)[1].sum()) for index in range(2)]
    assert (back.counts, back.source_names) == (dict(tokens.counts), tokens.source_names)


def test_a_cut_off_cache_object_is_refused(tmp_path):
    store = open_store(str(tmp_path))
    write_tokens(store, "x", tokens_of(talk("Hi", "Hello.")))
    for size, message in ((100, "not the tokens of a plan"), (-64, "ends early")):
        store.write("y", store.read("x")[:size])
        with pytest.raises(DataError, match=message):
            read_tokens(store, "y")


def test_the_cache_key_follows_data_tokenizer_and_settings(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(talk("Hi", "Hello."))
    first = hash_objects(list_data_objects(str(path)))
    path.write_bytes(talk("Hi", "Hallo."))
    second = hash_objects(list_data_objects(str(path)))
    pickle = tokenizer_pickle()
    keys = {
        cache_key(first, pickle, capacity=64, overlong="turns"),
        cache_key(second, pickle, capacity=64, overlong="turns"),
        cache_key(first, pickle + b" ", capacity=64, overlong="turns"),
        cache_key(first, pickle, capacity=65, overlong="turns"),
        cache_key(first, pickle, capacity=64, overlong="drop"),
    }
    assert len(keys) == 5


def test_lines_know_where_they_stand(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(talk("Hi", "Hello.") * 2)
    wheres = [where for where, _ in read_lines(list_data_objects(str(tmp_path / "a.jsonl")))]
    assert [where.rpartition(":")[2] for where in wheres] == ["line 1", "line 2"]
