"""What models make of prompts and texts: answers in batches of like length, and scores of given tokens.

Texts are packed side by side as documents of one row, so nothing is computed for padding.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nanosft.conversation import Message
from nanosft.nanochat import GPT, Checkpoint, Documents, Engine
from nanosft.progress import Bar

_PROMPTS_AT_ONCE: Final = 256
"""Prompts between two steps of the progress bar; the engine decides how many run side by side."""
_PASS_TOKENS: Final = 8192
_LOGIT_TOKENS: Final = 1024
"""Positions whose logits exist at a time."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said.

    Attributes:
        text: Without the token that ends the turn; special tokens inside it are spelled out.
        num_tokens: Of the text.
        ended: Whether the model ended its turn within the limit.
        leaks: Special tokens inside the text, which no answer needs: markers of other turns, calls of a tool.
    """

    text: str
    num_tokens: int
    ended: bool
    leaks: tuple[str, ...] = ()

    @property
    def whole_words(self) -> str:
        """The text without the word that the limit may have cut: "made by Andre" claims nobody."""
        return self.text if self.ended else self.text.rstrip().rpartition(" ")[0]


def answer_all(
    checkpoint: Checkpoint,
    prompts: Sequence[Sequence[Message]],
    *,
    max_tokens: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    seed: int = 0,
    label: str = "answer",
) -> list[Answer]:
    """One answer a prompt, in the order of the prompts; computed in batches of like length.

    Args:
        checkpoint: The model and its tokenizer.
        prompts: Messages, the last of which is the user's; the oldest turns go where the context is too short.
        max_tokens: Of an answer.
        temperature: 0: always the likeliest token.
        top_k: Sample among this many.
        seed: Of the sampling, for each prompt the same.
        label: What the progress bar says.

    Raises:
        ConfigError: A message alone leaves no room for an answer in the context.
    """
    tokenizer, context_len = checkpoint.tokenizer, checkpoint.context_len
    room = max(context_len - max_tokens, context_len // 2)
    ids = [tokenizer.render_prompt(messages, max_len=room) for messages in prompts]
    engine = Engine(checkpoint.model, tokenizer, context_len=context_len)
    order = sorted(range(len(ids)), key=lambda place: (len(ids[place]), place))
    answers: dict[int, Answer] = {}
    with Bar(label, len(ids)) as bar:
        for start in range(0, len(order), _PROMPTS_AT_ONCE):
            places = order[start : start + _PROMPTS_AT_ONCE]
            found = engine.generate_batch(
                [ids[place] for place in places],
                max_tokens=max_tokens,
                temperature=temperature,
                top_k=top_k,
                seeds=[seed] * len(places),
            )
            for place, tokens in zip(places, found, strict=True):
                limit = min(max_tokens, context_len - len(ids[place]))
                answers[place] = read_answer(checkpoint, tokens, ended=len(tokens) < limit)
            bar.advance(len(places))
    return [answers[place] for place in range(len(ids))]


def read_answer(checkpoint: Checkpoint, tokens: Sequence[int], *, ended: bool) -> Answer:
    """The answer that some tokens are."""
    encoding = checkpoint.tokenizer.encoding
    special = {encoding.encode_single_token(name): name for name in encoding.special_tokens_set}
    leaks = tuple(special[token] for token in tokens if token in special)
    return Answer(checkpoint.tokenizer.decode(tokens), len(tokens), ended, leaks)


@dataclass(frozen=True, slots=True)
class TokenScores:
    """What a model says of a text's tokens but the first.

    Attributes:
        losses: (T - 1,) float64, in nats.
        likeliest: (T - 1,) int64: the token that it would have put there.
    """

    losses: npt.NDArray[np.float64]
    likeliest: npt.NDArray[np.int64]


def score_texts(model: GPT, texts: Sequence[Sequence[int]], *, label: str = "score") -> list[TokenScores]:
    """The loss of each token of each text, and the likeliest in its place; each text sees itself alone.

    Args:
        model: Any generation.
        texts: Ids, two at least, of a length that the model can take.
        label: What the progress bar says.
    """
    scores: list[TokenScores] = []
    with torch.inference_mode(), Bar(label, len(texts)) as bar:
        for batch in _batches(texts):
            hidden = _hidden(model, [text[:-1] for text in batch])
            targets = torch.tensor([token for text in batch for token in text[1:]], device=model.device)
            parts = [
                _score_chunk(model, hidden[start : start + _LOGIT_TOKENS], targets[start : start + _LOGIT_TOKENS])
                for start in range(0, len(targets), _LOGIT_TOKENS)
            ]
            losses, likeliest = (np.concatenate([part[place] for part in parts]) for place in range(2))
            borders = np.cumsum([len(text) - 1 for text in batch])[:-1]
            pairs = zip(np.split(losses, borders), np.split(likeliest, borders), strict=True)
            scores += [TokenScores(*pair) for pair in pairs]
            bar.advance(len(batch))
    return scores


def next_logits(model: GPT, prompts: Sequence[Sequence[int]], wanted: Sequence[Sequence[int]]) -> list[list[float]]:
    """Logits of some tokens right after each prompt.

    Args:
        model: Any generation.
        prompts: Ids, one at least.
        wanted: For each prompt, the tokens whose logits are returned.
    """
    found: list[list[float]] = []
    with torch.inference_mode():
        for batch in _batches(prompts):
            hidden = _hidden(model, batch)
            last = torch.tensor([len(prompt) for prompt in batch], device=model.device).cumsum(0) - 1
            logits = model.logits(hidden[last])
            for row in logits:
                found.append(row[torch.tensor(wanted[len(found)], device=row.device)].tolist())
    return found


def _hidden(model: GPT, texts: Sequence[Sequence[int]]) -> Tensor:
    """The last stream of packed texts: (sum of their lengths, C)."""
    ids = torch.tensor([[token for text in texts for token in text]], device=model.device)
    return model.hidden(ids, documents=Documents.from_lengths([len(text) for text in texts], model.device))[0]


def _score_chunk(model: GPT, hidden: Tensor, targets: Tensor) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    logits = model.logits(hidden)
    losses = logits.logsumexp(-1) - logits.gather(1, targets[:, None]).squeeze(1)
    return losses.double().cpu().numpy(), logits.argmax(-1).cpu().numpy()


def _batches(texts: Sequence[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
    """Texts in order, as many at a time as a pass takes."""
    batch: list[Sequence[int]] = []
    num_tokens = 0
    for text in texts:
        if batch and num_tokens + len(text) > _PASS_TOKENS:
            yield batch
            batch, num_tokens = [], 0
        batch.append(text)
        num_tokens += len(text)
    if batch:
        yield batch
