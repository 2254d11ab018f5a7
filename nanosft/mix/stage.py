"""`nanosft mix`: a recipe's sources into train and validation objects and a manifest."""

import re
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from nanosft.data import Inputs, Origin, OutputPrefix, check_what_is_there, find_inputs
from nanosft.errors import ConfigError, DataError
from nanosft.manifest import Manifest, ManifestObject, sort_objects
from nanosft.mix.disk import (
    PART_NAMES,
    SegmentWriter,
    Target,
    find_cacheable_bytes,
    open_workspace,
    plan_direct,
    write_direct,
    write_segments,
)
from nanosft.mix.reading import SourceReader, start_reader
from nanosft.mix.recipe import Recipe, parse_recipe
from nanosft.mix.report import Report, make_report
from nanosft.mix.selecting import (
    Database,
    Ledger,
    Selection,
    apportion_sources,
    find_edges,
    plan_partitions,
    plan_validation,
)
from nanosft.mix.tables import describe, make_funnel_table, make_share_table
from nanosft.mix.tuning import Tuning
from nanosft.parallel import Workers, count_cpus
from nanosft.progress import Bar, make_result_console, write_json
from nanosft.settings.mix import MixSettings
from nanosft.signals import raising
from nanosft.store import open_object, open_store

_PART_KEY: Final = re.compile(rf"({'|'.join(PART_NAMES)})-[0-9]{{5,}}\.jsonl(\.gz|\.zst)?")
_MIB: Final = 1 << 20
_SMALL_BYTES: Final = 16 * _MIB
_PLAN_ROW_BYTES: Final = 12
"""What a row's place in the plan of an object takes; the plans of all objects under way are in memory."""
_COMPRESSION: Final = 5
"""How many times as large compressed conversations become, roughly."""


def run_mix(settings: MixSettings) -> None:
    """Make the mixture and print what it is made of: tables, or one JSON object.

    Raises:
        Interrupted: SIGTERM came; there is no manifest, and the next run begins anew.
    """
    with raising("the mixture is not finished: the same command cleans up and begins anew"):
        report = make_mixture(settings)
    if settings.json_output:
        write_json(report.to_counts() if report else {"finished_before": True})
        return
    stdout = make_result_console()
    if report is None:
        stdout.print(f"{settings.out}: finished before, with the same settings", highlight=False)
        return
    stdout.print(make_funnel_table(report), make_share_table(report))
    for line in describe(report):
        stdout.print(line, highlight=False, markup=False)


def make_mixture(settings: MixSettings, tuning: Tuning | None = None) -> Report | None:
    """Make the mixture that a recipe asks for.

    Args:
        settings: The recipe, where to put what, and with what resources.
        tuning: How much is done at a time; None is what fits the settings' memory limit.

    Returns:
        What it is made of; None when it is there already, made with the same settings.

    Raises:
        ConfigError: The recipe cannot be met, or the output holds another mixture, or one of a source's earlier state.
        DataError: A source is missing, empty or malformed.
    """
    recipe = load_recipe(settings.recipe)
    identity = {**_flatten(recipe.model_dump(mode="json")), **settings.content()}
    out = None if settings.dry_run or settings.out is None else open_store(settings.out)
    prefix = None if out is None else OutputPrefix(out, "mix", identity)
    if prefix is not None and _is_finished(prefix, recipe):
        return None
    inputs, held_out = _find_inputs(recipe)
    if prefix is not None:
        prefix.check_apart(item.uri for found in (*inputs, *held_out) for item in found.objects)
    num_bytes = sum(
        item.size_bytes * (1 if item.key.endswith(".jsonl") else _COMPRESSION)
        for found in inputs
        for item in found.objects
    )
    num_workers = settings.workers or choose_workers(recipe, num_bytes)
    tuning = tuning or Tuning.within(settings.memory_limit * _MIB, num_workers)
    tokenizer_pickle = _read_tokenizer(recipe.tokenizer) if recipe.tokenizer is not None else None
    with open_workspace(settings.work_dir, out.uri if out else None) as directory:
        reader = SourceReader(
            recipe, inputs, directory, on_bad_row=settings.on_bad_row, max_bad_share=settings.max_bad_share
        )
        for found in held_out:
            reader.read_held_out(found)
        is_small = num_bytes <= settings.memory_limit * _MIB // 2
        with (
            Workers(num_workers, start_reader, recipe, directory, tuning, tokenizer_pickle) as workers,
            closing(Database(directory, tuning, in_memory=is_small)) as db,
        ):
            report, selection = select_rows(recipe, reader, db, workers, directory, tuning)
            if out is None or prefix is None:
                return report
            with prefix.writing(reader.parents) as finished:
                if finished is not None:  # by another process, since
                    return None
                target = Target(out.uri, recipe.compression, directory)
                objects = _write(selection, workers, target, recipe, tuning)
                refused = reader.put_refused(out)
                manifest = Manifest(
                    kind="mixture",
                    name=Path(settings.recipe).stem,
                    objects=sort_objects(objects),
                    counts=report.to_counts(),
                    parents=reader.parents,
                    settings=identity,
                )
                stale = {f"refused/{source.name}.jsonl" for source in recipe.sources} - refused
                prefix.commit(manifest, is_own=lambda key: _PART_KEY.fullmatch(key) is not None or key in stale)
    return report


