"""Whoever joins or leaves a batch, each request gets the tokens of whole forward passes over its own text alone."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from nanosft.errors import ConfigError
from nanosft.nanochat import GENERATIONS, GPT, Batch, ModelConfig, Request, Row, Sampling, Written
from tests.unit.nanochat.conftest import SMALL, make_model

NEVER = frozenset({-1})


def make_batch(
    model: GPT, *, stop_ids: frozenset[int] = NEVER, prefill_tokens: int = 5, context_len: int = 64
) -> Batch:
    return Batch(model, stop_ids=stop_ids, context_len=context_len, prefill_tokens=prefill_tokens)


def run(batch: Batch) -> list[Written]:
    written = []
    while batch.rows:
        written += batch.step()
    return written


def answer(row: Row) -> list[int]:
    return row.tokens[len(row.request.ids) :]


def greedy(ids: Sequence[int], max_tokens: int) -> Request:
    return Request(ids, max_tokens, Sampling(temperature=0.0))


def greedy_without_cache(model: GPT, ids: Sequence[int], num_tokens: int) -> list[int]:
    ids = list(ids)
    with torch.inference_mode():
        for _ in range(num_tokens):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(ids) - num_tokens :]


CONFIGS = [
    SMALL,  # two key heads for four query heads, windows of 6 and 12
    replace(SMALL, n_kv_head=4, window_pattern="L"),
    replace(SMALL, n_kv_head=1, window_pattern="S"),
    replace(SMALL, n_layer=1, window_pattern=None),
]


@pytest.mark.parametrize("config", CONFIGS, ids=["SSL-gqa2", "L-mha", "S-mqa", "one-layer"])
@pytest.mark.parametrize("name", GENERATIONS)
def test_requests_join_and_leave_at_every_step_without_a_trace(name: str, config: ModelConfig) -> None:
    model = make_model(name, config=config)
    batch = make_batch(model)
    prompts = [[5], list(range(3, 33)), [9, 8], list(range(40, 57)), [1], list(range(20, 31))]
    lengths = [14, 6, 20, 9, 3, 11]
    rows = []
    for prompt, length in zip(prompts, lengths, strict=True):
        rows.append(batch.add(greedy(prompt, length)))
        gone = batch.add(greedy([*prompt[::-1], 7], 40))
        batch.step()
        batch.step()
        batch.remove(gone)
    run(batch)
    for row, prompt, length in zip(rows, prompts, lengths, strict=True):
        assert answer(row) == greedy_without_cache(model, prompt, length)
        assert row.finish_reason == "length"


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(1.0, seed=3),
        Sampling(1.5, top_k=9, seed=3),
        Sampling(1.2, top_p=0.7, seed=4),
        Sampling(1.0, top_k=20, top_p=0.9, repetition_penalty=1.3, seed=5),
        Sampling(0.0, repetition_penalty=1.4),
    ],
)
def test_a_sampled_answer_is_the_same_alone_and_beside_others(sampling: Sampling) -> None:
    model = make_model("g5")
    alone = make_batch(model, prefill_tokens=99)
    row = alone.add(Request([4, 5, 6], 30, sampling))
    run(alone)
    crowd = make_batch(model)
    for seed in range(3):
        crowd.add(Request(list(range(10 + seed, 30)), 12, Sampling(2.0, top_k=3 + seed, seed=seed)))
    crowd.step()
    beside = crowd.add(Request([4, 5, 6], 30, sampling))
    run(crowd)
    assert answer(beside) == answer(row)
    assert len(answer(row)) == 30


def test_a_long_prompt_does_not_stop_the_others() -> None:
    batch = make_batch(make_model("g3"), prefill_tokens=4)
    short = batch.add(greedy([5], 12))
    long = batch.add(greedy(list(range(1, 41)), 2))
    for _ in range(10):
        assert next(written.row for written in batch.step() if written.token is not None) is short
    assert short.num_written == 10
    assert long.num_cached == 40


def test_the_end_of_a_turn_is_not_written_and_frees_its_place() -> None:
    model = make_model("g4")
    tokens = greedy_without_cache(model, [1, 2, 3], 12)
    batch = make_batch(model, stop_ids=frozenset({tokens[5]}))
    row = batch.add(greedy([1, 2, 3], 30))
    written = run(batch)
    assert answer(row) == tokens[: tokens.index(tokens[5])]
    assert row.finish_reason == "stop"
    assert written[-1] == Written(row, None, None)
    assert not batch.rows


def test_log_probabilities_are_the_models_own_for_prompt_and_answer() -> None:
    model = make_model("g5")
    batch = make_batch(model, prefill_tokens=3)
    prompt = [4, 9, 2, 7, 1, 30, 8, 11]
    request = Request(prompt, 6, Sampling(0.7, top_k=3, repetition_penalty=2.0, num_logprobs=2), prompt_logprobs=True)
    row = batch.add(request)
    batch.add(Request([3], 9, Sampling(num_logprobs=4)))
    written = [entry for entry in run(batch) if entry.row is row]
    with torch.inference_mode():
        expected = model(torch.tensor([row.tokens]))[0].log_softmax(-1)
    entries = [*row.prompt_logprobs, *(entry.logprob for entry in written)]
    assert len(entries) == len(row.tokens) - 1
    for place, entry in enumerate(entries):
        assert entry is not None
        assert entry.token == row.tokens[place + 1]
        assert entry.logprob == pytest.approx(float(expected[place, entry.token]), abs=1e-4)
        assert [token for token, _ in entry.top] == expected[place].topk(2).indices.tolist()


def test_a_prompt_may_be_read_alone_and_fill_the_context() -> None:
    batch = make_batch(make_model("g1"), context_len=12)
    row = batch.add(Request(list(range(1, 13)), 0, Sampling(num_logprobs=0), prompt_logprobs=True))
    assert [entry.token for entry in run(batch)] == [None]
    assert row.finish_reason == "length"
    assert len(row.prompt_logprobs) == 11
    with pytest.raises(ConfigError, match="12 tokens long and the context 12"):
        batch.add(greedy(list(range(12)), 1))
    with pytest.raises(ConfigError, match="none of the 90"):
        batch.add(greedy([90], 1))


def test_forced_tokens_are_read_as_if_the_model_had_written_them() -> None:
    model = make_model("g5")
    batch = make_batch(model)
    row = batch.add(greedy([5, 6], 12))
    batch.add(greedy([8], 9))
    batch.step()
    assert batch.force(row, [1, 2, 3, 4, 5, 6, 7]) == [1, 2, 3, 4, 5, 6, 7]
    run(batch)
    first = greedy_without_cache(model, [5, 6], 1)
    so_far = [5, 6, *first, 1, 2, 3, 4, 5, 6, 7]
    assert row.tokens == [*so_far, *greedy_without_cache(model, so_far, 4)]


def test_forced_tokens_end_where_there_is_no_room() -> None:
    batch = make_batch(make_model("g1"))
    row = batch.add(greedy([5], 4))
    batch.step()
    assert batch.force(row, list(range(9))) == [0, 1, 2]
    assert row.finish_reason == "length"
    assert not batch.rows


def test_a_batch_that_is_empty_holds_no_cache() -> None:
    batch = make_batch(make_model("g2"))
    for _ in range(3):
        batch.add(greedy([5], 4))
    run(batch)
    assert batch._cache.num_rows == batch._cache.keys[0].numel() == 0
    row = batch.add(greedy([5], 4))
    run(batch)
    assert answer(row) == greedy_without_cache(make_model("g2"), [5], 4)
