"""What training does not compute: padding, logits of unsupervised positions; and how long a plan takes.

python -m tests.bench packing
"""

import multiprocessing
import resource
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from nanosft.conversation import Conversation, Message, to_list_line
from nanosft.data import list_data_objects, read_conversations
from nanosft.nanochat import load_checkpoint
from nanosft.store import open_store
from nanosft.train.batch import MicroBatch, build_micro_batch
from nanosft.train.data.plan import plan_steps
from nanosft.train.data.tokens import Line, TokenSet, read_lines, read_tokens, tokenize, write_tokens
from nanosft.train.step import LossModule

ROW_LEN: Final = 2048
ROWS_PER_STEP: Final = 8
SHARED: Final = Path(__file__).parents[3] / "shared"


def run(console: Console, *, quick: bool) -> None:
    """Print padding, the head's memory, and what a plan takes."""
    pickle = (SHARED / "nanochat_base/tokenizer/tokenizer.pkl").read_bytes()
    _print_padding(console, pickle)
    _print_head_memory(console)
    _print_plan(console, pickle, num=5_000 if quick else 500_000)


class _PlainLoss(LossModule):
    """The logits of every position at once, and torch's own cross-entropy: what the chunked head is compared with."""

    def forward(self, batch: MicroBatch) -> torch.Tensor:
        logits = self.model(batch.ids, documents=batch.documents).flatten(0, 1)
        targets = torch.full((len(logits),), -1)
        targets[batch.supervised] = batch.labels
        return torch.nn.functional.cross_entropy(logits, targets, ignore_index=-1, reduction="sum")


def _tokenize(name: str, pickle: bytes, capacity: int = ROW_LEN + 1) -> TokenSet:
    lines = read_lines(list_data_objects(str(SHARED / f"data/{name}.jsonl")))
    return tokenize(lines, pickle, capacity=capacity, overlong="turns", num_workers=1)


def _print_padding(console: Console, pickle: bytes) -> None:
    table = Table(title=f"Tokens computed for nothing, rows of {ROW_LEN}")
    for name in ("data", "nanochat's greedy rows", "our rows (--attention row)", "isolated conversations"):
        table.add_column(name, justify="right")
    for name, theirs in (("identity_a", "9.0 %"), ("identity_b", "1.4 %")):
        plan = plan_steps(
            _tokenize(name, pickle),
            capacity=ROW_LEN + 1,
            rows_per_step=ROWS_PER_STEP,
            epochs=1,
            max_steps=None,
            seed=0,
            window=16_384,
        )
        table.add_row(name, theirs, f"{plan.padding:.1%}", "0.0 %")
    console.print(table)


def _print_head_memory(console: Console) -> None:
    """Peak memory of one forward and backward pass over 8 rows, each way in a process of its own."""
    peaks = {}
    for plain in (False, True):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            peaks[plain] = pool.submit(_measure_peak, plain=plain).result()
    console.print(
        f"peak memory of a pass over 8 rows, float32: {peaks[False]:.2f} GiB with logits in chunks, "
        f"{peaks[True]:.2f} GiB with all at once ({peaks[True] / peaks[False]:.2f} x)"
    )


def _measure_peak(*, plain: bool) -> float:
    """GiB at the most, in this process."""
    base = load_checkpoint(str(SHARED / "nanochat_base"))
    tokens = _tokenize("identity_a", (SHARED / "nanochat_base/tokenizer/tokenizer.pkl").read_bytes())
    plan = plan_steps(
        tokens, capacity=ROW_LEN + 1, rows_per_step=ROWS_PER_STEP, epochs=1, max_steps=None, seed=0, window=16_384
    )
    rows = plan.step_rows(0)
    batch = build_micro_batch(
        tokens,
        [plan.rows.row(row) for row in rows],
        row_len=ROW_LEN,
        attention="document",
        pad_id=base.tokenizer.bos_id,
        row_numbers=rows,
    )
    module = _PlainLoss(base.model) if plain else LossModule(base.model)
    module(batch).backward()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _print_plan(console: Console, pickle: bytes, *, num: int) -> None:
    """Time from lines to a plan, with a cold and with a warm cache of tokens."""
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(folder)
        start_s = time.perf_counter()
        tokens = tokenize(_vary(num), pickle, capacity=ROW_LEN + 1, overlong="turns", num_workers=2)
        write_tokens(store, "plan.tokens", tokens)
        cold_s = time.perf_counter() - start_s
        start_s = time.perf_counter()
        tokens = read_tokens(store, "plan.tokens")
        warm_s = time.perf_counter() - start_s
        start_s = time.perf_counter()
        plan = plan_steps(
            tokens, capacity=ROW_LEN + 1, rows_per_step=256, epochs=1, max_steps=None, seed=0, window=16_384
        )
        plan_s = time.perf_counter() - start_s
    console.print(
        f"{num:,} conversations, {len(tokens.mask):,} tokens: tokenised and cached in {cold_s:.1f} s, "
        f"read back in {warm_s:.1f} s; {plan.num_steps:,} steps packed in {plan_s:.1f} s, "
        f"{plan.padding:.2%} of the rows free"
    )


def _vary(num: int) -> Iterator[Line]:
    """identity_a again and again, with a number put in so that no two are equal."""
    originals = list(read_conversations(str(SHARED / "data/identity_a.jsonl")))
    order = np.arange(num) % len(originals)
    for number, index in enumerate(order.tolist()):
        first, *rest = originals[index].messages
        changed = Conversation((Message("user", f"{number}: {first.text}"), *rest))
        yield f"made:line {number + 1}", to_list_line(changed)
