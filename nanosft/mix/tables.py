"""A mixture's report as tables and sentences for people. Pure."""

from collections.abc import Mapping
from typing import Final

from rich.markup import escape
from rich.table import Table

from nanosft.mix.recipe import Unit
from nanosft.mix.report import Report

_UNIT_NAMES: Final[Mapping[Unit, str]] = {"rows": "rows", "tokens": "tokens", "supervised_tokens": "supervised tokens"}


def make_funnel_table(report: Report) -> Table:
    """What became of each source's lines, a column for each step of the work."""
    headings = ("read", "bad", "filtered", "exact dup.", "near dup.", "held out", "val", "train")
    table = Table(title="Rows through the steps of the work", title_justify="left")
    table.add_column("source", overflow="fold")
    for heading in headings:
        table.add_column(heading, justify="right", overflow="fold")
    rows = [
        (
            item.name,
            (
                item.funnel.num_lines,
                item.funnel.num_bad,
                sum(item.funnel.filtered.values()),
                item.funnel.num_exact,
                item.funnel.num_near,
                item.funnel.num_contaminated,
                item.funnel.num_val,
                item.funnel.num_train,
            ),
        )
        for item in report.sources
    ]
    for name, numbers in rows:
        table.add_row(escape(name), *(f"{number:,}" for number in numbers))
    table.add_section()
    table.add_row("all", *(f"{sum(column):,}" for column in zip(*(numbers for _, numbers in rows), strict=True)))
    return table


def make_share_table(report: Report) -> Table:
    """Wanted and achieved shares of the train part."""
    table = Table(title=f"Train part, shares by {_UNIT_NAMES[report.by]}", title_justify="left")
    table.add_column("source", overflow="fold")
    for heading in ("wanted", "achieved", "epochs", "rows", "tokens", "supervised"):
        table.add_column(heading, justify="right", overflow="fold")
    wanted = max(sum(item.wanted for item in report.sources), 1)
    for item in report.sources:
        table.add_row(
            escape(item.name) + (" [dim](synthetic)[/]" if item.synthetic else ""),
            f"{item.wanted / wanted:.3%}",
            f"{item.amount / max(report.amount, 1):.3%}",
            f"{item.epochs:.2f}",
            f"{item.num_rows:,}",
            f"{item.num_tokens:,}" if item.num_tokens else "-",
            f"{item.num_supervised:,}" if item.num_supervised else "-",
        )
    table.add_section()
    tokens, supervised = (
        sum(getattr(item, name) for item in report.sources) for name in ("num_tokens", "num_supervised")
    )
    table.add_row(
        "all",
        "",
        "",
        "",
        f"{report.num_rows:,}",
        f"{tokens:,}" if tokens else "-",
        f"{supervised:,}" if supervised else "-",
    )
    return table


def describe(report: Report) -> list[str]:
    """The sentences below the tables."""
    lines = []
    if report.synthetic_share is not None:
        lines.append(f"synthetic share: wanted {report.synthetic_share:.3%}, achieved {report.synthetic_achieved:.3%}")
    words = {"texts": "texts", "clusters": "near-duplicate clusters", "cells": "plan cells"}
    found = [
        f"{report.overlap.get(kind, 0)} {name}" if kind in report.looked_for else f"{name} not looked for"
        for kind, name in words.items()
    ]
    lines.append(f"validation: {report.num_val:,} rows; overlap with train: {', '.join(found)}")
    return [*lines, *(f"warning: {warning}" for warning in report.warnings)]
