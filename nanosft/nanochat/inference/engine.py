"""Inference with a cache of keys and values, one prompt or several at once.

    engine = Engine(checkpoint.model, checkpoint.tokenizer, context_len=checkpoint.context_len)
    ids = checkpoint.tokenizer.render_prompt(messages)
    for token in engine.generate(ids, max_tokens=256, temperature=0.0):
        ...

What requests share a batch, join and leave it, is `batching`; the cache is `cache`, the choice of a token `sampling`,
its text `text_stream`. All run the model's own blocks, so a cached step computes what a whole forward pass would.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Final

from nanosft.errors import ConfigError
from nanosft.nanochat.inference.batching import Batch, Request, Row
from nanosft.nanochat.inference.sampling import Sampling
from nanosft.nanochat.inference.tools import ToolUse
from nanosft.nanochat.model import GPT
from nanosft.nanochat.tokenizer import Tokenizer

_MAX_ROWS: Final = 64
_PREFILL_TOKENS: Final = 2048


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
        self.stop_ids = frozenset({tokenizer.assistant_end_id, tokenizer.bos_id})
        self.context_len = context_len or model.config.sequence_len

    def open_batch(self, *, prefill_tokens: int = _PREFILL_TOKENS) -> Batch:
        """An empty batch, which requests join and leave."""
        return Batch(self.model, stop_ids=self.stop_ids, context_len=self.context_len, prefill_tokens=prefill_tokens)

    def generate(
        self,
        ids: Sequence[int],
        *,
        max_tokens: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        repetition_penalty: float = 1.0,
        seed: int = 0,
    ) -> Iterator[int]:
        """Tokens as they come; the one that ends the turn is not among them.

        Args:
            ids: The prompt, at least one token.
            max_tokens: At most this many; fewer where `context_len` is reached.
            temperature: See `Sampling`, as for all that follow.
            top_k: Sample among this many of the likeliest; None: among all.
            top_p: Sample among the fewest of the likeliest that hold this much of the probability.
            repetition_penalty: More than 1 makes tokens that were there less likely.
            seed: Equal seeds give equal answers, alone or in a batch.

        Raises:
            ConfigError: The prompt is empty, or leaves no room within `context_len`.
        """
        sampling = Sampling(temperature, top_k, top_p, repetition_penalty, seed)
        batch = self.open_batch()
        batch.add(_request(ids, max_tokens, sampling))
        while batch.rows:
            for written in batch.step():
                if written.token is not None:
                    yield written.token

    def generate_batch(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_tokens: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        seeds: Sequence[int] | None = None,
        make_tool: Callable[[], ToolUse] | None = None,
    ) -> list[list[int]]:
        """One answer a prompt, computed side by side; each is what `generate` gives for its seed (default 0).

        Of many prompts, 64 run at a time: where one's answer ends, the next one joins.

        Args:
            prompts: Ids, each one token at least.
            max_tokens: As of `generate`, as the two that follow.
            temperature: See there.
            top_k: See there.
            seeds: One a prompt.
            make_tool: Makes what answers the python tags of one answer; its output counts as part of the answer.

        Raises:
            ConfigError: As `generate`.
        """
        batch = self.open_batch()
        requests = [
            _request(ids, max_tokens, Sampling(temperature, top_k, seed=seed))
            for ids, seed in zip(prompts, seeds or [0] * len(prompts), strict=True)
        ]
        for request in requests:
            batch.check(request)
        waiting = iter(requests)
        rows: list[Row] = []
        tools: dict[Row, ToolUse] = {}
        while True:
            for request in islice(waiting, _MAX_ROWS - len(batch.rows)):
                rows.append(batch.add(request))
                if make_tool is not None:
                    tools[rows[-1]] = make_tool()
            if not batch.rows:
                return [row.tokens[len(row.request.ids) :] for row in rows]
            for row, token, _ in batch.step():
                if row in tools and token is not None and row.finish_reason is None:
                    batch.force(row, tools[row].read(token))


def _request(ids: Sequence[int], max_tokens: int, sampling: Sampling) -> Request:
    if max_tokens < 1:
        raise ConfigError(f"max_tokens {max_tokens}: at least one token is needed")
    return Request(ids, max_tokens, sampling)
