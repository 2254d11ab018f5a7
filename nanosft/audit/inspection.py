"""`nanosft inspect`: what a set of conversations is like, in figures and samples."""

from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nanosft.data import list_data_objects, read_object
from nanosft.foreign import printable
from nanosft.inspection import BINS_CHARS, Inspection, inspect_conversations, render_message
from nanosft.nanochat.tokenizer import load_tokenizer
from nanosft.progress import make_result_console, write_json
from nanosft.settings.audit import InspectSettings

_BAR_WIDTH: Final = 30
_SAMPLE_CHARS: Final = 300
_SAMPLE_MESSAGES: Final = 40


def run_inspect(settings: InspectSettings) -> None:
    """Print what a data set is like.

    Raises:
        DataError: Nothing is there, or a line is no conversation.
    """
    objects = list_data_objects(settings.uri)
    tokenizer = load_tokenizer(settings.tokenizer) if settings.tokenizer else None
    rows = (row for item in objects for row in read_object(item, format=settings.format))
    found = inspect_conversations(rows, num_samples=settings.samples, seed=settings.seed, tokenizer=tokenizer)
    if settings.json_output:
        write_json(to_json(found, num_openings=settings.openings))
        return
    show(make_result_console(), found, uri=settings.uri, num_objects=len(objects), num_openings=settings.openings)


def to_json(found: Inspection, *, num_openings: int) -> dict[str, Any]:
    """The figures as JSON values."""
    return {
        "rows": found.num_rows,
        "characters": found.num_chars,
        "tokens": found.num_tokens,
        "supervised_tokens": found.num_supervised,
        "with_system_message": found.num_with_system,
        "lengths": {str(low): found.lengths[low] for low in BINS_CHARS},
        "turns": {str(num): count for num, count in sorted(found.turns.items())},
        "languages": dict(found.languages.most_common()),
        "sources": dict(found.sources.most_common()),
        "distinct_openings": len(found.openings),
        "openings": dict(found.openings.most_common(num_openings)),
        "exact_duplicates": found.num_exact,
        "near_duplicates": found.num_near,
        "samples": [[{"role": m.role, "content": m.text} for m in item.messages] for item in found.samples],
    }


def show(console: Console, found: Inspection, *, uri: str, num_objects: int, num_openings: int) -> None:
    """Print the figures as tables."""
    rows = max(found.num_rows, 1)
    console.print(f"[bold]{found.num_rows:,}[/] conversations in {num_objects:,} objects at ", end="")
    console.print(uri, markup=False, highlight=False)
    console.print(f"{found.num_chars:,} characters, {found.num_chars / rows:,.0f} a conversation", highlight=False)
    if found.num_tokens:
        console.print(
            f"{found.num_tokens:,} tokens, {found.num_supervised / found.num_tokens:.1%} supervised", highlight=False
        )
    console.print(
        f"duplicates: {found.num_exact:,} exact ({found.num_exact / rows:.1%}), {found.num_near:,} near "
        f"({found.num_near / rows:.1%}); distinct openings: {len(found.openings) / rows:.1%} of the rows",
        highlight=False,
    )
    for title, counts in (
        ("characters", {f"{low:,}+": found.lengths[low] for low in BINS_CHARS}),
        ("turns", {str(num): found.turns[num] for num in sorted(found.turns)[:20]}),
        ("language (guessed)", dict(found.languages.most_common(12))),
        ("source", dict(found.sources.most_common(20))),
    ):
        if counts:
            console.print(_make_histogram(title, counts, rows))
    if num_openings:
        console.print(_make_histogram("opening", dict(found.openings.most_common(num_openings)), rows))
    for conversation in found.samples:
        console.rule(conversation.id[:12])
        for message in conversation.messages[:_SAMPLE_MESSAGES]:
            text = message.text if len(message.text) <= _SAMPLE_CHARS else message.text[:_SAMPLE_CHARS] + "…"
            console.print(render_message(message.role, text))
        if num_more := len(conversation.messages[_SAMPLE_MESSAGES:]):
            console.print(f"… and {num_more:,} messages more", highlight=False)


def _make_histogram(title: str, counts: dict[str, int], total: int) -> Table:
    table = Table(box=None, pad_edge=False, title_justify="left")
    table.add_column(title, overflow="ellipsis", max_width=60, no_wrap=True)
    table.add_column("rows", justify="right", overflow="fold")
    table.add_column("share", justify="right", overflow="fold")
    table.add_column("", no_wrap=True, overflow="crop")
    most = max(counts.values(), default=1) or 1
    for name, count in counts.items():
        table.add_row(
            Text(printable(name)), f"{count:,}", f"{count / total:.1%}", "█" * round(_BAR_WIDTH * count / most)
        )
    return table
