"""The short runs: what each is started with, and what must be the same whatever happened on the way."""

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final
from unittest import mock

import orjson
import pytest

from nanosft.conversation import Conversation, Message, to_line
from nanosft.data import read_manifest
from nanosft.generate import estimate
from nanosft.generate import stage as generate_stage
from nanosft.generate.offers import Offers
from nanosft.manifest import Manifest
from nanosft.settings.audit import AuditSettings
from nanosft.settings.evaluate import EvalSettings
from nanosft.settings.export import ExportSettings
from nanosft.settings.generate import GenerateSettings
from nanosft.settings.mix import MixSettings
from nanosft.settings.report import ReportSettings
from nanosft.settings.train import TrainSettings
from nanosft.store import open_store
from tests.chaos import batches, chat
from tests.chaos.checks import Flushed

WEIGHTS: Final = "weights differing"
BEGUN: Final = Path(__file__).parents[1] / "golden" / "begun"
_NUM_ROWS: Final = 8


@dataclass(frozen=True)
class Stage:
    """A command, as the exploration runs it.

    Attributes:
        name: Its name.
        run: Runs it once: URI of the inputs, of the output, and which of two settings.
        digest: What must be the same of a finished output.
        find_paid_twice: Of a finished run of generate: the requests that were paid for again, though what came of them
            was saved before the last start; what was saved then is given.
        may_grow: Runs with two settings may both end well: a plan grows, a page is written anew.
        num_ranks: Processes that are one run.
        differs: What it is called when the digest is not the same.
    """

    name: str
    run: Callable[[str, str, int], object]
    digest: Callable[[str], object]
    find_paid_twice: Callable[[str, Flushed], object] | None = None
    may_grow: bool = False
    num_ranks: int = 1
    differs: str = "another result"


def put_inputs(uri: str) -> None:
    """What the runs read: a knowledge base, dimensions, a base, and conversations with a copy among them."""
    store = open_store(uri)
    for path in sorted(BEGUN.rglob("*")):
        name = path.relative_to(BEGUN).as_posix()
        if path.is_file() and name.startswith(("base/", "knowledge.md", "dimensions.toml")):
            store.write_file(name, path)
    lines = [
        to_line(Conversation((Message("user", f"Say {n % 10}."), Message("assistant", f"It is {n % 10} of {n % 7}."))))
        for n in range(24)
    ]
    store.write("one.jsonl", b"".join(lines[:14]))
    store.write("other.jsonl", b"".join(lines[14:]))
    for variant, share in enumerate((0.2, 0.3)):
        sources = "".join(f'[[sources]]\nname = "{name}"\nuri = "{uri}/{name}.jsonl"\n' for name in ("one", "other"))
        store.write(f"recipe-{variant}.toml", f"shard_rows = 6\n{sources}[split]\nval_share = {share}\n".encode())
    store.write("run/manifest.json", Manifest(kind="mixture", name="run", objects=()).to_bytes())


def _generate(inputs: str, out: str, variant: int, *, judge_model: str | None = None) -> None:
    settings = GenerateSettings(
        out=out,
        knowledge=f"{inputs}/knowledge.md",
        dimensions=f"{inputs}/dimensions.toml",
        base_url="http://127.0.0.1:9/v1",
        openrouter_fields=True,
        budget_usd=1.0,
        num=_NUM_ROWS + variant,
        concurrency=1,
        flush_rows=2,
        stop_grace_s=0.01,
        judge_model=judge_model,
        min_score=chat.LOWEST if judge_model else None,
    )
    generate_stage.run_generate(settings)


def _mix(inputs: str, out: str, variant: int, *, numbers: Iterator[int] = itertools.count()) -> None:  # noqa: B008 - one
    from nanosft.mix.reading import rows  # noqa: PLC0415 - duckdb
    from nanosft.mix.stage import make_mixture  # noqa: PLC0415

    work_dir = Path(tempfile.gettempdir()) / f"work-{os.getpid()}-{next(numbers)}"  # a machine of one's own
    settings = MixSettings(recipe=f"{inputs}/recipe-{variant}.toml", out=out, workers=1, work_dir=str(work_dir))
    with mock.patch.dict(rows._readers, clear=True):  # and a process
        make_mixture(settings)
    shutil.rmtree(work_dir, ignore_errors=True)


def _train(inputs: str, out: str, variant: int) -> None:
    from nanosft.train.stage import run_train  # noqa: PLC0415 - torch

    settings = TrainSettings(
        base=f"{inputs}/base",
        data=f"{inputs}/one.jsonl",
        val_data=f"{inputs}/other.jsonl",
        out=out,
        device="cpu",
        dtype="float32",
        max_seq_len=128,
        total_batch_size=256,
        max_steps=4,
        save_every=1,
        keep_states=1,
        eval_every=2,
        sample_tokens=0,
        num_threads=1,
        num_workers=1,
        seed=variant,
    )
    run_train(settings)


