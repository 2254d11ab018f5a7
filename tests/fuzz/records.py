"""Readers of what lies in a store or comes from a model: records, evaluations, judges' answers, runs, checkpoints.

Whoever may write to a bucket may write any of them; what a model says is its own.
"""

import base64
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import orjson

from nanosft.audit.report import Audit
from nanosft.conversation import parse_line
from nanosft.data import OutputPrefix
from nanosft.data.failure import read_failure
from nanosft.evaluate.probing.probes import read_personas
from nanosft.evaluate.results import compare_evaluations, parse_evaluation
from nanosft.evaluate.second_opinion import parse_opinion
from nanosft.evaluate.tasks.problems import read_tasks
from nanosft.generate.batches.openrouter import parse_result
from nanosft.generate.batches.record import parse_record, parse_results
from nanosft.generate.examples import read_examples
from nanosft.generate.provider.cards import parse_cards
from nanosft.generate.records.parts import read_state
from nanosft.generate.records.plans import read_plans
from nanosft.generate.records.totals import PROMPT_VARIANT_KEY
from nanosft.generate.rows.ledger import read_ledgers
from nanosft.knowledge import check_knowledge, parse_knowledge
from nanosft.lineage import find_evaluation
from nanosft.manifest import Manifest, ManifestObject
from nanosft.mix.reading.parse import parse_row
from nanosft.mix.recipe import Source
from nanosft.nanochat import load_checkpoint
from nanosft.nanochat.inference.tools import evaluate_expression
from nanosft.nanochat.tokenizer import load_tokenizer
from nanosft.quality.scores import list_criteria, parse_score
from nanosft.report.collect import collect
from nanosft.report.page import render_page
from nanosft.report.pages import make_page
from nanosft.settings.report import ReportSettings
from nanosft.store import open_store
from nanosft.submit.objects import read_objects
from nanosft.train.data.tokens import read_tokens
from nanosft.train.metrics import read_metrics

Reader = Callable[[bytes], object]
_BEGUN: Final = Path(__file__).parents[1] / "golden/begun"
_META: Final = "base_checkpoints/d2/meta_000001.json"
_RUN_YAML: Final = (
    b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n  labels: {x: y}\ndata:\n  A: '1'\n---\nkind: Job\n"
)


