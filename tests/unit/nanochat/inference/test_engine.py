"""The cache changes nothing: greedy tokens are those of whole forward passes, in every generation."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from nanosft.errors import ConfigError
from nanosft.nanochat import GENERATIONS, GPT, Checkpoint, Engine, ToolUse, calculate, load_checkpoint
from tests.unit.nanochat.conftest import GOLDEN, make_model


class _Never:
    """A tokenizer whose stop tokens never come."""

    assistant_end_id = bos_id = -1


def make_engine(model: GPT, *, stop: int = -1, context_len: int | None = None) -> Engine:
    tokenizer: Any = _Never()
    if stop >= 0:
        tokenizer.assistant_end_id = stop
    return Engine(model, tokenizer, context_len=context_len)


def greedy_without_cache(model: GPT, ids: Sequence[int], num_tokens: int) -> list[int]:
    ids = list(ids)
    with torch.inference_mode():
        for _ in range(num_tokens):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[-num_tokens:]


@pytest.mark.parametrize("name", GENERATIONS)
def test_greedy_tokens_are_those_of_a_forward_without_cache(name: str) -> None:
    model = make_model(name)  # windows of 6 and 12 tokens: the answer leaves both behind
    engine = make_engine(model, context_len=64)
    for prompt in ([5], list(range(3, 33))):
        found = list(engine.generate(prompt, max_tokens=30, temperature=0.0))
        assert found == greedy_without_cache(model, prompt, 30)


@pytest.mark.parametrize("name", ["g1", "g3", "g5"])
def test_greedy_tokens_of_golden_models(
    name: str, load_golden: Callable[[str], tuple[Checkpoint, dict[str, Any]]]
) -> None:
    checkpoint, computed = load_golden(name)
    prompt = computed["ids"][0, :150].tolist()  # the short window is 128
    engine = make_engine(checkpoint.model)
    found = list(engine.generate(prompt, max_tokens=24, temperature=0.0))
    assert found == greedy_without_cache(checkpoint.model, prompt, 24)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_batch_gives_what_each_prompt_gives_alone(temperature: float) -> None:
    engine = make_engine(make_model("g5"), stop=7, context_len=60)
    prompts = [[1, 2, 3], list(range(40, 80))[:30], [9], list(range(20, 33))]
    seeds = [3, 4, 5, 6]
    alone = [
        list(engine.generate(prompt, max_tokens=35, temperature=temperature, seed=seed))
        for prompt, seed in zip(prompts, seeds, strict=True)
    ]
    batch = engine.generate_batch(prompts, max_tokens=35, temperature=temperature, seeds=seeds)
    assert batch == alone
    assert len({len(answer) for answer in alone}) > 1, "all answers end together: dropping rows is not tested"
    assert engine.generate_batch([], max_tokens=3) == []


def test_sampling_depends_on_its_seed_and_stays_among_the_likeliest() -> None:
    model = make_model("g4")
    engine = make_engine(model, context_len=64)
    first, again, other = (
        list(engine.generate([1, 2], max_tokens=20, temperature=2.0, top_k=3, seed=seed)) for seed in (1, 1, 2)
    )
    assert first == again != other
    ids = [1, 2, *first]
    with torch.inference_mode():
        logits = model(torch.tensor([ids]))[0]
    for index, token in enumerate(first):
        assert token in logits[index + 1].topk(3).indices
    assert list(engine.generate([1, 2], max_tokens=9, temperature=1.0, top_k=1)) == list(
        engine.generate([1, 2], max_tokens=9, temperature=0.0)
    )


def test_generation_stops_at_the_end_of_the_turn_and_at_max_tokens() -> None:
    model = make_model("g3")
    tokens = greedy_without_cache(model, [1, 2, 3], 12)
    stop = tokens[5]
    found = list(make_engine(model, stop=stop, context_len=99).generate([1, 2, 3], max_tokens=12, temperature=0.0))
    assert found == tokens[: tokens.index(stop)]
    assert list(make_engine(model, context_len=99).generate([1, 2, 3], max_tokens=4, temperature=0.0)) == tokens[:4]


def test_generation_never_leaves_the_context() -> None:
    engine = make_engine(make_model("g5"))
    assert engine.context_len == 12
    assert len(list(engine.generate([1] * 8, max_tokens=50))) == 4
    with pytest.raises(ConfigError, match="12 tokens long and the context 12"):
        list(engine.generate([1] * 12, max_tokens=1))


@pytest.mark.parametrize(
    ("ids", "options", "match"),
    [
        ([], {"max_tokens": 5}, "no tokens"),
        ([1], {"max_tokens": 0}, "max_tokens 0"),
        ([1], {"max_tokens": 5, "temperature": -1.0}, "temperature -1.0"),
        ([1], {"max_tokens": 5, "top_k": 0}, "top_k 0"),
    ],
)
def test_impossible_requests_are_refused(ids: list[int], options: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        list(make_engine(make_model("g1")).generate(ids, **options))


def test_the_real_base_knows_english_and_answers_from_its_cache(shared: Path) -> None:
    checkpoint = load_checkpoint(str(shared / "nanochat_base"))
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    text = "This option is used to set the name of the file. If the file does not exist, an error is returned."
    ids = [tokenizer.bos_id, *tokenizer.encode(text)]
    with torch.inference_mode():
        losses = F.cross_entropy(model(torch.tensor([ids[:-1]]))[0], torch.tensor(ids[1:]), reduction="sum")
    bits_per_byte = losses.item() / math.log(2) / len(text)
    assert bits_per_byte < checkpoint.meta["val_bpb"] < 2
    found = list(Engine(model, tokenizer).generate(ids[:9], max_tokens=40, temperature=0.0))
    assert found == greedy_without_cache(model, ids[:9], 40)[: len(found)]


@pytest.mark.parametrize("stop", ["<|assistant_end|>", "<|bos|>"])
def test_the_end_of_a_turn_ends_the_answer_and_is_not_part_of_it(stop: str) -> None:
    checkpoint = load_checkpoint(str(GOLDEN / "g5"))
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    prompt = tokenizer.encode("Hello there")
    engine = Engine(model, tokenizer)
    assert len(list(engine.generate(prompt, max_tokens=3, temperature=0.0))) == 3
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.weight[tokenizer.special(stop)] = model.hidden(torch.tensor([prompt]))[0, -1]
    assert list(engine.generate(prompt, max_tokens=3, temperature=0.0)) == []


def test_a_tools_output_is_forced_after_the_call_and_counts_as_answer(
    load_golden: Callable[[str], tuple[Checkpoint, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As nanochat's engine does it: the same tokens, within the same limit; without a value the model just goes on."""
    checkpoint, _ = load_golden("g5")
    tokenizer = checkpoint.tokenizer
    end, stop = tokenizer.python_end_id, tokenizer.assistant_end_id
    calls = [[tokenizer.python_start_id, *tokenizer.encode(text), end] for text in ("1,000*7", "2**3")]
    scripts = [[*call, *tokenizer.encode(" ok"), stop] for call in calls]
    engine = Engine(checkpoint.model, tokenizer)

    def answer(max_tokens: int) -> list[list[int]]:
        written = [iter(script) for script in scripts]
        monkeypatch.setattr(
            "nanosft.nanochat.inference.batching.choose", lambda _, rows, __: [next(written[row.seed]) for row in rows]
        )
        return engine.generate_batch(
            [[tokenizer.bos_id]] * 2,
            max_tokens=max_tokens,
            temperature=0.0,
            seeds=[0, 1],
            make_tool=partial(ToolUse, tokenizer, calculate),
        )

    output = [tokenizer.output_start_id, *tokenizer.encode("7000"), tokenizer.output_end_id]
    ok = tokenizer.encode(" ok")
    assert answer(60) == [[*calls[0], *output, *ok], [*calls[1], *ok]]
    assert answer(len(calls[0]) + 1)[0] == [*calls[0], output[0]]