def _eval(inputs: str, out: str, variant: int) -> None:
    from nanosft.evaluate import evaluate  # noqa: PLC0415 - torch

    settings = EvalSettings(
        model=f"{inputs}/base",
        out=out,
        knowledge=f"{inputs}/knowledge.md",
        dimensions=f"{inputs}/dimensions.toml",
        data=(f"{inputs}/one.jsonl",),
        num_probes=2,
        num_documents=2,
        num_sampled=0,
        max_tokens=2,
        seed=variant,
    )
    evaluate(settings)


def _audit(inputs: str, out: str, variant: int) -> None:
    from nanosft.audit.stage import run_audit  # noqa: PLC0415

    run_audit(AuditSettings(uri=f"{inputs}/one.jsonl", out=out, skip_gates=("style",) * variant))


def _export(inputs: str, out: str, variant: int) -> None:
    from nanosft.export.stage import run_export  # noqa: PLC0415

    run_export(ExportSettings(model=f"{inputs}/base", to="nanochat", out=out, title=f"title {variant}"))


def _export_data(inputs: str, out: str, variant: int) -> None:
    from nanosft.export.stage import run_export  # noqa: PLC0415

    run_export(ExportSettings(data=f"{inputs}/one.jsonl", to="hf", out=out, title=f"title {variant}"))


def _report(inputs: str, out: str, variant: int) -> None:
    from nanosft.report.stage import run_report  # noqa: PLC0415

    run_report(ReportSettings(uris=(f"{inputs}/one.jsonl",), out=f"{out}/page.html", seed=variant))


def _hashes(out: str) -> object:
    """Settings and the hashes of what the manifest names."""
    manifest = _manifest(out)
    return manifest.settings, sorted((item.sha256, item.num_rows) for item in manifest.objects)


def _rows(out: str) -> tuple[object, list[tuple[int, bytes]]]:
    """Settings, and lines by row number."""
    store, manifest = open_store(out), _manifest(out)
    lines = [line for item in manifest.objects for line in store.read(item.key).splitlines()]
    return manifest.settings, sorted((orjson.loads(line)["meta"]["row"], line) for line in lines)


def _judged_rows(out: str) -> object:
    """`_rows` but for costs: of an answer that waited for a judge, the record that held it has them."""
    settings, lines = _rows(out)
    metas = [(row, orjson.loads(line)) for row, line in lines]
    for _, value in metas:
        value["meta"] = {name: item for name, item in value["meta"].items() if name not in ("cost_usd", "tokens")}
    return settings, metas


def _row_numbers(out: str) -> object:
    """That each row is in once or given up: what a service that draws its faults answers differs with its calls."""
    settings, rows = _rows(out)
    manifest = _manifest(out)
    num_ended = manifest.counts["rows"]["accepted"] + manifest.counts["rows"]["given_up"]
    is_once = len({row for row, _ in rows}) == len(rows) == manifest.counts["rows"]["accepted"]
    return settings, num_ended, is_once, batches.is_bill_stated(out, manifest)


def _weights(out: str) -> object:
    """Hashes of the checkpoints; metrics have times in them."""
    manifest = _manifest(out)
    return manifest.settings, sorted((item.key, item.sha256) for item in manifest.objects if item.key.endswith(".pt"))


def _page(out: str) -> object:
    return len(open_store(out).read("page.html")) > 0


def _manifest(out: str) -> Manifest:
    manifest = read_manifest(open_store(out))
    assert manifest is not None, "there is no manifest"
    return manifest


STAGES: Final = {
    stage.name: stage
    for stage in (
        Stage("generate", _generate, _rows, chat.find_paid_twice, may_grow=True),
        Stage(
            "generate judged",
            partial(_generate, judge_model="judge"),
            _judged_rows,
            chat.find_judged_twice,
            may_grow=True,
        ),
        *(
            Stage(f"batch {name}", partial(batches.run, name), _row_numbers, batches.find_paid_twice, may_grow=True)
            for name in batches.KINDS
        ),
        Stage("mix", _mix, _hashes),
        Stage("train", _train, _weights, differs=WEIGHTS),
        Stage("train 2 ranks", _train, _weights, num_ranks=2, differs=WEIGHTS),
        Stage("eval", _eval, _hashes),
        Stage("audit", _audit, lambda out: _hashes(f"{out}/clean")),
        Stage("export", _export, _hashes),
        Stage("export data", _export_data, _hashes),
        Stage("report", _report, _page, may_grow=True),
    )
}


@contextmanager
def prepared(folder: Path) -> Iterator[None]:
    """The chat API is a simulated one, and temporary files lie in a folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generate_stage, "open_provider", chat.open_simulated)
        patch.setattr(generate_stage, "open_judge", chat.open_simulated_judge)
        patch.setattr(estimate, "read_offers", lambda _settings: Offers(problem="no catalogue in a simulation"))
        patch.setenv("OPENROUTER_API_KEY", "chaos")
        patch.setattr("tempfile.tempdir", str(folder))
        yield
