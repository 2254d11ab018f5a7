"""The quality gates: CPU per row of each gate and of all, near-duplicate search beside its peers, recall and precision.

Rows are real: the two identity sets of the reference data, `chitchat-dataset`, `chatterbot-corpus`. Peers (datasketch,
rensa) are timed where they are installed; they are not in the lock, as nothing but these figures needs them.
"""

import importlib
import os
import random
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from nanosft.conversation import Conversation, Message, parse_conversation
from nanosft.data import read_conversations
from nanosft.dedup import NearDuplicateIndex, hash_words, make_keys, minhash_words, normalize_text, normalize_words
from nanosft.knowledge import read_knowledge
from nanosft.nanochat.tokenizer import load_tokenizer
from nanosft.quality.completeness import find_completeness_defects
from nanosft.quality.gates import Context, Gates, check
from nanosft.quality.grounding import find_grounding_defects, make_reference
from nanosft.quality.identity import find_identity_defects
from nanosft.quality.prose import Prose, read_prose
from nanosft.quality.repetition import find_repetition_defects
from nanosft.quality.structure import find_structure_defects, find_token_defects
from nanosft.quality.style import BANNED_PHRASES, find_style_defects
from tests.real_sets import read_chatterbot, read_chitchat

_SHARED = Path(os.environ.get("SHARED_DIR", Path(__file__).parents[3] / "shared"))
_NUM_PERM = 128


def run(console: Console, *, quick: bool) -> None:
    """Print the tables; `quick` takes a quarter of the rows."""
    step = 4 if quick else 1
    sets = {
        name: list(read_conversations(str(_SHARED / f"data/{name}.jsonl")))[::step]
        for name in ("identity_a", "identity_b")
    }
    _print_gates(console, sets)
    _print_peers(console, sets)
    chats = {"chitchat": read_chitchat(), "chatterbot": read_chatterbot()}
    for name, rows in chats.items():
        sets[name] = [parse_conversation(row, where=name) for row in rows[::step]]
    _print_search(console, sets)


def _print_gates(console: Console, sets: dict[str, list[Conversation]]) -> None:
    reference = make_reference(read_knowledge())
    tokenizer = load_tokenizer(str(_SHARED / "nanochat_base"))
    context = Context(Gates(), reference, full_stops=True, tokenizer=tokenizer, max_tokens=2048)
    identity = reference.identity

    def search(rows: Sequence[Conversation]) -> None:
        index = NearDuplicateIndex()
        for row in rows:
            index.find_or_add(normalize_text(row))

    def style(messages: tuple[Prose, ...]) -> Iterable[Any]:
        return find_style_defects(messages, ascii_policy="keep", min_chars=1, banned_phrases=BANNED_PHRASES)

    texts: dict[str, Callable[[tuple[Prose, ...]], Iterable[Any]]] = {
        "completeness": lambda messages: find_completeness_defects(messages, full_stops=True),
        "identity": lambda messages: find_identity_defects(messages, identity),
        "grounding": lambda messages: find_grounding_defects(messages, reference),
        "style": style,
        "repetition": find_repetition_defects,
    }
    table = Table(title="quality gates: CPU microseconds a row", title_justify="left")
    for heading in ("gate", *sets):
        table.add_column(heading, justify="right" if heading != "gate" else "left")
    prose = {name: [read_prose(row) for row in rows] for name, rows in sets.items()}

    def add(label: str, time_of: Callable[[str], float]) -> None:
        table.add_row(label, *(f"{time_of(name) / len(sets[name]) * 1e6:.0f}" for name in sets))

    add("structure", lambda name: _time(lambda: [list(find_structure_defects(row)) for row in sets[name]]))
    for label, gate in texts.items():
        add(label, lambda name, gate=gate: _time(lambda: [list(gate(row)) for row in prose[name]]))  # type: ignore[misc]
    add(
        "tokens",
        lambda name: _time(lambda: [list(find_token_defects(row, tokenizer, max_tokens=2048)) for row in sets[name]]),
    )
    add("near_duplicate", lambda name: _time(lambda: search(sets[name])))
    add("all but near_duplicate", lambda name: _time(lambda: [check(row, context) for row in sets[name]]))
    console.print(table)
    sizes = ", ".join(
        f"{name} {sum(len(m.text) for row in rows for m in row.messages) / len(rows):,.0f}"
        for name, rows in sets.items()
    )
    console.print(f"characters a row: {sizes}; wanted: all gates under 1,000 microseconds")


