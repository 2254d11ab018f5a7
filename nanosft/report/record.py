"""What a page is drawn from: one plain record of what lies in the store, with nothing read here."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from nanosft.lineage import Ancestor
from nanosft.manifest import Manifest
from nanosft.report.rows import SetFigures

Subject = Literal["run", "data", "audit"]


@dataclass(frozen=True, slots=True)
class State:
    """A saved state: after which step, by which process, and when."""

    step: int
    attempt: str
    saved_s: float
    manifest: Manifest | None


@dataclass
class Evaluation:
    """An evaluation as its objects have it."""

    uri: str
    scores: dict[str, Any]
    answers: list[dict[str, Any]]
    manifest: Manifest | None = None


@dataclass
class Record:
    """All that a page is drawn from.

    Attributes:
        uri: What was asked for, or the model that an evaluation is of.
        subject: What it is.
        name: For the title.
        lineage: It and its ancestors; None where no manifest and no state tells.
        manifest: Its own; None while it is unfinished.
        metrics: The lines of a run's metrics.jsonl.
        metrics_s: When they were written, in seconds since 1970.
        states: Saved states, oldest first.
        evaluation: The newest; None without one.
        audit: The content of an audit's audit.json.
        sets: The sets of conversations: the mixture or data first, then those it was made from by generate.
        rows: Rows for the browser, with tokens and clusters.
        num_rows_seen: Rows that `rows` were drawn from.
        stated: (topic, statement, rows) of the knowledge base's facts.
        num_fact_rows: Conversations that were looked through for facts.
        problems: What could not be read.
        tokenizer_uri: Whose tokens are shown; empty without any.
    """

    uri: str
    subject: Subject
    name: str
    lineage: Ancestor | None = None
    manifest: Manifest | None = None
    metrics: list[dict[str, Any]] = field(default_factory=list)
    metrics_s: float | None = None
    states: list[State] = field(default_factory=list)
    evaluation: Evaluation | None = None
    audit: dict[str, Any] | None = None
    sets: list[SetFigures] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    num_rows_seen: int = 0
    stated: list[tuple[str, str, int]] = field(default_factory=list)
    num_fact_rows: int = 0
    problems: list[str] = field(default_factory=list)
    tokenizer_uri: str = ""

    @property
    def settings(self) -> dict[str, Any]:
        """What decided the run's content, by its manifest or its newest state; empty where neither is there."""
        return dict(self.lineage.manifest.settings) if self.lineage is not None and self.lineage.manifest else {}

    def ancestors(self) -> Iterator[Ancestor]:
        """The subject and all that it was made from, each followed by its parents."""
        return self.lineage.walk() if self.lineage is not None else iter(())

    def evaluations(self) -> list[dict[str, Any]]:
        """The lines of the metrics that evaluate or sample."""
        return [line for line in self.metrics if "val_loss" in line or "samples" in line]

    def steps(self) -> list[dict[str, Any]]:
        """The lines of the metrics that are of a train step."""
        return [line for line in self.metrics if "loss" in line]
