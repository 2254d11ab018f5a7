"""The page of a preview: what `nanosft generate --preview` has made, with what the whole plan will cost."""

from collections.abc import Iterator, Mapping
from typing import Any

from nanosft.quality.scores import list_numbers
from nanosft.report.blocks import Browser, Facts, Page, Section, Table
from nanosft.report.browser import compress_rows, mark_clusters
from nanosft.report.wording import say_money


def make_preview_page(uri: str, preview: Mapping[str, Any]) -> Page:
    """The page of a preview.

    Args:
        uri: The data set that the rows are kept in.
        preview: What `generate` tells of it.
    """
    paid_usd = preview["writer_usd"] + preview["judge_usd"]
    facts = [
        ("rows accepted", f"{preview['num_accepted']} of {len(preview['rows'])}"),
        ("answers", f"{preview['num_answers']:,}"),
        ("paid", say_money(paid_usd)),
        ("of it for the judge", say_money(preview["judge_usd"])),
        (f"all {preview['num_planned']:,} rows at this rate", say_money(preview["projected_usd"])),
        ("if each cost as the cheapest of these", say_money(preview["projected_least_usd"])),
        ("if each cost as the dearest", say_money(preview["projected_most_usd"])),
    ]
    table = Table(
        "Rows",
        ["row", "topic and persona", "course", "verdict", "refused before", "scores", "cost"],
        [
            [
                str(row["row"]),
                row["cell"],
                row["course"],
                row["verdict"],
                str(len(row["rejects"])),
                list_numbers((row["judge"] or {}).get("scores", {})),
                say_money(row["writer_usd"] + row["judge_usd"]),
            ]
            for row in preview["rows"]
        ],
    )
    rows = list(_list_rows(preview))
    mark_clusters(rows)
    told = "All rows of the preview, and every answer that was refused."
    browser = Browser(compress_rows(rows), len(rows), told)
    status = f"{uri} · {len(preview['rows'])} of {preview['num_planned']:,} rows of the plan"
    return Page("Preview", status, [Section("preview", "What was made", [Facts(facts), table])], browser)


def _list_rows(preview: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows of the data browser."""
    for row in preview["rows"]:
        for reject in row["rejects"]:
            meta = {"row": row["row"], "cell": row["cell"], "judge": reject["judge"]}
            told = {"reasons": [reject["reason"]], "detail": reject["detail"], "raw": reject["raw"]}
            yield {"messages": [], "meta": meta, "part": "rejected", **told}
        if row["messages"]:
            yield {"id": row["id"], "messages": row["messages"], "meta": row["meta"], "part": "accepted"}