def _print_peers(console: Console, sets: dict[str, list[Conversation]]) -> None:
    texts = {name: [normalize_text(row) for row in rows] for name, rows in sets.items()}
    table = Table(title=f"MinHash of word pairs, {_NUM_PERM} values: CPU microseconds a row", title_justify="left")
    for heading in ("implementation", *texts):
        table.add_column(heading, justify="right" if heading != "implementation" else "left")
    ours = {name: _time(lambda rows=rows: _sign(rows)) / len(rows) * 1e6 for name, rows in texts.items()}  # type: ignore[misc]
    table.add_row("nanosft signatures", *(f"{value:.1f}" for value in ours.values()))
    keys = []
    for rows in texts.values():
        sigs = _sign(rows)
        keys.append(_time(lambda rows=rows, sigs=sigs: make_keys(hash_words(rows), sigs)) / len(rows) * 1e6)  # type: ignore[misc]
    table.add_row("nanosft keys", *(f"{value:.1f}" for value in keys))
    for label, module, sign in (("datasketch", "datasketch", _sign_datasketch), ("rensa", "rensa", _sign_rensa)):
        try:
            library = importlib.import_module(module)
        except ImportError:
            table.add_row(label, *("not installed" for _ in texts))
            continue
        row = []
        for name, rows in texts.items():
            spent = _time(lambda rows=rows, sign=sign, library=library: sign(library, rows)) / len(rows) * 1e6  # type: ignore[misc]
            row.append(f"{spent:.1f} ({spent / ours[name]:.1f}x)")
        table.add_row(label, *row)
    console.print(table)


def _print_search(console: Console, sets: dict[str, list[Conversation]]) -> None:
    table = Table(title="near-duplicates: planted copies found, real rows flagged", title_justify="left")
    for heading in ("set", "rows", "case and punctuation", "one changed word", "equal rows", "near rows", "share near"):
        table.add_column(heading, justify="right" if heading != "set" else "left")
    for name, rows in sets.items():
        rng = random.Random(0)
        index = NearDuplicateIndex()
        texts: list[str] = []
        kept: list[Conversation] = []
        num_equal = num_near = 0
        for row in rows:
            text = normalize_text(row)
            found = index.find_or_add(text)
            if found is None:
                texts.append(text)
                kept.append(row)
            elif texts[found] == text:
                num_equal += 1
            else:
                num_near += 1
        long = [row for row, text in zip(kept, texts, strict=True) if text.count(" ") >= 5]
        loud = sum(index.query(normalize_text(_shout(row))) is not None for row in long)
        spaced = [row for row in long if _has_plain_words(row)]
        changed = sum(index.query(normalize_text(_change_word(row, rng))) is not None for row in spaced)
        cells = (len(rows), f"{loud} of {len(long)}", f"{changed} of {len(spaced)}", num_equal, num_near)
        table.add_row(name, *map(str, cells), f"{num_near / len(rows):.2%}")
    console.print(table)
    console.print(
        "near rows of identity_b are the same sentences in another order; changed rows are those without hyphens"
    )


def _shout(row: Conversation) -> Conversation:
    return Conversation(tuple(Message(m.role, m.text.upper().replace(" ", "  ") + "!!") for m in row.messages))


def _has_plain_words(row: Conversation) -> bool:
    """Whether what stands between spaces is one word each: no hyphens, no script without spaces."""
    return all(len(normalize_words(m.text).split()) == len(m.text.split()) for m in row.messages)


def _change_word(row: Conversation, rng: random.Random) -> Conversation:
    messages = list(row.messages)
    place = rng.choice([at for at, message in enumerate(messages) if message.text.split()])
    words = messages[place].text.split()
    words[rng.randrange(len(words))] = "marmalade"
    messages[place] = Message(messages[place].role, " ".join(words))
    return Conversation(tuple(messages))


def _sign_datasketch(library: Any, texts: Sequence[str]) -> None:
    for text in texts:
        library.MinHash(num_perm=_NUM_PERM).update_batch([pair.encode() for pair in _pairs(text)])


def _sign_rensa(library: Any, texts: Sequence[str]) -> None:
    for text in texts:
        minhash = library.RMinHash(num_perm=_NUM_PERM, seed=1)
        minhash.update(_pairs(text))
        np.array(minhash.digest(), np.uint32)


def _pairs(text: str) -> list[str]:
    words = text.split()
    return [f"{first} {second}" for first, second in pairwise(words)]


def _sign(rows: list[str]) -> Any:
    return minhash_words(hash_words(rows))


def _time(work: Callable[[], object], *, repeat: int = 3) -> float:
    """The least processor time of some runs, in seconds."""
    spent = []
    for _ in range(repeat):
        start_s = time.process_time()
        work()
        spent.append(time.process_time() - start_s)
    return min(spent)