def make_record_readers(folder: Path) -> dict[str, tuple[bytes, Reader]]:
    """Each reader with an example that it takes.

    Args:
        folder: An empty one.
    """
    store = open_store(str(folder / "prefix"))
    tokenizer = load_tokenizer(str(_BEGUN / "base"))
    score = {"reason": "It holds.", **dict.fromkeys(list_criteria(has_course=False), 4)}
    part = next((_BEGUN / "generated/rows").glob("00000-*-00000.jsonl"))
    line = part.read_bytes().splitlines(keepends=True)[0]
    reject = {
        "row": 0,
        "cell": "a x b",
        PROMPT_VARIANT_KEY: 0,
        "attempt": 0,
        "reason": "style/x",
        "reasons": ["style/x"],
    }
    reject |= {"detail": "d", "model": "m", "cost_usd": 0.1, "tokens": {"prompt": 1}, "given_up": False, "raw": "r"}
    reject |= {"finish_reason": "stop", "judge": {"model": "j", "cost_usd": 0.1, "tokens": {}, "scores": None}}
    ledger = {"reserved_usd": 1.5, "attempts": ["a"]}
    failure = {"command": "mix", "exit_code": 3, "message": "m", "shard": 0, "time": "2026-11-28T00:00:00Z"}
    message = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": _PARTS}]

    def read_at(key: str, read: Callable[[], object]) -> Reader:
        def read_object(data: bytes) -> object:
            store.write(key, data)
            try:
                return read()
            finally:
                store.delete(key)

        return read_object

    def claim() -> None:
        with OutputPrefix(store, "mix", {"seed": 1}).writing(()):
            pass

    def count_rejects() -> None:
        read_state(store, range(24), 24).tally.counts()

    return {
        "mix row": (line, lambda data: parse_row(data, Source(name="a", uri=("b",)), where="a:line 1", as_list=False)),
        "parts": (
            orjson.dumps({"messages": message}),
            lambda data: tokenizer.render(parse_line(data, where="a.jsonl:line 1")),
        ),
        "score": (orjson.dumps(score), lambda data: parse_score(_text(data), list_criteria(has_course=False))),
        "opinion": (b'{"reason":"a","verdict":"right"}', lambda data: parse_opinion(_text(data))),
        "expression": (b'(1 + 2) ** 3 / 4.5 - "strawberry".count("r")', lambda data: evaluate_expression(_text(data))),
        "cards": (orjson.dumps([_CARD]), lambda data: parse_cards(_json(data))),
        "batch record": (
            orjson.dumps(_BATCH),
            lambda data: parse_record("00001/00000-00001", data, where="batches/00001/00000-00001.json"),
        ),
        "batch rows": (b'[1,"body","",250]\n[2,"","lost",null]\n', lambda data: parse_results(data, where="a")),
        "batch result": (orjson.dumps(_RESULT), lambda data: parse_result(_json(data))),
        "plan": (
            next((_BEGUN / "generated/plan").iterdir()).read_bytes(),
            read_at("plan/00000024.json", lambda: read_plans(store)),
        ),
        "rows": (line, read_at(f"rows/{part.name}", lambda: read_state(store, range(24), 24))),
        "rejects": (
            orjson.dumps(reject),
            read_at(f"rejects/{part.name}", count_rejects),
        ),
        "ledger": (orjson.dumps(ledger), read_at("budget/00001/00000-00001.json", lambda: read_ledgers(store))),
        "claim": (
            b'{"command":"mix","settings":{"seed":1},"parents":[],"host":"h"}',
            read_at("state/claim.json", claim),
        ),
        "failure": (orjson.dumps(failure), read_at("failure.json", lambda: read_failure(store))),
        "metrics": (
            (_BEGUN / "run/metrics.jsonl").read_bytes(),
            read_at("metrics.jsonl", lambda: read_metrics(store, 5)),
        ),
        "audit": (orjson.dumps(_AUDIT), lambda data: Audit.parse(data, max_examples=2, where="audit.json")),
        "task": (b'{"question":"2+2?","choices":["3","4"],"answer":1}', _at(folder / "tasks/a.jsonl", read_tasks)),
        "personas": (b'[[personas]]\ndescription = "a child"\n', _at(folder / "personas.toml", read_personas)),
        "knowledge": (
            (_BEGUN / "knowledge.md").read_bytes(),
            lambda data: check_knowledge(parse_knowledge(_text(data), where="a.md")),
        ),
        "examples": (line, _at(folder / "examples.jsonl", lambda uri: read_examples(uri, num=1, seed=0))),
        "yaml": (_RUN_YAML, lambda data: read_objects(_text(data))),
        **_of_evaluations(folder / "evaluation"),
        **_of_runs(folder),
    }


def _of_evaluations(folder: Path) -> dict[str, tuple[bytes, Reader]]:
    """Of `scores.json`, `answers.jsonl` and `documents.jsonl`: one is changed, and all are compared with themselves."""
    objects = {"scores": orjson.dumps(_SCORES), "answers": orjson.dumps(_ANSWER), "documents": orjson.dumps(_DOCUMENT)}
    folder.mkdir(parents=True)

    def make_reader(name: str) -> Reader:
        def read(data: bytes) -> None:
            whole = parse_evaluation(**objects, where="a")
            found = parse_evaluation(**{**objects, name: data}, where="b")
            compare_evaluations({"a": whole, "b": found})

        return read

    def read_note(data: bytes) -> None:
        (folder / "evaluation.json").write_bytes(data)
        find_evaluation(str(folder))

    note = orjson.dumps({"uri": str(folder / "none"), "sha256": "0" * 64})
    return {name: (objects[name], make_reader(name)) for name in objects} | {"note": (note, read_note)}


