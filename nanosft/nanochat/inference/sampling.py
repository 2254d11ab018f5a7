"""Which token comes next: one choice a row of logits, over all rows of a batch at once.

A choice is a function of the row's logits, its `Sampling` and the number of tokens chosen before, so it does not depend
on the rows beside it or on the device: the uniform number is a hash of seed and count, and the cumulative sum is taken
on the CPU in float64.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from nanosft.errors import ConfigError
from nanosft.splitmix import GOLDEN, mix64

_LEAST_TEMPERATURE: Final = 1e-5


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen. Applied in this order: repetition penalty, temperature, top_k, top_p.

    Attributes:
        temperature: 0: always the likeliest token.
        top_k: Sample among this many of the likeliest; None: among all.
        top_p: Sample among the fewest of the likeliest that hold this much of the probability.
        repetition_penalty: Logits of tokens seen in prompt or answer are divided by it where positive and multiplied
            where negative (Keskar et al., arXiv 1909.05858); 1: none.
        seed: Equal seeds give equal answers.
        num_logprobs: Tell the log-probability of each token and of this many of the likeliest, by the model's own
            distribution, before any of the above; None: tell none.

    Raises:
        ConfigError: A value is out of bounds.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 0
    num_logprobs: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ConfigError(f"temperature {self.temperature}: 0 or more is needed")
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"top_k {self.top_k}: 1 or more is needed")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p {self.top_p}: more than 0 and at most 1 is needed")
        if not 0 < self.repetition_penalty < math.inf:
            raise ConfigError(f"repetition_penalty {self.repetition_penalty}: more than 0 is needed")


class TokenLogprob(NamedTuple):
    """A token's natural log-probability, and the likeliest tokens at its place with theirs, the likeliest first."""

    token: int
    logprob: float
    top: list[tuple[int, float]]


def choose(logits: Tensor, rows: Sequence[Sampling], counts: Sequence[int]) -> list[int]:
    """One token a row.

    Args:
        logits: (num_rows, vocab_size) float32, penalties applied.
        rows: How each row is sampled.
        counts: How many tokens were chosen before, row by row.
    """
    chosen = logits.argmax(-1).tolist()
    sampled = [index for index, row in enumerate(rows) if row.temperature > 0]
    if not sampled:
        return list(chosen)
    uniforms = _uniform([rows[index].seed for index in sampled], [counts[index] for index in sampled])
    for narrowed in (False, True):
        places = [i for i, index in enumerate(sampled) if _is_narrowed(rows[index], logits.shape[1]) == narrowed]
        if places:
            indices = [sampled[place] for place in places]
            picked = logits[indices] if len(indices) < len(rows) else logits
            tokens = _sample(picked, [rows[index] for index in indices], uniforms[places], narrowed=narrowed)
            for index, token in zip(indices, tokens, strict=True):
                chosen[index] = token
    return list(chosen)


def penalize(logits: Tensor, seen: Tensor, penalty: float) -> None:
    """Apply a repetition penalty to one row in place. logits (vocab_size,), seen (vocab_size,) bool."""
    logits.copy_(torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits))


def read_logprobs(logits: Tensor, tokens: Sequence[int], num_top: int) -> list[TokenLogprob]:
    """Log-probabilities of tokens. logits (N, vocab_size) -> N entries, with `num_top` of the likeliest each."""
    logprobs = logits.log_softmax(-1)
    own = logprobs.gather(1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0].tolist()
    values, ids = logprobs.topk(min(num_top, logits.shape[1]))
    return [
        TokenLogprob(token, logprob, list(zip(top_ids, top_values, strict=True)))
        for token, logprob, top_ids, top_values in zip(tokens, own, ids.tolist(), values.tolist(), strict=True)
    ]


def _is_narrowed(row: Sampling, vocab_size: int) -> bool:
    return row.top_p < 1 or (row.top_k is not None and row.top_k < vocab_size)


def _sample(logits: Tensor, rows: Sequence[Sampling], uniforms: Tensor, *, narrowed: bool) -> list[int]:
    """By inverse transform: the first token at which the cumulative probability exceeds the uniform number."""
    vocab_size = logits.shape[1]
    candidates: Tensor | None = None
    if narrowed:
        widths = [min(row.top_k or vocab_size, vocab_size) for row in rows]
        logits, candidates = logits.topk(max(widths))
        candidates = candidates.cpu()
    temperatures = torch.tensor([max(row.temperature, _LEAST_TEMPERATURE) for row in rows])
    logits = logits.cpu() / temperatures[:, None]
    if candidates is not None:
        logits.masked_fill_(torch.arange(logits.shape[1]) >= torch.tensor(widths)[:, None], -torch.inf)
    probabilities = logits.softmax(-1)
    if candidates is not None:
        before = probabilities.cumsum(-1, dtype=torch.float64) - probabilities
        top_p = torch.tensor([row.top_p for row in rows], dtype=torch.float64)
        probabilities = probabilities.masked_fill((before >= top_p[:, None]) & (before > 0), 0.0)
    cumulative = probabilities.cumsum(-1, dtype=torch.float64)
    thresholds = uniforms[:, None] * cumulative[:, -1:]
    places = torch.searchsorted(cumulative, thresholds, right=True).clamp_(max=logits.shape[1] - 1)
    return list((places if candidates is None else candidates.gather(1, places))[:, 0].tolist())


def _uniform(seeds: Sequence[int], counts: Sequence[int]) -> Tensor:
    """A number of [0, 1) for each pair of seed and count: (N,) float64."""
    state = mix64(np.array([seed % 2**64 for seed in seeds], np.uint64) + GOLDEN)
    bits = mix64(state + np.array(counts, np.uint64) * GOLDEN + GOLDEN)
    return torch.from_numpy((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53)
