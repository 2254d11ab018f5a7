"""Inference with a cache of keys and values, one prompt or several at once.

    engine = Engine(checkpoint.model, checkpoint.tokenizer, context_len=checkpoint.context_len)
    ids = checkpoint.tokenizer.render_prompt(messages)
    for token in engine.generate(ids, max_tokens=256, temperature=0.0):
        ...

A prompt is computed in one pass over packed documents, then one token a step; both run the model's own blocks, so a
cached step computes what a whole forward pass would.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from torch import Tensor

from nanosft.errors import ConfigError
from nanosft.nanochat.attention import Documents, PackedRows
from nanosft.nanochat.model import GPT
from nanosft.nanochat.tokenizer import Tokenizer


class Engine:
    """Writes tokens after a prompt, until the assistant's turn ends.

    Args:
        model: Any generation; its compute dtype decides the cache's.
        tokenizer: Names the tokens that end a turn.
        context_len: Prompt and answer together have at most this many tokens; None: the model's `sequence_len`. A
            model finetuned on longer rows takes those (`Checkpoint.context_len`).
    """

    def __init__(self, model: GPT, tokenizer: Tokenizer, *, context_len: int | None = None) -> None:
        self.model = model
        self._stop = frozenset({tokenizer.assistant_end_id, tokenizer.bos_id})
        self.context_len = context_len or model.config.sequence_len

    def generate(
        self, ids: Sequence[int], *, max_tokens: int, temperature: float = 1.0, top_k: int | None = None, seed: int = 0
    ) -> Iterator[int]:
        """Tokens as they come; the one that ends the turn is not among them.

        Args:
            ids: The prompt, at least one token.
            max_tokens: At most this many; fewer where `context_len` is reached.
            temperature: 0: always the likeliest token.
            top_k: Sample among this many of the likeliest; None: among all.
            seed: Equal seeds give equal answers, alone or in a batch.

        Raises:
            ConfigError: The prompt is empty, or leaves no room within `context_len`.
        """
        for tokens in self._step([ids], max_tokens=max_tokens, temperature=temperature, top_k=top_k, seeds=[seed]):
            yield tokens[0]

    def generate_batch(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_tokens: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        seeds: Sequence[int] | None = None,
    ) -> list[list[int]]:
        """One answer a prompt, computed side by side; each is what `generate` gives for its seed (default 0).

        Raises:
            ConfigError: As `generate`.
        """
        answers: list[list[int]] = [[] for _ in prompts]
        if not prompts:
            return answers
        steps = self._step(
            prompts,
            max_tokens=max_tokens,
            temperature=temperature,
            top_k=top_k,
            seeds=seeds or [0] * len(prompts),
        )
        for tokens in steps:
            for row, token in tokens.items():
                answers[row].append(token)
        return answers

    def _step(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_tokens: int,
        temperature: float,
        top_k: int | None,
        seeds: Sequence[int],
    ) -> Iterator[dict[int, int]]:
        """One token for each prompt that is not finished, step by step, by the prompt's number."""
        self._check(prompts, max_tokens, temperature, top_k)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        capacity = min(max(map(len, prompts)) + max_tokens, self.context_len)
        cache = _Cache(self.model, len(prompts), capacity)
        rows = list(range(len(prompts)))  # the prompt that each row of the cache belongs to
        logits = self._prefill(prompts, cache)
        for count in range(1, max_tokens + 1):
            chosen = {
                row: _choose(logits[index], temperature, top_k, generators[row]) for index, row in enumerate(rows)
            }
            tokens = {row: token for row, token in chosen.items() if token not in self._stop}
            if tokens:
                yield tokens
            kept = [
                index
                for index, row in enumerate(rows)
                if row in tokens and count < max_tokens and len(prompts[row]) + count < self.context_len
            ]
            if not kept:
                return
            if len(kept) < len(rows):
                rows = [rows[index] for index in kept]
                cache.keep(kept)
            logits = self._decode([chosen[row] for row in rows], cache)

    def _check(self, prompts: Sequence[Sequence[int]], max_tokens: int, temperature: float, top_k: int | None) -> None:
        if max_tokens < 1 or temperature < 0 or (top_k is not None and top_k < 1):
            raise ConfigError(
                f"max_tokens {max_tokens}, temperature {temperature}, top_k {top_k}: "
                "at least one token, a temperature of 0 or more, and a top_k of 1 or more are needed"
            )
        for prompt in prompts:
            if not prompt:
                raise ConfigError("the prompt has no tokens: begin with <|bos|>")
            if len(prompt) >= self.context_len:
                raise ConfigError(
                    f"the prompt is {len(prompt)} tokens long and the context {self.context_len}: shorten it"
                )

    def _prefill(self, prompts: Sequence[Sequence[int]], cache: "_Cache") -> Tensor:
        """Logits after each prompt: (num_prompts, vocab_size)."""
        with torch.inference_mode():
            device = self.model.device
            ids = torch.tensor([token for prompt in prompts for token in prompt], device=device)
            layout = _Prefill(Documents.from_lengths([len(prompt) for prompt in prompts], device), ids.shape[0], cache)
            return self.model.logits(self.model.run(ids, layout)[layout.last])

    def _decode(self, tokens: Sequence[int], cache: "_Cache") -> Tensor:
        """Logits after one more token a row: (num_rows, vocab_size)."""
        with torch.inference_mode():
            logits = self.model.logits(self.model.run(torch.tensor(tokens, device=self.model.device), _Decode(cache)))
        cache.lengths = [length + 1 for length in cache.lengths]
        return logits