def _read_tokenizer(uri: str) -> bytes:
    """The tokenizer's bytes, read once: one that is replaced meanwhile is not met by some of the workers."""
    from nanosft.nanochat.tokenizer import read_tokenizer  # noqa: PLC0415 - 0.1 s that only counting tokens needs

    return read_tokenizer(uri)[0]


def select_rows(
    recipe: Recipe, reader: SourceReader, db: Database, workers: Workers, directory: Path, tuning: Tuning
) -> tuple[Report, Selection]:
    """The order of work, from the first line read to each row's place in the output.

    Returns:
        What the mixture is made of, and the rows to write.
    """
    # Parse and filter: worker processes spill the rows; one narrow record of each comes here.
    ledger = Ledger(db, recipe, directory, tuning)
    with Bar("mix: read MiB", -(-reader.num_bytes // _MIB)) as bar:
        num_rows = 0
        for batch in reader.read(workers):
            ledger.add(batch)
            num_rows += len(batch)
            bar.update(-(-reader.num_bytes_read // _MIB), rows=num_rows, source=recipe.sources[batch.source].name)
    ledger.finish_adding()
    # Exact duplicates.
    if recipe.deduplicate.exact:
        ledger.drop_exact()
    # Near duplicates: worker processes find pairs of rows, and the pairs make clusters.
    if recipe.deduplicate.near != "off":
        ledger.save_dropped()
        partitions = plan_partitions(directory, tuning)
        tasks = ((directory, item, recipe.deduplicate.threshold, tuning) for item in partitions)
        with Bar("mix: find near duplicates", len(partitions)) as bar:
            for edges in workers.map(find_edges, tasks):
                ledger.add_edges(edges)
                bar.advance()
        ledger.cluster()
    if recipe.deduplicate.near == "drop":
        ledger.drop_near()
    # Decontaminate: which rows repeat held-out text was found when they were read.
    if recipe.decontaminate is not None:
        ledger.drop_contaminated()
    dropped = ledger.count_dropped()
    ledger.keep()
    # Split.
    selection = Selection(db, recipe, directory, num_rows=ledger.num_rows, has_clusters=ledger.has_clusters)
    wanted_val = plan_validation(recipe, selection.count())
    selection.split(wanted_val)
    overlap = selection.measure_overlap()
    # Apportion.
    supplies = selection.limit({i: s.max_rows for i, s in enumerate(recipe.sources) if s.max_rows is not None})
    amounts = apportion_sources(recipe, {index: supply.amount for index, supply in supplies.items()})
    # Repeat, and give each copy its place in the order of the output.
    selection.repeat(amounts, supplies)
    ledger.close()
    taken = selection.count_parts()
    return make_report(recipe, reader.counts, dropped, wanted_val, overlap, supplies, amounts, taken), selection


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


def _find_inputs(recipe: Recipe) -> tuple[list[Inputs], list[Inputs]]:
    """Each source's objects, and the held-out sets'."""
    held_out = [find_inputs(recipe.decontaminate.uri)] if recipe.decontaminate is not None else []
    return [find_inputs(source.uri) for source in recipe.sources], held_out


def _is_finished(prefix: OutputPrefix, recipe: Recipe) -> bool:
    """Whether the mixture is there; raises where another is, or one of a source's earlier state."""
    found = prefix.find_finished()
    if found is None:
        return False

    def find() -> list[Origin]:
        inputs, held_out = _find_inputs(recipe)
        return [origin for one in (*inputs, *held_out) for origin in one.find_origins()]

    check_what_is_there(found, find, out=prefix.store.uri)
    return True


def _write(
    selection: Selection, workers: Workers, target: Target, recipe: Recipe, tuning: Tuning
) -> list[ManifestObject]:
    """Put the rows in their order: straight from the spill files, or by way of segments where they are too many."""
    counts = selection.count_parts().values()
    num_rows, size = sum(count.num_rows for count in counts), sum(count.size_bytes for count in counts)
    cacheable = find_cacheable_bytes() if tuning.cacheable_bytes is None else tuning.cacheable_bytes
    with Bar("mix: write rows", num_rows) as bar:
        plan_bytes = min(num_rows, recipe.shard_rows) * _PLAN_ROW_BYTES * (workers.num_ahead + 2)
        if size <= cacheable and plan_bytes <= tuning.segment_bytes:
            chunks = selection.iter_in_order()
            results = workers.map(write_direct, ((target, *item) for item in plan_direct(chunks, recipe.shard_rows)))
        else:
            writer = SegmentWriter(
                target,
                shard_rows=recipe.shard_rows,
                segment_rows=max(1, tuning.segment_bytes * num_rows // size),
                buffer_bytes=tuning.segment_bytes,
            )
            results = workers.map(write_segments, ((target, *item) for item in writer.write(selection.iter_by_batch())))
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
