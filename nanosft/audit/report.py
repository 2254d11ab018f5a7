"""What an audit found, and the table of it."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from pydantic import TypeAdapter, ValidationError
from rich.markup import escape
from rich.table import Table

from nanosft.errors import DataError
from nanosft.progress import make_result_console
from nanosft.quality.scores import list_means
from nanosft.quality.verdict import Defect
from nanosft.settings.gates import GATE_NAMES


@dataclass(frozen=True, slots=True)
class Example:
    """One defect as it is shown: where, what, and the text at fault."""

    where: str
    detail: str
    excerpt: str


@dataclass(slots=True)
class Audit:
    """What an audit found.

    Attributes:
        uri: The set.
        num_rows: Rows read, unreadable lines included.
        num_clean: Rows that no gate refuses.
        num_refused: Rows that some gate refuses.
        num_unreadable: Lines that are no conversation.
        refused: Rows refused by `gate/reason`; a row counts once for each.
        reported: Rows with a defect that does not refuse, by `gate/reason`.
        examples: First defects of each kind.
        name: The name that the assistant was held to; empty where none was given or claimed.
        maker: The maker likewise.
        full_stops: Whether the set's answers end on a stop; None where that is not clear.
        cpu_ms_per_row: Processor time of the second pass.
        written: Where the rows are, by part: clean, refused, and unreadable if there are any; empty without `--out`.
        judge: What the judge made of the rows, and what it cost; None where there is none.
    """

    uri: str
    num_rows: int = 0
    num_clean: int = 0
    num_refused: int = 0
    num_unreadable: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    reported: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[Example]] = field(default_factory=dict)
    name: str = ""
    maker: str = ""
    full_stops: bool | None = None
    cpu_ms_per_row: float = 0.0
    written: dict[str, str] = field(default_factory=dict)
    judge: dict[str, Any] | None = None

    def count(self, where: str, defects: Iterable[Defect], *, max_examples: int) -> None:
        """Count a row's defects, each kind once, and keep the first as examples."""
        seen = set()
        for defect in defects:
            if defect.name in seen:
                continue
            seen.add(defect.name)
            (self.refused if defect.refuses else self.reported)[defect.name] += 1
            examples = self.examples.setdefault(defect.name, [])
            if len(examples) < max_examples:
                place = where.rpartition(":")[2] + ("" if defect.index is None else f", message {defect.index}")
                examples.append(Example(place, defect.detail, defect.excerpt))

    def to_json(self) -> dict[str, Any]:
        """Everything, in the types of JSON."""
        plain = {item.name: getattr(self, item.name) for item in fields(self)}
        examples = {name: [asdict(example) for example in found] for name, found in self.examples.items()}
        return {**plain, "refused": dict(self.refused), "reported": dict(self.reported), "examples": examples}

    @classmethod
    def parse(cls, data: bytes, *, max_examples: int, where: str) -> Self:
        """The audit whose `to_json` the bytes are, with `max_examples` examples of each defect at most.

        Raises:
            DataError: They are none.
        """
        try:
            found = TypeAdapter(cls).validate_json(data)
        except ValidationError as exc:
            problem = exc.errors()[0]
            place = ".".join(map(str, problem["loc"]))
            raise DataError(f"{where}: not an audit's report: {place}: {problem['msg']}: choose another --out") from exc
        found.examples = {name: items[:max_examples] for name, items in found.examples.items()}
        return found

    def counts(self) -> dict[str, Any]:
        """The counts as manifests keep them."""
        rows = {"read": self.num_rows, "clean": self.num_clean, "refused": self.num_refused}
        counts = {
            "rows": {**rows, "unreadable": self.num_unreadable},
            "refused": dict(sorted(self.refused.items())),
            "reported": dict(sorted(self.reported.items())),
        }
        return counts if self.judge is None else {**counts, "judge": self.judge}


def print_audit(audit: Audit) -> None:
    """The table of defects with examples, on standard output."""
    console = make_result_console()
    table = Table(title=f"audit of {escape(audit.uri)}", title_justify="left", show_lines=False)
    table.add_column("gate", no_wrap=True)
    table.add_column("defect", no_wrap=True)
    table.add_column("rows", justify="right", no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True)
    table.add_column("examples", overflow="fold")
    names = sorted({*audit.refused, *audit.reported}, key=_gate_order)
    for name in names:
        gate, reason = name.split("/")
        count = audit.refused[name] + audit.reported[name]
        shown = "\n".join(_show(item) for item in audit.examples.get(name, ()))
        label = reason if name in audit.refused else f"{reason} [dim](reported)[/]"
        table.add_row(gate, label, f"{count:,}", f"{count / max(audit.num_rows, 1):.1%}", shown)
    console.print(table)
    held = f" as {audit.name}" + (f" by {audit.maker}" if audit.maker else "") if audit.name else ""
    console.print(
        f"{audit.num_rows:,} rows{held}: [green]{audit.num_clean:,} clean[/], [red]{audit.num_refused:,} refused[/], "
        f"{audit.num_unreadable:,} unreadable"
        + (f"; {audit.cpu_ms_per_row:.2f} ms CPU a row" if audit.cpu_ms_per_row else "")
    )
    if audit.judge is not None:
        console.print(_say_judged(audit.judge), highlight=False)
    for part, uri in audit.written.items():
        console.print(f"{part}: {escape(uri)}", soft_wrap=True)


def _show(example: Example) -> str:
    excerpt = f": [cyan]{escape(example.excerpt)}[/]" if example.excerpt else ""
    return f"[dim]{escape(example.where)}[/] {escape(example.detail)}{excerpt}"


def _say_judged(judge: dict[str, Any]) -> str:
    rows, means = judge["rows"], list_means(judge["scores"])
    return (
        f"{escape(str(judge['model']))} scored {rows['scored'] + rows['refused']:,} rows, of which {rows['refused']:,} "
        f"are refused for it, and {rows['unscored']:,} got no score; ${judge['cost_usd']:.4f} paid"
        + (f"; means of those kept: {means}" if means else "")
    )


def _gate_order(name: str) -> tuple[int, str]:
    """Gates in their order, the judge after them."""
    gate = name.partition("/")[0]
    return GATE_NAMES.index(gate) if gate in GATE_NAMES else len(GATE_NAMES), name