class _Cache:
    """Keys and values of every layer, and the last embedding of every row, which the next one is smeared with.

    Attributes:
        keys: One a layer, (num_rows, H_kv, capacity, D).
        values: As keys.
        previous: (num_rows, C).
        lengths: Tokens held, row by row.
    """

    def __init__(self, model: GPT, num_rows: int, capacity: int) -> None:
        config = model.config
        shape = (num_rows, config.n_kv_head, capacity, config.head_dim)
        self.keys, self.values = (
            [torch.zeros(shape, dtype=model.compute_dtype, device=model.device) for _ in range(config.n_layer)]
            for _ in range(2)
        )
        self.previous = torch.zeros(num_rows, config.n_embd, dtype=model.compute_dtype, device=model.device)
        self.lengths = [0] * num_rows

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all other rows."""
        index = torch.tensor(rows, device=self.previous.device)
        self.keys = [keys[index] for keys in self.keys]
        self.values = [values[index] for values in self.values]
        self.previous = self.previous[index]
        self.lengths = [self.lengths[row] for row in rows]


class _Prefill(PackedRows):
    """Prompts packed as documents, their keys and values kept."""

    def __init__(self, documents: Documents, num_tokens: int, cache: _Cache) -> None:
        super().__init__((1, num_tokens), documents, documents.cu_seqlens.device)
        self._cache = cache
        self._lengths = list(documents.lengths)
        cache.lengths = list(self._lengths)
        self.last = documents.cu_seqlens[1:].to(torch.int64) - 1
        """(num_prompts,): where each prompt ends."""

    def take_previous(self, x: Tensor) -> Tensor:
        """See `Layout`; the last of each prompt is kept for the first step."""
        self._cache.previous = x[self.last]
        return super().take_previous(x)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, *, window: int | None, scale: float) -> Tensor:
        """See `Layout`."""
        for kept, new in ((self._cache.keys[layer], k), (self._cache.values[layer], v)):
            for row, part in enumerate(torch.split(new, self._lengths)):
                kept[row, :, : part.shape[0]] = part.transpose(0, 1)
        return super().attend(layer, q, k, v, window=window, scale=scale)


class _Decode:
    """One new token a row, which sees the row's cache."""

    def __init__(self, cache: _Cache) -> None:
        self._cache = cache
        self.positions = torch.tensor(cache.lengths, device=cache.previous.device)
        self.max_position = max(cache.lengths)
        self._rows = torch.arange(len(cache.lengths), device=cache.previous.device)

    def take_previous(self, x: Tensor) -> Tensor:
        """See `Layout`."""
        previous, self._cache.previous = self._cache.previous, x
        return previous

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, *, window: int | None, scale: float) -> Tensor:
        """See `Layout`. q (num_rows, H, D): one token a row."""
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        keys[self._rows, :, self.positions] = k
        values[self._rows, :, self.positions] = v
        first = 0 if window is None else max(0, min(self._cache.lengths) - window)
        seen = slice(first, self.max_position + 1)
        distance = self.positions[:, None] - torch.arange(first, self.max_position + 1, device=q.device)
        mask = distance >= 0 if window is None else (distance >= 0) & (distance <= window)
        out = F.scaled_dot_product_attention(
            q[:, :, None],
            keys[:, :, seen],
            values[:, :, seen],
            attn_mask=mask[:, None, None],
            scale=scale,
            enable_gqa=q.shape[1] != k.shape[1],
        )
        return out[:, :, 0]


def _choose(logits: Tensor, temperature: float, top_k: int | None, generator: torch.Generator) -> int:
    """One token of logits (vocab_size,); sampled on the CPU, so that a seed means the same on every device."""
    if temperature == 0:
        return int(logits.argmax())
    logits = logits.cpu() / temperature
    if top_k is not None and top_k < logits.shape[0]:
        values, candidates = logits.topk(top_k)
        return int(candidates[torch.multinomial(values.softmax(-1), 1, generator=generator)])
    return int(torch.multinomial(logits.softmax(-1), 1, generator=generator))
