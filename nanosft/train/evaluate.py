"""Validation loss and bits per byte, in all and by source, shared out over the ranks; and sampled answers."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from nanosft.conversation import Message
from nanosft.distributed import World
from nanosft.nanochat.checkpoint import Checkpoint
from nanosft.nanochat.inference.engine import Engine
from nanosft.nanochat.layout import find_tokenizer, token_bytes_key
from nanosft.nanochat.model import GPT
from nanosft.nanochat.tensors import read_torch
from nanosft.nanochat.tokenizer import Tokenizer
from nanosft.store import open_store
from nanosft.train.batch import BatchBuilder
from nanosft.train.data import split_rows
from nanosft.train.step import LossModule

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Score:
    """Validation of one source, or of all.

    Attributes:
        loss: Mean over supervised tokens, in nats.
        bpb: Bits per byte: over supervised tokens that stand for text (special tokens count nothing).
        num_supervised: Supervised tokens.
    """

    loss: float
    bpb: float
    num_supervised: int


@dataclass(frozen=True, slots=True)
class ValidationSet:
    """What is evaluated, and how; the same at every evaluation.

    Attributes:
        builder: Makes micro-batches of all its packed rows, as in training.
        token_bytes: (vocab_size,) int64 UTF-8 bytes of each token, 0 for special ones.
        device_rows: Most rows of a forward pass.
    """

    builder: BatchBuilder
    token_bytes: npt.NDArray[np.int64]
    device_rows: int


def load_token_bytes(base: Checkpoint) -> npt.NDArray[np.int64]:
    """The bytes of each token, from the base's tokenizer: (vocab_size,).

    nanochat keeps a table of them, `token_bytes.pt`, which older files have wrong for tokens that are no UTF-8 by
    themselves. It is compared with, and the log tells of a difference; its own bits per byte differ by as much.
    """
    sizes = np.array(base.tokenizer.token_bytes(), np.int64)
    store = open_store(base.tokenizer_uri)
    key = token_bytes_key(find_tokenizer(store))
    if not store.exists(key):
        return sizes
    where = store.uri_of(key)
    table = read_torch(store, key)
    if not isinstance(table, torch.Tensor) or table.shape != sizes.shape:
        _log.warning("%s: not a table of the lengths of %d tokens: not used", where, len(sizes))
    elif num_other := int((table.numpy() != sizes).sum()):
        _log.warning(
            "%s: says other lengths than the tokenizer for %d of %d tokens: not used", where, num_other, len(sizes)
        )
    return sizes


@torch.no_grad()
def evaluate(module: LossModule, data: ValidationSet, world: World) -> dict[str, Score]:
    """Scores by source, and of all under the empty name.

    Every rank returns the same. The numbers depend on the number of ranks by rounding alone.

    Raises:
        Interrupted: A signal came to any rank; all look after each micro-batch.
    """
    tokens = data.builder.tokens
    num_sources = len(tokens.source_names)
    sums = np.zeros((4, num_sources))  # loss, loss over text, bytes, tokens

    def add(rows: range) -> None:
        nonlocal sums
        world.stop_if_told()
        if not len(rows):
            return
        batch = data.builder.build(rows)
        losses = module.token_losses(batch.to(world.device)).cpu().double().numpy()
        num_bytes = data.token_bytes[batch.labels.numpy()]
        sources = tokens.sources[batch.items]
        columns = (losses, losses * (num_bytes > 0), num_bytes, np.ones_like(losses))
        sums += [np.bincount(sources, weights=column, minlength=num_sources) for column in columns]

    shares = split_rows(
        range(len(data.builder.rows)), rank=world.rank, world_size=world.size, device_rows=data.device_rows
    )
    for rows in shares:
        world.run_on_all_ranks(partial(add, rows))
    totals = world.sum(torch.from_numpy(sums)).numpy()
    scores = {"": _score(totals.sum(axis=1))}
    return scores | {name: _score(totals[:, index]) for index, name in enumerate(tokens.source_names)}


@dataclass(frozen=True, slots=True)
class Prompts:
    """What the model answers at each evaluation.

    Attributes:
        texts: The prompts.
        ids: Each one's tokens, up to where the answer begins.
        tokenizer: Decodes the answers.
        max_tokens: Length of the longest answer.
    """

    texts: Sequence[str]
    ids: Sequence[Sequence[int]]
    tokenizer: Tokenizer
    max_tokens: int


def render_prompts(tokenizer: Tokenizer, texts: Sequence[str], *, max_tokens: int, context_len: int) -> Prompts:
    """The prompts as tokens; none where answers have no tokens.

    Raises:
        ConfigError: One leaves no room for an answer.
    """
    texts = texts if max_tokens else ()
    ids = [tokenizer.render_prompt([Message("user", text)], max_len=context_len - 1) for text in texts]
    return Prompts(texts, ids, tokenizer, max_tokens)


@torch.no_grad()
def sample_answers(model: GPT, prompts: Prompts, world: World) -> dict[str, str]:
    """The model's likeliest answer to each prompt, shared out over the ranks; the same on every rank.

    Raises:
        Interrupted: A signal came to any rank; it looks after each token, the others after each answer.
    """
    engine = Engine(model, prompts.tokenizer)
    end_id = prompts.tokenizer.assistant_end_id
    own: dict[str, str] = {}

    def answer(index: int) -> None:
        tokens = []
        if index < len(prompts.ids):
            ids = prompts.ids[index]
            for token in engine.generate(ids, max_tokens=prompts.max_tokens, temperature=0.0, top_k=None, seed=0):
                world.stop_if_told()
                tokens.append(token)
            own[prompts.texts[index]] = prompts.tokenizer.decode([token for token in tokens if token != end_id])

    for first in range(0, len(prompts.ids), world.size):
        world.run_on_all_ranks(partial(answer, first + world.rank))
    answers = {text: answer for found in world.gather(own) for text, answer in found.items()}
    return {text: answers[text] for text in prompts.texts}


def _score(sums: npt.NDArray[np.float64]) -> Score:
    loss, text_loss, num_bytes, num_tokens = sums.tolist()
    bpb = text_loss / (math.log(2) * num_bytes) if num_bytes else math.nan
    return Score(loss / num_tokens if num_tokens else math.nan, bpb, round(num_tokens))
