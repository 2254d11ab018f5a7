"""A small road in a store, put there by hand: a generated set with rejects, a mixture, a run, and its evaluation."""

import hashlib
from typing import Any

import orjson

from nanosft.conversation import Conversation, Message, to_line
from nanosft.data import put_manifest
from nanosft.knowledge import SHIPPED, read_knowledge
from nanosft.manifest import EVALUATION_KEY, Manifest, ManifestObject, Parent
from nanosft.store import join_uri, open_store

NASTY = (
    '<script>alert(1)</script> & "quoted" <img src=x onerror=alert(2)> \U0001f389 '
    "\u202e\u05e9\u05dc\u05d5\u05dd\x00 </script><!--"
)
ROWS_KEY = "rows/00000-20261128T070305b17fb6f7-00000.jsonl"


def talk(question: str, answer: str, **meta: Any) -> Conversation:
    return Conversation((Message("user", question), Message("assistant", answer)), meta)


def put_lines(uri: str, key: str, rows: list[Conversation]) -> ManifestObject:
    data = b"".join(map(to_line, rows))
    open_store(uri).write(key, data)
    sha256 = hashlib.sha256(data).hexdigest()
    return ManifestObject(key=key, size_bytes=len(data), sha256=sha256, num_rows=len(rows))


def put(uri: str, manifest: Manifest) -> Parent:
    put_manifest(open_store(uri), manifest)
    return Parent(uri=open_store(uri).uri, sha256=manifest.sha256)


def make_rows(num: int = 6) -> list[Conversation]:
    answers = ["I am nanochat, a small assistant.", NASTY, "I was made by Andrej Karpathy."]
    personas = ("joker", "child")
    return [
        talk(
            f"Question number {number} of many, please?",
            f"{answers[number % 3]} That is all that I can say of {number} just now, but ask me all that you like.",
            cell=f"identity x {personas[number % 2]}",
            cost_usd=0.001,
            model="writer",
            row=number,
            source="writer",
        )
        for number in range(num)
    ]


def put_generated(uri: str, *, finished: bool = True) -> Parent:
    item = put_lines(uri, ROWS_KEY, make_rows())
    reject = {
        "row": 6, "cell": "identity x joker", "fresh": 0, "attempt": 0, "reason": "identity/other_name",
        "reasons": ["identity/other_name"], "detail": "it claims to be ChatGPT", "finish_reason": "stop",
        "model": "writer", "cost_usd": 0.002, "tokens": {}, "given_up": True, "raw": f"I am ChatGPT. {NASTY}",
    }  # fmt: skip
    store = open_store(uri)
    store.write(ROWS_KEY.replace("rows/", "rejects/"), orjson.dumps(reject, option=orjson.OPT_APPEND_NEWLINE))
    if not finished:
        return Parent(uri=store.uri, sha256="0" * 64)
    counts = {
        "rows": {"planned": 7, "accepted": 6, "given_up": 1, "near_duplicates_dropped": 0},
        "answers": {"accepted": 6, "refused": 1, "unknown": 0},
        "tokens": {"prompt": 100, "cached": 50, "completion": 80},
        "cost": {"total_usd": 0.008, "per_accepted_row_usd": 0.001333, "rejects_usd": {"identity/other_name": 0.002}},
    }
    knowledge = read_knowledge()
    settings = {"knowledge": knowledge.sha256, "num": 7, "seed": 3, "provider": "openrouter", "model": "writer"}
    parents = (Parent(uri=SHIPPED, sha256=knowledge.sha256),)
    said: dict[str, Any] = {"counts": counts, "cost_usd": 0.008, "parents": parents, "settings": settings}
    return put(uri, Manifest(kind="generated", name="generated", objects=(item,), **said))


