"""Training: supervised tokens a second on identity_a at 2,048 tokens a row, beside the plain ways; padding; the plan.

    python -m tests.bench train

The reference is nanochat on two cores: about 2,000 tokens/s of which 9 % were padding, in float32 and in bfloat16.
"""

import multiprocessing
import resource
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from nanosft.conversation import Conversation, Message, to_list_line
from nanosft.data import list_data_objects, read_conversations
from nanosft.nanochat import Checkpoint, estimate_flops_per_token, load_checkpoint
from nanosft.store import open_store
from nanosft.train.batch import AttentionScope, MicroBatch, build_micro_batch
from nanosft.train.data.plan import StepPlan, plan_steps
from nanosft.train.data.tokens import Line, TokenSet, read_lines, read_tokens, tokenize, write_tokens
from nanosft.train.metrics import measure_matmul_flops
from nanosft.train.optim.optimizer import MuonAdamW, OptimizerConfig, group_parameters
from nanosft.train.step import LossModule, train_step

ROW_LEN: Final = 2048
ROWS_PER_STEP: Final = 8
SHARED: Final = Path(__file__).parents[3] / "shared"
NANOCHAT_TOKENS_PER_S: Final = 2000.0
NANOCHAT_PADDING: Final = 0.09
_CPU: Final = torch.device("cpu")


@dataclass(frozen=True)
class Timing:
    """What some steps took."""

    supervised_per_s: float
    tokens_per_s: float
    gflops: float
    optimizer_share: float


def run(console: Console, *, quick: bool) -> None:
    """Print what training costs and how it compares."""
    pickle = (SHARED / "nanochat_base/tokenizer/tokenizer.pkl").read_bytes()
    tokens = _tokenize("identity_a", pickle)
    rows_per_step = 2 if quick else ROWS_PER_STEP
    plan = plan_steps(
        tokens, capacity=ROW_LEN + 1, rows_per_step=rows_per_step, epochs=1, max_steps=None, seed=0, window=16_384
    )
    _print_padding(console, pickle)
    supervised_share = float(tokens.supervised.sum() / tokens.lengths.sum())
    nanochat = NANOCHAT_TOKENS_PER_S * (1 - NANOCHAT_PADDING) * supervised_share
    table = Table(
        title=f"identity_a, {ROW_LEN} tokens a row, {rows_per_step} rows a step, {torch.get_num_threads()} threads"
    )
    for name in ("variant", "supervised/s", "tokens/s", "GFLOP/s", "of matrix peak", "optimizer", "x nanochat"):
        table.add_column(name, justify="left" if name == "variant" else "right")
    variants: list[tuple[str, torch.dtype, AttentionScope, bool]] = [
        ("float32", torch.float32, "document", False),
        ("float32, row attention", torch.float32, "row", False),
        ("float32, all logits at once", torch.float32, "document", True),
        ("bfloat16", torch.bfloat16, "document", False),
        ("bfloat16, row attention", torch.bfloat16, "row", False),
        ("bfloat16, all logits at once", torch.bfloat16, "document", True),
    ]
    for name, dtype, attention, plain in variants:
        timing = _time_steps(tokens, plan, dtype, attention, plain=plain, num_steps=1 if quick else 3)
        peak = measure_matmul_flops(_CPU, dtype) / 1e9
        table.add_row(
            name,
            f"{timing.supervised_per_s:,.0f}",
            f"{timing.tokens_per_s:,.0f}",
            f"{timing.gflops:,.0f}",
            f"{timing.gflops / peak:.0%} of {peak:,.0f}",
            f"{timing.optimizer_share:.1%}",
            f"{timing.supervised_per_s / nanochat:.2f}",
        )
    table.add_row(
        "nanochat, as measured", f"{nanochat:,.0f}", f"{NANOCHAT_TOKENS_PER_S:,.0f}", "94", "72% of 130", "", "1.00"
    )
    console.print(table)
    _print_head_memory(console)
    _print_plan(console, pickle, num=5_000 if quick else 500_000)


def _time_steps(
    tokens: TokenSet, plan: StepPlan, dtype: torch.dtype, attention: AttentionScope, *, plain: bool, num_steps: int
) -> Timing:
    base = load_checkpoint(str(SHARED / "nanochat_base"), compute_dtype=dtype)
    module: LossModule = _PlainLoss(base.model) if plain else LossModule(base.model)
    groups = group_parameters(base.model, OptimizerConfig(), width=base.model.config.n_embd)
    optimizer = MuonAdamW(groups, muon_dtype=dtype)
    seconds = optimizer_s = 0.0
    supervised = trained = 0
    for step in range(num_steps + 1):
        batches = [
            build_micro_batch(
                tokens,
                [plan.rows.row(row) for row in rows],
                row_len=ROW_LEN,
                attention=attention,
                pad_id=base.tokenizer.bos_id,
                row_numbers=rows,
            )
            for rows in plan.micro_batches(step, rank=0, world_size=1, device_rows=2)
        ]
        start_s = time.perf_counter()
        num = int(plan.num_supervised[step])
        train_step(module, optimizer, batches, num_supervised=num, lr_scale=0.1, momentum=0.85)
        if step == 0:
            continue  # the first one also touches memory for the first time
        seconds += time.perf_counter() - start_s
        supervised += num
        trained += int(plan.num_tokens[step])
    for param in base.model.parameters():
        param.grad = torch.zeros_like(param)
    start_s = time.perf_counter()
    optimizer.step(lr_scale=0.0, momentum=0.85)
    optimizer_s = (time.perf_counter() - start_s) * num_steps
    flops = trained * _flops_per_token(base, tokens, attention, plain=plain)
    return Timing(supervised / seconds, trained / seconds, flops / seconds / 1e9, optimizer_s / seconds)


class _PlainLoss(LossModule):
    """The logits of every position at once, and torch's own cross-entropy: what the chunked head is compared with."""

    def forward(self, batch: MicroBatch) -> torch.Tensor:
        logits = self.model(batch.ids, documents=batch.documents).flatten(0, 1)
        targets = torch.full((len(logits),), -1)
        targets[batch.supervised] = batch.labels
        return torch.nn.functional.cross_entropy(logits, targets, ignore_index=-1, reduction="sum")


def _flops_per_token(base: Checkpoint, tokens: TokenSet, attention: AttentionScope, *, plain: bool) -> float:
    span = ROW_LEN if attention == "row" else round(float(tokens.lengths.mean()))
    share = 1.0 if plain else float(tokens.supervised.sum() / tokens.lengths.sum())
    return estimate_flops_per_token(base.model.config, base.generation, span, num_head_tokens=share)


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
