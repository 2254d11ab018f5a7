"""The model, its attention, its tokenizer and its engine, on `nanochat_base` and real identity conversations."""

import os
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from rich.console import Console
from rich.table import Table
from torch import Tensor

from nanosft.conversation import Conversation
from nanosft.data import read_conversations
from nanosft.nanochat import GPT, Documents, Engine, Tokenizer, estimate_flops_per_token, load_checkpoint
from nanosft.nanochat.attention import attend_by_block

_SHARED = Path(os.environ.get("SHARED_DIR", Path(__file__).parents[3] / "shared"))
_ROW_LEN = 2048


def run(console: Console, *, quick: bool) -> None:
    """Print tokens/s of forward and backward, ms of attention, conversations/s rendered, tokens/s generated."""
    num_runs = 3 if quick else 12
    checkpoint = load_checkpoint(str(_SHARED / "nanochat_base"))
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    conversations = list(islice(read_conversations(str(_SHARED / "data" / "identity_a.jsonl")), 100 if quick else 1000))
    rendered = _time_rendering(console, tokenizer, conversations)
    ids, lengths = _fill_row(rendered)
    _time_model(console, model, ids, lengths, num_runs)
    _time_attention(console, lengths, num_runs)
    _time_engine(console, Engine(model, tokenizer), rendered, quick=quick)


def _best_s(measured: Callable[[], object], num_runs: int) -> float:
    measured()
    times = []
    for _ in range(num_runs):
        start = time.perf_counter()
        measured()
        times.append(time.perf_counter() - start)
    return min(times)


def _time_rendering(console: Console, tokenizer: Tokenizer, conversations: list[Conversation]) -> list[list[int]]:
    start = time.perf_counter()
    rendered = [tokenizer.render(conversation)[0] for conversation in conversations]
    elapsed_s = time.perf_counter() - start
    texts = [message.text for conversation in conversations for message in conversation.messages]
    encode_s = _best_s(lambda: [tokenizer.encode(text) for text in texts], 1)
    num_tokens = sum(map(len, rendered))
    console.print(
        f"rendering: {len(conversations) / elapsed_s:,.0f} conversations/s, {num_tokens / elapsed_s / 1e6:.2f} M "
        f"tokens/s on one thread, of which tiktoken's own encoding {encode_s / elapsed_s:.0%}"
    )
    return rendered


def _fill_row(rendered: list[list[int]]) -> tuple[Tensor, list[int]]:
    """(1, T) ids of real conversations one after another, the last cut where the row ends, and their lengths."""
    row: list[int] = []
    lengths: list[int] = []
    for conversation in rendered:
        lengths.append(min(len(conversation), _ROW_LEN - len(row)))
        row += conversation[: lengths[-1]]
        if len(row) == _ROW_LEN:
            break
    return torch.tensor([row]), lengths


def _time_model(console: Console, model: GPT, ids: Tensor, lengths: list[int], num_runs: int) -> None:
    documents = Documents.from_lengths(lengths)
    row = Documents.from_lengths([_ROW_LEN])
    table = Table("forward and backward", "attention", "ms", "tokens/s", "GFLOP/s", "of matrix peak", "ratio")
    base_s = 0.0
    for dtype in (torch.float32, torch.bfloat16):
        model.compute_dtype = dtype
        peak = _matrix_flops_per_s(dtype, num_runs)
        for name, layout in (("row", row), ("document", documents)):
            elapsed_s = _best_s(partial(_train_once, model, ids, layout), num_runs)
            base_s = base_s or elapsed_s
            flops = sum(
                length * estimate_flops_per_token(model.config, model.generation, length) for length in layout.lengths
            )
            table.add_row(
                str(dtype).removeprefix("torch."),
                name,
                f"{elapsed_s * 1e3:.0f}",
                f"{_ROW_LEN / elapsed_s:,.0f}",
                f"{flops / elapsed_s / 1e9:.0f}",
                f"{flops / elapsed_s / peak:.0%}",
                f"{base_s / elapsed_s:.2f}",
            )
    model.compute_dtype = torch.float32
    console.print(table)


def _train_once(model: GPT, ids: Tensor, documents: Documents) -> None:
    """Every position supervised, logits not chunked: the model itself, without the train step's savings."""
    model.zero_grad()
    logits = model(ids, documents=documents)
    loss = F.cross_entropy(logits[0, :-1], ids[0, 1:], reduction="sum")
    torch.autograd.backward(loss)


def _matrix_flops_per_s(dtype: torch.dtype, num_runs: int) -> float:
    a, b = torch.randn(2048, 1024).to(dtype), torch.randn(1024, 1024).to(dtype)
    return 2 * 2048 * 1024 * 1024 / _best_s(lambda: a @ b, 5 * num_runs)


def _time_attention(console: Console, lengths: list[int], num_runs: int) -> None:
    table = Table("attention of a layer", "window", "one call a document, ms", "by block, ms", "ratio")
    for dtype in (torch.float32, torch.bfloat16):
        q, k, v = (torch.randn(_ROW_LEN, 4, 64).to(dtype).requires_grad_() for _ in range(3))
        grad = torch.randn(_ROW_LEN, 4, 64).to(dtype)

        def measure(
            attend: Callable[[Tensor, Tensor, Tensor], Tensor], inputs: tuple[Tensor, ...], out: Tensor
        ) -> float:
            return _best_s(lambda: torch.autograd.grad(attend(*inputs), inputs, out), num_runs)

        whole_s = measure(partial(_attend_documents, lengths=lengths), (q, k, v), grad)
        for window in (128, None):
            block_s = measure(
                partial(attend_by_block, lengths=lengths, window=window, scale=0.125),
                (q, k, v),
                grad,
            )
            table.add_row(
                str(dtype).removeprefix("torch."),
                str(window or "none"),
                f"{whole_s * 1e3:.1f}",
                f"{block_s * 1e3:.1f}",
                f"{whole_s / block_s:.2f}",
            )
    console.print(table)


def _attend_documents(q: Tensor, k: Tensor, v: Tensor, lengths: list[int]) -> Tensor:
    """The plain way: one scaled-dot-product call a document, no window."""
    outs = [
        F.scaled_dot_product_attention(q_doc, k_doc, v_doc, is_causal=True)[0].transpose(0, 1)
        for q_doc, k_doc, v_doc in zip(
            *(torch.split(x.transpose(0, 1)[None], lengths, 2) for x in (q, k, v)), strict=True
        )
    ]
    return torch.cat(outs)


def _time_engine(console: Console, engine: Engine, rendered: list[list[int]], *, quick: bool) -> None:
    num_tokens = 32 if quick else 128
    prompts = [conversation[:200] for conversation in rendered[:8]]
    table = Table("generation", "tokens/s", "ratio")

    def without_cache() -> int:
        ids = list(prompts[0])
        with torch.inference_mode():
            for _ in range(num_tokens):
                ids.append(int(engine.model(torch.tensor([ids]))[0, -1].argmax()))
        return num_tokens

    def one_by_one() -> int:
        return sum(len(list(engine.generate(prompt, max_tokens=num_tokens, temperature=0.0))) for prompt in prompts)

    def batch() -> int:
        answers = engine.generate_batch(prompts, max_tokens=num_tokens, temperature=0.0)
        return sum(map(len, answers))

    base = 0.0
    for name, generate in (("no cache", without_cache), ("cache", one_by_one), ("cache, 8 at once", batch)):
        start = time.perf_counter()
        rate = generate() / (time.perf_counter() - start)
        base = base or rate
        table.add_row(name, f"{rate:,.0f}", f"{rate / base:.1f}")
    console.print(table)
