"""`generate --preview`: a few rows of the plan, made and kept as any others, shown as a person reads conversations."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from nanosft.foreign import printable
from nanosft.generate.planning import Plan, plan_row
from nanosft.generate.provider import BadAnswerError, parse_messages
from nanosft.generate.records import RowHistory, read_history, usd_of
from nanosft.inspection import render_message
from nanosft.quality.scores import list_numbers
from nanosft.store import Store

_RAW_CHARS: Final = 400
_INDENT: Final = 4
"""Of what was refused, so that the conversation that was kept stands out."""


def read_preview(store: Store, plan: Plan, rows: Sequence[int], num: int) -> dict[str, Any]:
    """What became of the rows, and what the whole plan will cost if it goes on so, as JSON values."""
    histories = read_history(store, rows)
    shown = [_describe(plan, number, history) for number, history in sorted(histories.items())]
    costs = [row["writer_usd"] + row["judge_usd"] for row in shown]
    is_made = [row["verdict"] != "not made" for row in shown]
    num_made = max(sum(is_made), 1)
    made = [cost for cost, whether in zip(costs, is_made, strict=True) if whether] or [0.0]
    return {
        "rows": shown,
        "num_planned": num,
        "num_accepted": sum(row["verdict"] == "accepted" for row in shown),
        "num_answers": sum(len(row["rejects"]) + (row["verdict"] == "accepted") for row in shown),
        "writer_usd": sum(row["writer_usd"] for row in shown),
        "judge_usd": sum(row["judge_usd"] for row in shown),
        "projected_usd": sum(costs) / num_made * num,
        "projected_least_usd": min(made) * num,
        "projected_most_usd": max(made) * num,
    }


def show_preview(console: Console, preview: Mapping[str, Any]) -> None:
    """Print the rows, each with its verdict and cost, and what the whole will cost."""
    for row in preview["rows"]:
        _show_row(console, row)
    console.rule()
    for line in _say_projection(preview):
        console.print(line, highlight=False, markup=False)


def _say_projection(preview: Mapping[str, Any]) -> Iterator[str]:
    """What the rows that are shown cost, and the whole plan if it goes on so: two sentences."""
    paid_usd = preview["writer_usd"] + preview["judge_usd"]
    judge = f", of it ${preview['judge_usd']:.4f} for the judge" if preview["judge_usd"] else ""
    yield (
        f"{preview['num_accepted']} of {len(preview['rows'])} rows accepted, of {preview['num_answers']} answers; "
        f"${paid_usd:.4f} paid{judge}"
    )
    if paid_usd:
        yield (
            f"all {preview['num_planned']:,} rows at this rate: about ${preview['projected_usd']:,.2f}; if each cost "
            f"as the cheapest or the dearest of these: ${preview['projected_least_usd']:,.2f} to "
            f"${preview['projected_most_usd']:,.2f} (the first prompts were not in the provider's cache yet)"
        )


def _describe(plan: Plan, number: int, history: RowHistory) -> dict[str, Any]:
    row = plan_row(plan, number)
    accepted = history.accepted
    judge = accepted["meta"].get("judge") if accepted is not None else None
    verdict = "accepted" if accepted is not None else "given up" if history.is_given_up else "not made"
    return {
        "row": number,
        "cell": row.cell,
        "course": row.dynamic.id,
        "verdict": verdict,
        "id": accepted["id"] if accepted is not None else None,
        "messages": accepted["messages"] if accepted is not None else [],
        "meta": accepted["meta"] if accepted is not None else {},
        "judge": judge,
        "rejects": [_describe_reject(record) for record in history.rejects],
        "writer_usd": usd_of(history.writer_pico),
        "judge_usd": usd_of(history.judge_pico),
    }


def _describe_reject(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "reason": str(record["reason"]),
        "detail": str(record["detail"]),
        "raw": str(record.get("raw") or ""),
        "judge": record.get("judge"),
    }


def _show_row(console: Console, row: Mapping[str, Any]) -> None:
    console.rule(Text(f"row {row['row']} · {row['cell']} · {row['course']}", style="bold"), align="left")
    for reject in row["rejects"]:
        told = f"refused: {reject['reason']}: {printable(reject['detail'])}"
        console.print(Padding(Text(told, style="red"), (0, 0, 0, _INDENT)))
        for line in _render_refused(reject["raw"]):
            console.print(Padding(line, (0, 0, 0, _INDENT)))
        console.print()
    for message in row["messages"]:
        console.print(render_message(message["role"], _text_of(message["content"])))
    console.print(Text(_say_verdict(row), style="green" if row["verdict"] == "accepted" else "red"))
    console.print()


def _render_refused(raw: str) -> Iterator[Text]:
    """A refused answer: its messages, or the beginning of whatever else it is."""
    try:
        messages = parse_messages(raw)
    except BadAnswerError:
        yield Text(printable(raw[:_RAW_CHARS] + ("…" if len(raw) > _RAW_CHARS else "")), style="dim")
        return
    for message in messages:
        yield render_message(message.role, message.text, style="dim")


def _say_verdict(row: Mapping[str, Any]) -> str:
    """What became of a row, its scores and its cost, in one line."""
    judge = row["judge"] or {}
    scores = list_numbers(judge.get("scores", {}))
    parts = [row["verdict"] + (f" after {len(row['rejects'])} refused" if row["rejects"] else "")]
    if scores:
        parts.append(f"{scores}: {judge['reason']}")
    elif judge:
        parts.append(f"not scored: {judge['unscored']}")
    parts.append(f"${row['writer_usd'] + row['judge_usd']:.4f}")
    return " · ".join(printable(part) for part in parts)


def _text_of(content: object) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content)
    return str(content)