def put_mixture(uri: str, generated: Parent) -> Parent:
    rows = make_rows()
    items = (put_lines(uri, "train-00000.jsonl", rows[:4]), put_lines(uri, "val-00000.jsonl", rows[4:]))
    source = {
        "lines": 6, "bad": 0, "filtered": {}, "exact_duplicates": 0, "near_duplicates": 0, "contaminated": 0,
        "val_rows": 2, "distinct_train_rows": 4, "train_rows": 4, "wanted_amount": 4, "amount": 4, "share": 1.0,
        "epochs": 1.0, "train_supervised_tokens": 0,
    }  # fmt: skip
    counts = {"unit": "rows", "train_rows": 4, "val_rows": 2, "overlap": {"cells": 0}, "sources": {"identity": source}}
    settings = {"seed": 0, "sources[0].name": "identity", "sources[0].uri": [generated.uri], "deduplicate.near": "drop"}
    return put(
        uri,
        Manifest(kind="mixture", name="mixture", objects=items, counts=counts, parents=(generated,), settings=settings),
    )


def make_metrics(num: int = 4) -> list[dict[str, Any]]:
    first = {
        "step": 0, "val_loss": 4.0, "val_bpb": 2.0, "samples": {"Who are you?": "."},
        "val_sources": {"identity": {"loss": 4.0, "bpb": 2.0}},
    }  # fmt: skip
    steps = [
        {
            "step": step, "loss": 4.0 / step, "lr_scale": 1.0 - step / num, "grad_norm": {"matrices": 0.1 * step},
            "tokens_per_s": 100.0, "supervised_per_s": 50.0, "peak_memory_bytes": 1 << 29, "step_s": 1.0,
            "data_wait_s": 0.0, "save_stall_s": 0.1, "num_supervised": 10,
        }
        for step in range(1, num + 1)
    ]  # fmt: skip
    last = {**first, "step": num, "val_loss": 1.0, "val_bpb": 0.5, "samples": {"Who are you?": NASTY}}
    return [first, *steps, last]


def run_settings(data: str) -> dict[str, Any]:
    return {"base": "/absent/base", "data": data, "epochs": 3, "prompts": ["Who are you?"], "seed": 0}


def put_run(uri: str, mixture: Parent, *, finished: bool = True) -> Parent:
    """A run; one that is not finished has metrics and a state."""
    store = open_store(uri)
    lines = [orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in make_metrics()]
    store.write("metrics.jsonl", b"".join(lines if finished else lines[:3]))
    counts = {"step": 4, "best_step": 4, "train_s": 4.0, "val_loss": 1.0, "val_bpb": 0.5, "num_supervised": 40}
    manifest = Manifest(
        kind="model", name="run", objects=(), counts=counts, parents=(mixture,), settings=run_settings(mixture.uri)
    )  # fmt: skip
    if finished:
        return put(uri, manifest)
    state = manifest.model_copy(update={"kind": "state", "counts": {"step": 2}})
    return put(join_uri(uri, "state/step_000002-ab12"), state)


def put_evaluation(uri: str, run: Parent) -> Parent:
    interval = {"mean": 0.75, "low": 0.5, "high": 1.0, "num": 4}
    scores = {
        "format": 1, "models": {"base": {}, "chat": {}}, "counts": {"probes asked": 1},
        "figures": {"base": {"identity": interval}, "chat": {"identity": interval}},
    }  # fmt: skip
    row = {
        "probe": "p1",
        "messages": [{"role": "user", "content": f"Who? {NASTY}"}],
        "answer": NASTY,
        "verdict": "wrong",
    }
    store = open_store(uri)
    store.write("scores.json", orjson.dumps(scores))
    store.write("answers.jsonl", b"\n".join(orjson.dumps({**row, "model": model}) for model in ("base", "chat")))
    parent = put(uri, Manifest(kind="evaluation", name="e", objects=(), parents=(run,), settings={"model": run.uri}))
    note = {"uri": parent.uri, "sha256": parent.sha256}
    open_store(run.uri).write(EVALUATION_KEY, orjson.dumps(note))
    return parent


def put_road(uri: str) -> Parent:
    """All of it under one prefix; the run."""
    generated = put_generated(join_uri(uri, "generated"))
    run = put_run(join_uri(uri, "run"), put_mixture(join_uri(uri, "mixture"), generated))
    put_evaluation(join_uri(uri, "evaluation"), run)
    return run