def _of_runs(folder: Path) -> dict[str, tuple[bytes, Reader]]:
    """Of a base's meta, of a plan's tokens, and of what a report shows of a run and of a generated set."""
    shutil.copytree(_BEGUN / "base", folder / "base")
    shutil.copytree(_BEGUN / "run", folder / "run")
    shutil.copytree(_BEGUN / "generated", folder / "generated")
    rows = sorted((folder / "generated/rows").iterdir())
    (folder / "generated/rejects").mkdir()
    tokens = next((folder / "run/plan").iterdir())
    run = open_store(str(folder / "run"))

    def read_base(data: bytes) -> None:
        (folder / "base" / _META).write_bytes(data)
        load_checkpoint(str(folder / "base"), source="base")

    def show(path: Path, uri: Path) -> Reader:
        def read(data: bytes) -> None:
            path.write_bytes(data)
            settings = ReportSettings(uris=(str(uri),))
            render_page(make_page(collect(str(uri), settings), settings))

        return read

    def read_plan(data: bytes) -> None:
        tokens.write_bytes(data)
        read_tokens(run, f"plan/{tokens.name}")

    manifest = Manifest(
        kind="generated", name="g", counts={"rows": {"accepted": 1}, "cost": {"total_usd": 1.0}},
        objects=tuple(
            ManifestObject(
                key=f"rows/{path.name}", size_bytes=path.stat().st_size, num_rows=len(path.read_bytes().splitlines()),
                sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            )
            for path in rows
        ),
    )  # fmt: skip
    return {
        "meta": ((folder / "base" / _META).read_bytes(), read_base),
        "tokens": (tokens.read_bytes(), read_plan),
        "report run": ((_BEGUN / "run/metrics.jsonl").read_bytes(), show(folder / "run/metrics.jsonl", folder / "run")),
        "report set": (manifest.to_bytes(), show(folder / "generated/manifest.json", folder / "generated")),
        "report row": (rows[0].read_bytes(), show(rows[0], folder / "generated")),
    }


def _at(path: Path, read: Callable[[str], object]) -> Reader:
    """A reader of a file, or of the folder of a task's file."""
    path.parent.mkdir(parents=True, exist_ok=True)

    def read_file(data: bytes) -> object:
        path.write_bytes(data)
        return read(str(path.parent if path.parent.name == "tasks" else path))

    return read_file


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


def _json(data: bytes) -> Any:
    """What the client hands on: nothing but JSON gets so far."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return []


_CLAIM: Final = b'{"command":"mix","settings":{"seed":1},"parents":[],"host":"h"}'
_PARTS: Final = [
    {"type": "text", "text": "It is "},
    {"type": "python", "text": "2+2"},
    {"type": "python_output", "text": "4"},
]
_CARD: Final = {
    "id": "a/b",
    "canonical_slug": "a/b-1",
    "context_length": 9000,
    "pricing": {"prompt": "0.0000001", "completion": "0.0000004", "input_cache_read": "0"},
    "top_provider": {"context_length": 8000, "max_completion_tokens": 4000},
    "supported_parameters": ["reasoning", "structured_outputs"],
    "expiration_date": "2027-01-01",
    "reasoning": {"mandatory": True, "supported_efforts": ["low"]},
    "architecture": {"output_modalities": ["text"]},
}
_BATCH: Final = {
    "key": base64.b16encode(b"key").decode(),
    "model": "m",
    "created_s": 1.0,
    "held_usd": 0.5,
    "requests": [[0, 0, 0, 1, ["too short"]]],
}
_RESULT: Final = {"custom_id": "r", "response": {"status_code": 200, "body": {"id": "a"}}, "error": None}
_INTERVAL: Final = {"mean": 0.5, "low": 0.4, "high": 0.6, "num": 3}
_SCORES: Final = {
    "format": 1,
    "models": {"base": {"uri": "a"}, "chat": {"uri": "b"}},
    "counts": {"probes": 1},
    "figures": {"base": {"identity": _INTERVAL}, "chat": {"identity": _INTERVAL}},
    "judge": {"model": "m", "requests": 1, "cost_usd": 0.1, "requests_of_unknown_cost": 0},
}
_ANSWER: Final = {
    "model": "chat",
    "probe": "p",
    "kind": "name",
    "topic": "t",
    "item": "i",
    "manner": "plain",
    "messages": [{"role": "user", "content": "Who?"}],
    "answer": "I.",
    "verdict": "right",
    "reason": "r",
    "other_name": "",
    "other_maker": "",
    "ungrounded": [],
    "num_tokens": 2,
    "faults": {"not_ended": False, "empty": False, "loop": False, "special_token": False},
}
_DOCUMENT: Final = {"id": "d", "source": "plain text", "num_bytes": 10, "bits": {"base": 9.0, "chat": 8.0}}
_AUDIT: Final = {
    "uri": "a",
    "num_rows": 1,
    "num_clean": 0,
    "num_refused": 1,
    "num_unreadable": 0,
    "refused": {"style/x": 1},
    "reported": {},
    "examples": {"style/x": [{"where": "line 1", "detail": "d", "excerpt": "e"}]},
    "name": "Nano",
    "maker": "",
    "full_stops": True,
    "cpu_ms_per_row": 1.0,
    "written": {"clean": "a"},
    "judge": None,
}
