"""Validation loss and bits per byte, in all and by source, shared out over the ranks; and sampled answers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from nanosft.conversation import Message
from nanosft.nanochat.engine import Engine
from nanosft.nanochat.model import GPT
from nanosft.nanochat.tokenizer import Tokenizer
from nanosft.train.batch import AttentionScope, build_micro_batch
from nanosft.train.data.packing import PackedRows
from nanosft.train.data.plan import split_rows
from nanosft.train.data.tokens import TokenSet
from nanosft.train.distributed import World
from nanosft.train.step import LossModule


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
        tokens: Conversations.
        rows: Their packed rows.
        token_bytes: (vocab_size,) int64 UTF-8 bytes of each token, 0 for special ones.
        row_len: Tokens that the model sees of a row.
        attention: As in training.
        pad_id: Fills rows.
        device_rows: Rows of a forward pass.
        fixed_shape: As in training.
    """

    tokens: TokenSet
    rows: PackedRows
    token_bytes: npt.NDArray[np.int64]
    row_len: int
    attention: AttentionScope
    pad_id: int
    device_rows: int
    fixed_shape: bool = False


@torch.no_grad()
def evaluate(module: LossModule, data: ValidationSet, world: World) -> dict[str, Score]:
    """Scores by source, and of all under the empty name.

    Every rank returns the same. The numbers depend on the number of ranks by rounding alone.
    """
    num_sources = len(data.tokens.source_names)
    sums = np.zeros((4, num_sources))  # loss, loss over text, bytes, tokens
    shares = split_rows(range(len(data.rows)), rank=world.rank, world_size=world.size, device_rows=data.device_rows)
    for rows in shares:
        if not len(rows):
            continue
        batch = build_micro_batch(
            data.tokens,
            [data.rows.row(row) for row in rows],
            row_len=data.row_len,
            attention=data.attention,
            pad_id=data.pad_id,
            fixed_shape=data.fixed_shape,
        )
        losses = module.token_losses(batch.to(world.device)).double().cpu().numpy()
        num_bytes = data.token_bytes[batch.labels.numpy()]
        sources = data.tokens.sources[batch.items]
        columns = (losses, losses * (num_bytes > 0), num_bytes, np.ones_like(losses))
        sums += [np.bincount(sources, weights=column, minlength=num_sources) for column in columns]
    totals = world.sum(torch.from_numpy(sums)).numpy()
    scores = {"": _score(totals.sum(axis=1))}
    return scores | {name: _score(totals[:, index]) for index, name in enumerate(data.tokens.source_names)}


def render_prompts(tokenizer: Tokenizer, prompts: Sequence[str], *, context_len: int) -> list[list[int]]:
    """Ids of each prompt, up to where the answer begins.

    Raises:
        ConfigError: One leaves no room for an answer.
    """
    return [tokenizer.render_prompt([Message("user", text)], max_len=context_len - 1) for text in prompts]


@torch.no_grad()
def sample_answers(
    model: nn.Module, tokenizer: Tokenizer, prompts: Sequence[Sequence[int]], *, max_tokens: int, world: World
) -> list[str]:
    """The model's likeliest answer to each of the rendered prompts, shared out over the ranks; on every rank."""
    assert isinstance(model, GPT)
    engine = Engine(model, tokenizer)
    own: dict[int, str] = {}
    for index in range(world.rank, len(prompts), world.size):
        answer = engine.generate(prompts[index], max_tokens=max_tokens, temperature=0.0, top_k=None, seed=0)
        own[index] = tokenizer.decode([token for token in answer if token != tokenizer.assistant_end_id])
    answers: Mapping[int, str] = {index: text for found in world.gather(own) for index, text in found.items()}
    return [answers[index] for index in range(len(prompts))]


def _score(sums: npt.NDArray[np.float64]) -> Score:
    loss, text_loss, num_bytes, num_tokens = sums.tolist()
    bpb = text_loss / (math.log(2) * num_bytes) if num_bytes else math.nan
    return Score(loss / num_tokens if num_tokens else math.nan, bpb, round(num_tokens))
