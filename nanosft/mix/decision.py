"""The steps of the work between reading and writing: what is dropped, kept for validation, and taken how often."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from nanosft.errors import ConfigError
from nanosft.mix.apportion import Demand, apportion
from nanosft.mix.intake import Intake
from nanosft.mix.ledger import TRAIN, VAL, Ledger, Share, Supply
from nanosft.mix.near import KeyFiles, check_pairs, find_candidates, signature_path
from nanosft.mix.recipe import Recipe
from nanosft.mix.report import Flow, Report, SourceReport
from nanosft.mix.workers import Workers
from nanosft.progress import Bar


def decide(recipe: Recipe, intake: Intake, ledger: Ledger, workers: Workers, directory: Path) -> Report:
    """Read the sources and go through the steps of the work up to the order."""
    near = recipe.deduplicate.near != "off"
    key_files: list[Path] = []
    if near:
        with KeyFiles(directory) as keys:
            intake.read(workers, ledger, keys)
            key_files = keys.close()
    else:
        intake.read(workers, ledger, None)
    if recipe.deduplicate.exact:
        ledger.drop_exact()
    if near:
        with Bar("mix: find near duplicates", len(key_files)) as bar:
            for pairs in workers.map(find_candidates, ((path,) for path in key_files)):
                ledger.add_candidates(pairs)
                bar.advance()
        tasks = ((signature_path(directory), pairs, recipe.deduplicate.threshold) for pairs in ledger.iter_candidates())
        ledger.cluster(workers.map(check_pairs, tasks))
    if recipe.deduplicate.near == "drop":
        ledger.drop_near()
    if recipe.decontaminate is not None:
        ledger.drop_contaminated()
    kept = ledger.keep()
    ledger.split(wanted_validation(recipe, kept))
    overlap = ledger.measure_overlap()
    supplies = ledger.limit({i: s.max_rows for i, s in enumerate(recipe.sources) if s.max_rows is not None})
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
    ledger.repeat(amounts, supplies)
    return _make_report(recipe, intake, dropped, supplies, amounts, ledger.shares(), overlap)


def wanted_validation(recipe: Recipe, kept: Mapping[int, int]) -> dict[int, int]:
    """For each source the number of validation rows, of those it has left."""
    wanted = {}
    for index, source in enumerate(recipe.sources):
        share = recipe.split.val_share if source.val_share is None else source.val_share
        num = kept.get(index, 0)
        wanted[index] = source.val_rows if source.val_rows is not None else round(share * num)
        if num and wanted[index] >= num:
            raise ConfigError(
                f"sources[{index}].val_rows: {source.name!r} has {num} rows left, so {wanted[index]} for validation "
                "leave none for training"
            )
    return wanted


def _make_report(
    recipe: Recipe,
    intake: Intake,
    dropped: Mapping[tuple[int, str], int],
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
        near_looked_for=recipe.deduplicate.near != "off",
        synthetic_share=recipe.synthetic_share,
        warn_epochs=recipe.warn_epochs,
    )
