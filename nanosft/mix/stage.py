"""`nanosft mix`: a recipe's sources into train and validation objects and a manifest."""

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from nanosft.dataset import put_manifest, read_conversations, read_manifest
from nanosft.errors import ConfigError, DataError, Interrupted
from nanosft.manifest import MANIFEST_KEY, Manifest, ManifestObject, check_same_settings, sort_objects
from nanosft.mix.contamination import build_held_out
from nanosft.mix.decision import decide
from nanosft.mix.intake import Intake
from nanosft.mix.ledger import Ledger
from nanosft.mix.output import PART_NAMES, Dealer, Target, plan_direct, write_direct, write_segments
from nanosft.mix.recipe import Recipe, parse_recipe
from nanosft.mix.report import Report, describe, make_flow_table, make_share_table
from nanosft.mix.rows import start_reader
from nanosft.mix.sources import find_inputs
from nanosft.mix.workers import Workers, count_cpus
from nanosft.mix.workspace import open_workspace
from nanosft.progress import Bar
from nanosft.settings.mix import MixSettings
from nanosft.store import Store, open_object, open_store

_MIB: Final = 1 << 20
_BASE_BYTES: Final = 192 * _MIB
"""What the first process holds apart from DuckDB's buffers: Python, NumPy, Arrow, and the batches in flight."""
_DATABASE_BYTES_PER_THREAD: Final = 64 * _MIB
_SMALL_BYTES: Final = 16 * _MIB


@dataclass(frozen=True, slots=True)
class Budget:
    """How a process's memory limit is shared out.

    Attributes:
        database_bytes: For DuckDB.
        segment_bytes: For one stretch of the output, and for what waits to be dealt out.
        direct_bytes: The largest mixture whose rows are read where they were spilled.
    """

    database_bytes: int
    segment_bytes: int
    direct_bytes: int


