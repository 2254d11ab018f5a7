"""What a mixture is made of, wanted and achieved, with the counts for its manifest. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from nanosft.mix.reading import LineCounts
from nanosft.mix.recipe import Recipe, Unit
from nanosft.mix.selecting import TRAIN, VAL, PartCounts, Supply

_MISSING_VAL_SHARE: Final = 0.05
"""Of the validation rows wanted, that may be missing without a warning."""


@dataclass(frozen=True, slots=True)
class FunnelCounts:
    """What became of a source's lines, in the order of work.

    Attributes:
        num_lines: Lines read.
        num_bad: Lines that are no conversations, skipped.
        filtered: Rows refused, by filter or gate.
        num_exact: Exact duplicates dropped.
        num_near: Near duplicates dropped.
        num_contaminated: Rows dropped for repeating held-out sets.
        num_val: Rows kept for validation.
        wanted_val: Rows wanted for it; fewer are kept where rows that belong together are more than are still wanted.
        num_train: Rows left to be taken for training, each once.
    """

    num_lines: int
    num_bad: int = 0
    filtered: Mapping[str, int] = field(default_factory=dict)
    num_exact: int = 0
    num_near: int = 0
    num_contaminated: int = 0
    num_val: int = 0
    wanted_val: int = 0
    num_train: int = 0


@dataclass(frozen=True, slots=True)
class SourceReport:
    """One source in the mixture's train part.

    Attributes:
        name: The source's name.
        synthetic: Whether it is on the synthetic side.
        funnel: What became of its lines.
        wanted: Amount apportioned to it, in the unit of the mixture.
        amount: Amount achieved.
        available: Amount of one epoch.
        num_rows: Train lines, repetitions counted.
        num_tokens: Their tokens; 0 without a tokenizer.
        num_supervised: Their tokens that are trained on; 0 without a tokenizer.
    """

    name: str
    synthetic: bool
    funnel: FunnelCounts
    wanted: int
    amount: int
    available: int
    num_rows: int
    num_tokens: int
    num_supervised: int

    @property
    def epochs(self) -> float:
        """How often its train rows are taken, in the unit of the mixture."""
        return self.amount / self.available if self.available else 0.0


@dataclass(frozen=True, slots=True)
class Report:
    """A whole mixture.

    Attributes:
        by: The unit of shares.
        sources: In the recipe's order.
        num_val: Validation rows.
        overlap: Validation rows that share a text, a cluster or a cell with a train row; all zero.
        looked_for: The kinds of `overlap` that were looked for: without, its number says nothing.
        synthetic_share: As wanted, or None.
        warn_epochs: From where on repetition is warned of.
    """

    by: Unit
    sources: tuple[SourceReport, ...]
    num_val: int
    overlap: Mapping[str, int]
    looked_for: frozenset[str]
    synthetic_share: float | None
    warn_epochs: float

    @property
    def amount(self) -> int:
        """The train part's size in the unit of shares."""
        return sum(source.amount for source in self.sources)

    @property
    def num_rows(self) -> int:
        """Train lines."""
        return sum(source.num_rows for source in self.sources)

    @property
    def synthetic_achieved(self) -> float:
        """Share of the synthetic sources."""
        return sum(source.amount for source in self.sources if source.synthetic) / max(self.amount, 1)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should look at before training on it."""
        return tuple(self._find_warnings())

    def _find_warnings(self) -> Iterator[str]:
        for source in self.sources:
            if source.epochs > self.warn_epochs:
                limit = f"warn_epochs = {self.warn_epochs:g}"
                yield f"{source.name} is repeated {source.epochs:.1f} times, more than {limit}"
            num_val, wanted_val = source.funnel.num_val, source.funnel.wanted_val
            if wanted_val - num_val > max(1, _MISSING_VAL_SHARE * wanted_val):
                yield (
                    f"{source.name} has {num_val:,} validation rows where {wanted_val:,} were "
                    "wanted: rows of one plan cell or near-duplicate cluster stay together, and these are too many"
                )
            if source.num_rows == 0:
                yield f"{source.name} adds no row"
        if overlap := {name: num for name, num in self.overlap.items() if num}:
            yield f"validation and train overlap: {overlap}"

    def to_counts(self) -> dict[str, Any]:
        """JSON values for the manifest."""
        return {
            "unit": self.by,
            "train_rows": self.num_rows,
            "train_amount": self.amount,
            "val_rows": self.num_val,
            "overlap": {kind: num for kind, num in self.overlap.items() if kind in self.looked_for},
            "synthetic_share": round(self.synthetic_achieved, 6),
            "sources": {source.name: self._count(source) for source in self.sources},
        }

    def _count(self, source: SourceReport) -> dict[str, Any]:
        funnel = source.funnel
        return {
            "lines": funnel.num_lines,
            "bad": funnel.num_bad,
            "filtered": dict(sorted(funnel.filtered.items())),
            "exact_duplicates": funnel.num_exact,
            "near_duplicates": funnel.num_near,
            "contaminated": funnel.num_contaminated,
            "val_rows": funnel.num_val,
            "distinct_train_rows": funnel.num_train,
            "train_rows": source.num_rows,
            "train_tokens": source.num_tokens,
            "train_supervised_tokens": source.num_supervised,
            "wanted_amount": source.wanted,
            "amount": source.amount,
            "share": round(source.amount / max(self.amount, 1), 6),
            "epochs": round(source.epochs, 6),
        }


def make_report(
    recipe: Recipe,
    lines: Sequence[LineCounts],
    dropped: Mapping[tuple[int, str], int],
    wanted_val: Mapping[int, int],
    overlap: Mapping[str, int],
    supplies: Mapping[int, Supply],
    amounts: Sequence[int],
    taken: Mapping[tuple[int, int], PartCounts],
) -> Report:
    """The report of a mixture, of what each step of the work has counted.

    Args:
        recipe: The recipe.
        lines: What was read, by source.
        dropped: Rows dropped, by source and step.
        wanted_val: Validation rows wanted, by source.
        overlap: Validation rows that share something with a train row, by what it is.
        supplies: What one epoch of each source's train rows is.
        amounts: What was apportioned to each source.
        taken: What was taken, by part and source.
    """
    sources = []
    for index, source in enumerate(recipe.sources):
        count, supply = lines[index], supplies.get(index, Supply(0, 0))
        train, val = taken.get((TRAIN, index), PartCounts()), taken.get((VAL, index), PartCounts())
        funnel = FunnelCounts(
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
                funnel=funnel,
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
        num_val=sum(source.funnel.num_val for source in sources),
        overlap=overlap,
        looked_for=frozenset(_find_looked_for(recipe)),
        synthetic_share=recipe.synthetic_share,
        warn_epochs=recipe.warn_epochs,
    )


def _find_looked_for(recipe: Recipe) -> Iterator[str]:
    """The kinds of overlap between train and validation that the recipe has the rows compared for."""
    yield "cells"
    if recipe.deduplicate.near != "off":
        yield "clusters"
    if recipe.compares_texts:
        yield "texts"
