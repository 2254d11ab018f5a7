"""An evaluation's one engine, batched against one by one: probes answered, letters chosen, documents scored.

On `nanochat_base`, with probes of the shipped knowledge base; both ways are the functions that `nanosft eval` calls.
"""

import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from nanosft.conversation import Message
from nanosft.evaluate.answering import answer_all, next_logits, score_texts
from nanosft.evaluate.probing.probes import choose_probes, make_probes, read_personas, read_wordings
from nanosft.evaluate.tasks import Problem
from nanosft.knowledge import read_knowledge
from nanosft.nanochat import load_checkpoint

_SHARED = Path(os.environ.get("SHARED_DIR", Path(__file__).parents[3] / "shared"))
_MAX_TOKENS = 32
_ALONE_EVERY = 4
"""One by one, every fourth item is enough for a rate."""


def run(console: Console, *, quick: bool) -> None:
    """Print prompts, problems and documents a second, both ways, in turns, and their ratio."""
    num = 64 if quick else 256
    logging.disable(logging.INFO)  # a line an item, one by one
    checkpoint = load_checkpoint(str(_SHARED / "nanochat_base"))
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    probes = choose_probes(make_probes(read_knowledge(), read_wordings(), read_personas(None), seed=0), num)
    prompts = [probe.messages for probe in probes]
    questions = [messages[-1].text for messages in prompts]
    problems = [
        Problem(text, "A", "letter", tuple("ABCD"), tuple(questions[number : number + 4]))
        for number, text in enumerate(questions[:-4])
    ]
    letters = [tokenizer.render_prompt([Message("user", problem.prompt)]) for problem in problems]
    wanted = [[tokenizer.encode(letter)[0] for letter in "ABCD"]] * len(letters)
    ids = tokenizer.encode(" ".join(questions) * 8)
    documents = [ids[start : start + 256] for start in range(0, min(len(ids), 256 * num), 256)]
    table = Table("work", "items", "batched, items/s", "one by one, items/s", "ratio, turn by turn")
    for name, items, work in (
        ("probes, answers of 32 tokens", prompts, lambda own: answer_all(checkpoint, own, max_tokens=_MAX_TOKENS)),
        ("letters", letters, lambda own: next_logits(model, own, wanted[: len(own)])),
        ("documents of 256 tokens", documents, lambda own: score_texts(model, own)),
    ):
        _compare(table, name, items, work, num_turns=2)
    console.print(table)


def _compare(
    table: Table, name: str, items: Sequence[Any], work: Callable[[Sequence[Any]], object], *, num_turns: int
) -> None:
    work(items[:2])
    some = items[::_ALONE_EVERY]
    together, alone = [], []
    for _ in range(num_turns):
        start = time.perf_counter()
        work(items)
        together.append(time.perf_counter() - start)
        start = time.perf_counter()
        for item in some:
            work([item])
        alone.append(time.perf_counter() - start)
    rates = [len(items) / elapsed_s for elapsed_s in together]
    alone_rates = [len(some) / elapsed_s for elapsed_s in alone]
    ratios = [rate / alone_rate for rate, alone_rate in zip(rates, alone_rates, strict=True)]
    shown = (f"{max(rates):.1f}", f"{max(alone_rates):.1f}", ", ".join(f"{ratio:.1f}" for ratio in ratios))
    table.add_row(name, str(len(items)), *shown)
