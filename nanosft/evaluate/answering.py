"""What models make of prompts and texts: answers in batches of like length, and scores of given tokens.

Texts are packed side by side as documents of one row, so nothing is computed for padding. Ranks share the work by
blocks, which are the same however many ranks there are: no product has another shape for it, so no bit differs.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nanosft.conversation import Message
from nanosft.distributed import ALONE, World
from nanosft.nanochat import GPT, Checkpoint, Documents, Engine, Sampling, ToolUse, calculate
from nanosft.progress import Bar

GREEDY: Final = Sampling(temperature=0.0)
"""Always the likeliest token."""

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

_BLOCK_PROMPTS: Final = 64
"""Prompts of like length that are answered side by side: as many as the engine runs at a time."""
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
    sampling: Sampling = GREEDY,
    label: str = "answer",
    as_nanochat: bool = False,
    world: World = ALONE,
) -> list[Answer]:
    """One answer a prompt, in the order of the prompts; computed in batches of like length.

    Args:
        checkpoint: The model and its tokenizer.
        prompts: Messages, the last of which is the user's; the oldest turns go where the context is too short.
        max_tokens: Of an answer.
        sampling: Temperature, top_k and the seed, which is each prompt's.
        label: What the progress bar says.
        as_nanochat: As nanochat evaluates tasks: python tags get its calculator's output, nothing is dropped, and an
            answer may pass the context that the model was trained with.
        world: The ranks that share the prompts.

    Raises:
        ConfigError: A message alone leaves no room for an answer in the context.
    """
    tokenizer, context_len = checkpoint.tokenizer, checkpoint.context_len
    room = None if as_nanochat else max(context_len - max_tokens, context_len // 2)
    ids = [tokenizer.render_prompt(messages, max_len=room) for messages in prompts]
    if as_nanochat:
        context_len = max(map(len, ids), default=0) + max_tokens
    engine = Engine(checkpoint.model, tokenizer, context_len=context_len)

    def answer_block(places: Sequence[int]) -> list[Answer]:
        found = engine.generate_batch(
            [ids[place] for place in places],
            max_tokens=max_tokens,
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            seeds=[sampling.seed] * len(places),
            make_tool=partial(ToolUse, tokenizer, calculate) if as_nanochat else None,
        )
        limits = [min(max_tokens, context_len - len(ids[place])) for place in places]
        return [
            read_answer(checkpoint, tokens, ended=len(tokens) < limit)
            for tokens, limit in zip(found, limits, strict=True)
        ]

    order = sorted(range(len(ids)), key=lambda place: (len(ids[place]), place))
    blocks = [order[start : start + _BLOCK_PROMPTS] for start in range(0, len(order), _BLOCK_PROMPTS)]
    answers = dict(zip(order, _share(blocks, answer_block, label, world), strict=True))
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


def score_texts(
    model: GPT, texts: Sequence[Sequence[int]], *, label: str = "score", world: World = ALONE
) -> list[TokenScores]:
    """The loss of each token of each text, and the likeliest in its place; each text sees itself alone.

    Args:
        model: Any generation.
        texts: Ids, two at least, of a length that the model can take.
        label: What the progress bar says.
        world: The ranks that share the texts.
    """

    def score_block(batch: Sequence[Sequence[int]]) -> list[TokenScores]:
        hidden = _hidden(model, [text[:-1] for text in batch])
        targets = torch.tensor([token for text in batch for token in text[1:]], device=model.device)
        parts = [
            _score_chunk(model, hidden[start : start + _LOGIT_TOKENS], targets[start : start + _LOGIT_TOKENS])
            for start in range(0, len(targets), _LOGIT_TOKENS)
        ]
        losses, likeliest = (np.concatenate([part[place] for part in parts]) for place in range(2))
        borders = np.cumsum([len(text) - 1 for text in batch])[:-1]
        pairs = zip(np.split(losses, borders), np.split(likeliest, borders), strict=True)
        return [TokenScores(*pair) for pair in pairs]

    return _share(list(_batches(texts)), score_block, label, world)


def next_logits(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    wanted: Sequence[Sequence[int]],
    *,
    label: str = "choose",
    world: World = ALONE,
) -> list[list[float]]:
    """Logits of some tokens right after each prompt.

    Args:
        model: Any generation.
        prompts: Ids, one at least.
        wanted: For each prompt, the tokens whose logits are returned.
        label: What the progress bar says.
        world: The ranks that share the prompts.
    """

    def score_block(batch: Sequence[int]) -> list[list[float]]:
        hidden = _hidden(model, [prompts[place] for place in batch])
        last = torch.tensor([len(prompts[place]) for place in batch], device=model.device).cumsum(0) - 1
        logits = model.logits(hidden[last]).cpu()
        return [row[list(wanted[place])].tolist() for row, place in zip(logits, batch, strict=True)]

    places = iter(range(len(prompts)))
    blocks = [[next(places) for _ in batch] for batch in _batches(prompts)]
    return _share(blocks, score_block, label, world)


def _share(
    blocks: Sequence[Sequence[ItemT]],
    work: Callable[[Sequence[ItemT]], list[ResultT]],
    label: str,
    world: World,
) -> list[ResultT]:
    """What `work` makes of each block, one after another; the ranks take turns at them, and all have all of it."""

    def do_own() -> list[list[ResultT]]:
        own = blocks[world.rank :: world.size]
        found = []
        with torch.inference_mode(), Bar(label, sum(map(len, own)), quiet=not world.is_first) as bar:
            for block in own:
                world.stop_if_told()
                found.append(work(block))
                bar.advance(len(block))
        return found

    shares = world.gather(world.run_on_all_ranks(do_own))
    return [result for num in range(len(blocks)) for result in shares[num % world.size][num // world.size]]


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
