"""What is drawn follows the distribution that was asked for, whatever stands in the rows beside it."""

import pytest
import torch

from nanosft.errors import ConfigError
from nanosft.nanochat.inference.sampling import Sampling, choose, penalize, read_logprobs

LOGITS = torch.tensor([0.5, 2.0, -1.0, 1.0, 0.0]).log_softmax(-1)
NUM_DRAWS = 4000


def draw(sampling: Sampling) -> torch.Tensor:
    """How often each token is drawn, as shares."""
    tokens = choose(LOGITS.expand(NUM_DRAWS, -1), [sampling] * NUM_DRAWS, range(NUM_DRAWS))
    return torch.bincount(torch.tensor(tokens), minlength=5) / NUM_DRAWS


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_shares_are_the_probabilities_at_a_temperature(temperature: float) -> None:
    assert torch.allclose(draw(Sampling(temperature)), (LOGITS / temperature).softmax(-1), atol=0.03)


def test_top_k_leaves_the_likeliest_in_their_proportions() -> None:
    kept = LOGITS.softmax(-1) * torch.tensor([0, 1, 0, 1, 0])
    assert torch.allclose(draw(Sampling(top_k=2)), kept / kept.sum(), atol=0.03)


def test_top_p_leaves_the_fewest_that_hold_so_much() -> None:
    probabilities = LOGITS.softmax(-1)  # 0.55, 0.20, 0.12 are the three likeliest
    kept = probabilities * torch.tensor([0, 1, 0, 1, 0])
    assert torch.allclose(draw(Sampling(top_p=0.6)), kept / kept.sum(), atol=0.03)
    assert draw(Sampling(top_p=1e-9)).tolist() == [0, 1, 0, 0, 0]


@pytest.mark.parametrize("sampling", [Sampling(0.0), Sampling(top_k=1), Sampling(1e-300)])
def test_no_temperature_and_one_candidate_take_the_likeliest(sampling: Sampling) -> None:
    assert draw(sampling).tolist() == [0, 1, 0, 0, 0]


def test_rows_do_not_depend_on_one_another() -> None:
    rows = [Sampling(1.0, seed=1), Sampling(0.0), Sampling(1.0, top_k=2, seed=1), Sampling(1.0, top_p=0.7, seed=9)]
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    together = choose(logits, rows, [3, 4, 5, 6])
    alone = [choose(logits[i : i + 1], [row], [3 + i])[0] for i, row in enumerate(rows)]
    assert together == alone


def test_seeds_and_places_give_numbers_of_their_own() -> None:
    logits = torch.zeros(1, 2**16)
    drawn = {choose(logits, [Sampling(seed=seed)], [count])[0] for seed in range(30) for count in range(30)}
    assert len(drawn) > 850  # of 900, by the birthday rule six meet


def test_a_penalty_makes_what_was_seen_less_likely() -> None:
    logits = torch.tensor([2.0, -2.0, 2.0, -2.0])
    penalize(logits, torch.tensor([True, True, False, False]), 2.0)
    assert logits.tolist() == [1.0, -4.0, 2.0, -2.0]


def test_log_probabilities_of_tokens_and_of_the_likeliest() -> None:
    (entry,) = read_logprobs(LOGITS[None], [2], 2)
    assert entry.token == 2
    assert entry.logprob == pytest.approx(float(LOGITS[2]))
    assert [token for token, _ in entry.top] == [1, 3]
    assert read_logprobs(LOGITS[None], [2], 0)[0].top == []


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"temperature": float("nan")}, "temperature nan"),
        ({"temperature": float("inf")}, "temperature inf"),
        ({"top_p": 0.0}, "top_p 0.0"),
        ({"top_p": 1.1}, r"top_p 1\.1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty 0.0"),
    ],
)
def test_impossible_values_are_refused(options: dict[str, float], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        Sampling(**options)  # type: ignore[arg-type]  # not all fields are floats