def divide_memory(limit_bytes: int) -> Budget:
    """Share out a process's memory limit of at least 256 MiB."""
    return Budget(max(64 * _MIB, (limit_bytes - _BASE_BYTES) // 2), limit_bytes // 16, limit_bytes // 2)


def run_mix(settings: MixSettings) -> None:
    """Make the mixture and print what it is made of: tables, or one JSON object.

    Raises:
        Interrupted: SIGTERM came; there is no manifest, and the next run begins anew.
    """
    with _interruptible():
        report = make_mixture(settings)
    if settings.json_output:
        print(json.dumps(report.to_counts() if report else {"finished_before": True}))  # noqa: T201 - the result
        return
    stdout = Console()
    if report is None:
        stdout.print(f"{settings.out}: finished before, with the same settings", highlight=False)
        return
    stdout.print(make_flow_table(report), make_share_table(report))
    for line in describe(report):
        stdout.print(line, highlight=False, markup=False)


def make_mixture(settings: MixSettings) -> Report | None:
    """Make the mixture that a recipe asks for.

    Returns:
        What it is made of; None when it is there already, made with the same settings.

    Raises:
        ConfigError: The recipe cannot be met, or the output holds another mixture, or one of a source's earlier state.
        DataError: A source is missing, empty or malformed.
    """
    recipe = load_recipe(settings.recipe)
    identity = {
        **_flatten(recipe.model_dump(mode="json")),
        "on_bad_row": settings.on_bad_row,
    }
    out = None if settings.dry_run or settings.out is None else open_store(settings.out)
    if out is not None and (found := read_manifest(out)):
        check_same_settings(found, identity, where=out.uri_of(MANIFEST_KEY))
        _check_same_parents(found, recipe)
        return None
    inputs = [find_inputs(source.uri) for source in recipe.sources]
    budget = divide_memory(settings.memory_limit * _MIB)
    num_bytes = sum(item.size_bytes for found in inputs for item in found.objects)
    num_workers = settings.workers or choose_workers(recipe, num_bytes)
    with open_workspace(settings.work_dir, out.uri if out else None) as directory:
        _prepare_held_out(recipe, directory)
        intake = Intake(recipe, inputs, directory, on_bad_row=settings.on_bad_row, max_bad_share=settings.max_bad_share)
        with (
            Workers(num_workers, start_reader, recipe, directory) as workers,
            Ledger(
                directory,
                recipe,
                in_memory=num_bytes <= budget.direct_bytes,
                memory_bytes=budget.database_bytes,
                num_threads=num_workers if budget.database_bytes >= _DATABASE_BYTES_PER_THREAD * num_workers else 1,
            ) as ledger,
        ):
            report = decide(recipe, intake, ledger, workers, directory)
            if out is None:
                return report
            _clear(out)
            target = Target(out.uri, recipe.compression, directory)
            objects = _write(ledger, workers, target, recipe, budget)
        intake.put_refused(out)
    manifest = Manifest(
        kind="mixture",
        name=Path(settings.recipe).stem,
        objects=sort_objects(objects),
        counts=report.to_counts(),
        parents=intake.parents,
        settings=identity,
    )
    put_manifest(out, manifest)
    return report


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM raise, so that files and processes are cleaned up."""

    def stop(signum: int, _: object) -> None:
        raise Interrupted(signum)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def choose_workers(recipe: Recipe, num_bytes: int) -> int:
    """One process a CPU, or only one where that is faster than to start more."""
    return count_cpus() if recipe.tokenizer is not None or num_bytes > _SMALL_BYTES else 1


def load_recipe(uri: str) -> Recipe:
    """Read a recipe.

    Raises:
        ConfigError: There is none, or it is wrong; the message names the key.
    """
    store, key = open_object(uri)
    try:
        data = store.read(key)
    except DataError as exc:
        raise ConfigError(f"--recipe {uri}: nothing is there; `nanosft mix --help` shows how one begins") from exc
    return parse_recipe(data, where=uri)


def _check_same_parents(found: Manifest, recipe: Recipe) -> None:
    """Refuse to call a mixture finished when a source with a manifest has become another set since."""
    before = {parent.uri: parent.sha256 for parent in found.parents}
    for uri in (uri for source in recipe.sources for uri in source.uri if uri in before):
        manifest = read_manifest(open_store(uri))
        if manifest is not None and manifest.sha256 != before[uri]:
            raise ConfigError(f"{uri}: has changed since the mixture was made: choose another --out")


def _prepare_held_out(recipe: Recipe, directory: Path) -> None:
    if recipe.decontaminate is not None:
        wanted = recipe.decontaminate
        conversations = chain.from_iterable(read_conversations(uri) for uri in wanted.uri)
        build_held_out(conversations, ngram=wanted.ngram, max_overlap=wanted.max_overlap).save(directory)


def _clear(out: Store) -> None:
    """Delete what a killed run has left."""
    for prefix in (*(f"{name}-" for name in PART_NAMES), "refused/"):
        for info in list(out.list(prefix)):
            out.delete(info.key)


def _write(ledger: Ledger, workers: Workers, target: Target, recipe: Recipe, budget: Budget) -> list[ManifestObject]:
    shares = ledger.shares().values()
    num_rows, size = sum(share.num_rows for share in shares), sum(share.size_bytes for share in shares)
    with Bar("mix: write rows", num_rows) as bar:
        results: Iterator[ManifestObject]
        if size <= budget.direct_bytes:
            chunks = ledger.iter_in_order()
            results = workers.map(write_direct, ((target, *item) for item in plan_direct(chunks, recipe.shard_rows)))
        else:
            dealer = Dealer(
                target,
                shard_rows=recipe.shard_rows,
                segment_rows=max(1, budget.segment_bytes * num_rows // size),
                buffer_bytes=budget.segment_bytes,
            )
            results = workers.map(write_segments, ((target, *item) for item in dealer.deal(ledger.iter_by_batch())))
        objects = []
        for item in results:
            objects.append(item)
            bar.advance(item.num_rows or 0)
    return objects


def _flatten(value: Any, key: str = "") -> dict[str, Any]:
    """Nested tables as one, `sources[0].ratio` a key, so that the first difference of two can be named."""
    if isinstance(value, dict):
        items = [(f"{key}.{name}" if key else name, item) for name, item in value.items()]
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        items = [(f"{key}[{index}]", item) for index, item in enumerate(value)]
    else:
        return {key: value}
    return {name: item for path, nested in items for name, item in _flatten(nested, path).items()}
