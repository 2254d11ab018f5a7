"""The steps of the work between reading and writing: what is dropped, kept for validation, and taken how often."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from nanosft.errors import ConfigError
from nanosft.mix.reading.reader import Intake
from nanosft.mix.recipe import Recipe
from nanosft.mix.report import Flow, Report, SourceReport
from nanosft.mix.selecting.apportion import Demand, apportion
from nanosft.mix.selecting.ledger import Ledger
from nanosft.mix.selecting.near import find_edges, plan_parts
from nanosft.mix.selecting.selection import TRAIN, VAL, Selection, Share, Supply
from nanosft.parallel import Workers
from nanosft.progress import Bar


def decide(
    recipe: Recipe, intake: Intake, ledger: Ledger, workers: Workers, directory: Path
) -> tuple[Report, Selection]:
    """Read the sources and go through the steps of the work up to the order."""
    intake.read(workers, ledger)
    if recipe.deduplicate.exact:
        ledger.drop_exact()
    if recipe.deduplicate.near != "off":
        ledger.save_dropped()
        parts = plan_parts(directory)
        with Bar("mix: find near duplicates", len(parts)) as bar:
            tasks = ((directory, item, recipe.deduplicate.threshold) for item in parts)
            for edges in workers.map(find_edges, tasks):
                ledger.add_edges(edges)
                bar.advance()
        ledger.cluster()
    if recipe.deduplicate.near == "drop":
        ledger.drop_near()
    if recipe.decontaminate is not None:
        ledger.drop_contaminated()
    selection = ledger.keep()
    wanted_val = wanted_validation(recipe, selection.count())
    selection.split(wanted_val)
    overlap = selection.measure_overlap()
    supplies = selection.limit({i: s.max_rows for i, s in enumerate(recipe.sources) if s.max_rows is not None})
    amounts = apportion(
        [
            Demand(
                name=source.name,
                available=supplies[index].amount if index in supplies else 0,
                ratio=source.ratio,
                epochs=source.epochs,
                rest=source.rest,
                synthetic=source.synthetic,
            )
            for index, source in enumerate(recipe.sources)
        ],
        synthetic_share=recipe.synthetic_share,
        total=recipe.total,
        max_epochs=recipe.max_epochs,
    )
    if not any(amounts):
        raise ConfigError("the mixture is empty: no source has a train row left; look at --dry-run with fewer filters")
    dropped = ledger.dropped()
    selection.repeat(amounts, supplies)
    report = _make_report(recipe, intake, dropped, wanted_val, supplies, amounts, selection.shares(), overlap)
    return report, selection


def wanted_validation(recipe: Recipe, kept: Mapping[int, int]) -> dict[int, int]:
    """For each source the number of validation rows, of those it has left."""
    wanted = {}
    for index, source in enumerate(recipe.sources):
        share = recipe.split.val_share if source.val_share is None else source.val_share
        num = kept.get(index, 0)
        wanted[index] = source.val_rows if source.val_rows is not None else round(share * num)
        if num and wanted[index] >= num:
            own = "val_rows" if source.val_rows is not None else "val_share" if source.val_share is not None else None
            key = f"sources[{index}].{own}" if own else "split.val_share"
            raise ConfigError(
                f"{key}: {source.name!r} has {num} rows left, so {wanted[index]} for validation leave none for training"
            )
    return wanted


def _find_looked_for(recipe: Recipe) -> Iterator[str]:
    """The kinds of overlap between train and validation that the recipe has the rows compared for."""
    yield "cells"
    if recipe.deduplicate.near != "off":
        yield "clusters"
    if recipe.compares_texts:
        yield "texts"


def _make_report(
    recipe: Recipe,
    intake: Intake,
    dropped: Mapping[tuple[int, str], int],
    wanted_val: Mapping[int, int],
    supplies: Mapping[int, Supply],
    amounts: Sequence[int],
    shares: Mapping[tuple[int, int], Share],
    overlap: Mapping[str, int],
) -> Report:
    sources = []
    nothing = Share()
    for index, source in enumerate(recipe.sources):
        count, supply = intake.counts[index], supplies.get(index, Supply(0, 0))
        train, val = shares.get((TRAIN, index), nothing), shares.get((VAL, index), nothing)
        flow = Flow(
            num_lines=count.num_lines,
            num_bad=count.num_bad,
            filtered=count.filtered,
            num_exact=dropped.get((index, "exact"), 0),
            num_near=dropped.get((index, "near"), 0),
            num_contaminated=dropped.get((index, "contaminated"), 0),
            num_val=val.num_rows,
            wanted_val=wanted_val[index],
            num_train=supply.num_rows,
        )
        sources.append(
            SourceReport(
                name=source.name,
                synthetic=source.synthetic,
                flow=flow,
                wanted=amounts[index],
                amount=train.amount,
                available=supply.amount,
                num_rows=train.num_rows,
                num_tokens=train.num_tokens,
                num_supervised=train.num_supervised,
            )
        )
    return Report(
        by=recipe.by,
        sources=tuple(sources),
        num_val=sum(source.flow.num_val for source in sources),
        overlap=overlap,
        looked_for=frozenset(_find_looked_for(recipe)),
        synthetic_share=recipe.synthetic_share,
        warn_epochs=recipe.warn_epochs,
    )
