"""A batch that requests join and leave at every step.

    batch = Batch(model, stop_ids={tokenizer.assistant_end_id}, context_len=checkpoint.context_len)
    row = batch.add(Request(ids, max_tokens=256))
    while batch.rows:
        for written in batch.step():
            ...

A step reads one token of every row that writes, and some tokens of prompts: at most `prefill_tokens` in all, so that a
long prompt does not hold up the others. Not safe for threads: one thread adds, removes and steps.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

import torch
from torch import Tensor

from nanosft.errors import ConfigError
from nanosft.nanochat.inference.cache import Cache, CachedStep, Span
from nanosft.nanochat.inference.sampling import Sampling, TokenLogprob, choose, penalize, read_logprobs
from nanosft.nanochat.model import GPT

FinishReason = Literal["stop", "length"]

PREFILL_TOKENS: Final = 256


@dataclass(frozen=True)
class Request:
    """What is to be written.

    Attributes:
        ids: The prompt, at least one token.
        max_tokens: At most this many; fewer where the context is full; 0: only read the prompt.
        sampling: How tokens are chosen.
        prompt_logprobs: Tell the log-probabilities of the prompt's own tokens too (`Row.prompt_logprobs`).
    """

    ids: Sequence[int]
    max_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    prompt_logprobs: bool = False


@dataclass(eq=False, slots=True)
class Row:
    """A request in a batch.

    Attributes:
        request: What was asked.
        tokens: The prompt and what was written so far.
        limit: `tokens` has at most this many.
        num_cached: How many of `tokens` the model has read.
        num_chosen: How many were sampled.
        finish_reason: Why it has left the batch: "stop" at the end of the turn, "length" at `limit`; None: it runs.
        prompt_logprobs: One for each token of the prompt but the first.
    """

    request: Request
    tokens: list[int]
    limit: int
    num_cached: int = 0
    num_chosen: int = 0
    finish_reason: FinishReason | None = None
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list)
    seen: Tensor | None = None

    @property
    def num_written(self) -> int:
        """Tokens after the prompt, forced ones included."""
        return len(self.tokens) - len(self.request.ids)


class Written(NamedTuple):
    """What a step did for one row.

    Attributes:
        row: The request.
        token: The new token; None: there is none, because the turn ended or the prompt alone was to be read.
        logprob: Where `num_logprobs` asked for it; of the token that ended the turn too.
    """

    row: Row
    token: int | None
    logprob: TokenLogprob | None


class Batch:
    """Requests that a model answers side by side; each gets the tokens that it would get alone.

    Args:
        model: Any generation; its compute dtype decides the cache's.
        stop_ids: Tokens that end a turn; they are not written.
        context_len: Prompt and answer together have at most this many tokens.
        prefill_tokens: At most this many tokens of prompts are read in a step.

    Attributes:
        rows: Those that run, by their number in the cache.
    """

    def __init__(
        self, model: GPT, *, stop_ids: Collection[int], context_len: int, prefill_tokens: int = PREFILL_TOKENS
    ) -> None:
        self.context_len = context_len
        self.rows: list[Row] = []
        self._model = model
        self._stop_ids = frozenset(stop_ids)
        self._prefill_tokens = prefill_tokens
        with torch.inference_mode():
            self._cache = Cache(model)

    def check(self, request: Request) -> None:
        """Refuse what cannot be answered.

        Raises:
            ConfigError: The prompt is empty or leaves no room in the context, or a token is none of the model's.
        """
        num_ids = len(request.ids)
        if request.max_tokens < 0:
            raise ConfigError(f"max_tokens {request.max_tokens}: 0 or more is needed")
        if not num_ids:
            raise ConfigError("the prompt has no tokens: begin with <|bos|>")
        if num_ids + (request.max_tokens > 0) > self.context_len:
            raise ConfigError(f"the prompt is {num_ids} tokens long and the context {self.context_len}: shorten it")
        if not 0 <= min(request.ids) <= max(request.ids) < self._model.config.vocab_size:
            raise ConfigError(f"the prompt holds a token that is none of the {self._model.config.vocab_size}")

    def add(self, request: Request) -> Row:
        """Let a request join at the next step.

        Raises:
            ConfigError: See `check`.
        """
        self.check(request)
        ids = list(request.ids)
        row = Row(request, ids, min(len(ids) + request.max_tokens, self.context_len))
        with torch.inference_mode():
            self._cache.reserve(len(self.rows) + 1, 0)
            self._cache.reset(len(self.rows))
            if request.sampling.repetition_penalty != 1:
                row.seen = torch.zeros(self._model.config.vocab_size, dtype=torch.bool, device=self._model.device)
                row.seen[ids] = True
        self.rows.append(row)
        return row

    def remove(self, row: Row) -> None:
        """Let a request leave; one that has left already is nothing to it."""
        if row not in self.rows:
            return
        index, last = self.rows.index(row), self.rows.pop()
        if last is not row:
            self.rows[index] = last
            with torch.inference_mode():
                self._cache.move(len(self.rows), index, last.num_cached)
        if not self.rows:
            self._cache.release()

    def force(self, row: Row, ids: Sequence[int]) -> list[int]:
        """Write tokens that the model did not choose, as far as there is room for them; returns those."""
        forced = list(ids[: row.limit - len(row.tokens)])
        row.tokens += forced
        if row.seen is not None:
            row.seen[forced] = True
        if len(row.tokens) >= row.limit:
            row.finish_reason = "length"
            self.remove(row)
        return forced

    def step(self) -> list[Written]:
        """One pass of the model: a token for every row whose prompt it has read by then.

        Rows that finish with it have left the batch.
        """
        if not self.rows:
            return []
        with torch.inference_mode():
            spans = self._plan()
            self._cache.reserve(len(self.rows), max(span.start + span.num_tokens for span in spans))
            hidden = self._run(spans)
            ready = self._read(spans, hidden)
            written = self._write(ready, hidden)
        for row in [written.row for written in written if written.row.finish_reason]:
            self.remove(row)
        return written

    def _plan(self) -> list[Span]:
        """What the step reads: rows with one token to read, then prompts while there is room."""
        spans: list[Span] = []
        chunks: list[Span] = []
        waiting: list[int] = []
        for index, row in enumerate(self.rows):
            if len(row.tokens) - row.num_cached == 1:
                spans.append(Span(index, row.num_cached, 1))
            else:
                waiting.append(index)
        room = self._prefill_tokens
        for index in waiting:
            row = self.rows[index]
            if room:
                count = min(room, len(row.tokens) - row.num_cached)
                (spans if count == 1 else chunks).append(Span(index, row.num_cached, count))
                room -= count
        return spans + chunks

    def _run(self, spans: Sequence[Span]) -> Tensor:
        ids = [token for index, start, count in spans for token in self.rows[index].tokens[start : start + count]]
        layout = CachedStep(self._cache, spans, len(self.rows))
        return self._model.run(torch.tensor(ids, device=self._model.device), layout)

    def _read(self, spans: Sequence[Span], hidden: Tensor) -> list[tuple[Row, int]]:
        """Note what was read; the rows that may write now, and where each one's last token stands in `hidden`."""
        ready = []
        offset = 0
        for index, start, count in spans:
            row = self.rows[index]
            row.num_cached += count
            num_prompt = len(row.request.ids)
            if row.request.prompt_logprobs and start < num_prompt:
                targets = row.tokens[start + 1 : min(start + count + 1, num_prompt)]
                if targets:
                    logits = self._model.logits(hidden[offset : offset + len(targets)])
                    row.prompt_logprobs += read_logprobs(logits, targets, row.request.sampling.num_logprobs or 0)
            offset += count
            if row.num_cached == len(row.tokens):
                ready.append((row, offset - 1))
        return ready

    def _write(self, ready: Sequence[tuple[Row, int]], hidden: Tensor) -> list[Written]:
        rows = [row for row, _ in ready if row.limit > len(row.request.ids)]
        written = []
        for row, _ in ready:
            if row.limit <= len(row.request.ids):
                row.finish_reason = "length"
                written.append(Written(row, None, None))
        if not rows:
            return written
        places = [place for row, place in ready if row.finish_reason is None]
        logits = self._model.logits(hidden if len(places) == len(hidden) else hidden[places])
        raw = logits
        if any(row.seen is not None for row in rows):
            logits = logits.clone()
            for index, row in enumerate(rows):
                if row.seen is not None:
                    penalize(logits[index], row.seen, row.request.sampling.repetition_penalty)
        tokens = choose(logits, [row.request.sampling for row in rows], [row.num_chosen for row in rows])
        logprobs = self._read_chosen(rows, tokens, raw)
        return written + [
            self._append(row, token, logprob) for row, token, logprob in zip(rows, tokens, logprobs, strict=True)
        ]

    def _read_chosen(self, rows: Sequence[Row], tokens: Sequence[int], logits: Tensor) -> list[TokenLogprob | None]:
        """The log-probability of each row's token, for the rows that asked."""
        wanted = [row.request.sampling.num_logprobs for row in rows]
        found: list[TokenLogprob | None] = [None] * len(rows)
        asking = [index for index, num_top in enumerate(wanted) if num_top is not None]
        if asking:
            num_top = max(num_top or 0 for num_top in wanted)
            entries = read_logprobs(logits[asking], [tokens[index] for index in asking], num_top)
            for index, entry in zip(asking, entries, strict=True):
                found[index] = entry._replace(top=entry.top[: wanted[index]])
        return found

    def _append(self, row: Row, token: int, logprob: TokenLogprob | None) -> Written:
        if token in self._stop_ids:
            row.finish_reason = "stop"
            return Written(row, None, logprob)
        row.tokens.append(token)
        row.num_chosen += 1
        if row.seen is not None:
            row.seen[token] = True
        if len(row.tokens) >= row.limit:
            row.finish_reason = "length"
        return Written(row, token, logprob)
