"""Sections that lay runs over each other: settings that differ, curves, evaluations, last answers. Pure."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from nanosft.report.blocks import Answers, Block, Section, Table, Text
from nanosft.report.figures import draw_lines
from nanosft.report.record import Record
from nanosft.report.run_sections import LEARNING_RATE, LOSS, MEMORY, SPEED, list_charts, say_interval
from nanosft.report.wording import say_duration, say_number

_COMPARED: Final = (
    ("Training loss, nats a supervised token", LOSS, 0),
    ("Validation loss, nats a supervised token", LOSS, 1),
    (LEARNING_RATE, LEARNING_RATE, 0),
    (SPEED, SPEED, 0),
    (MEMORY, MEMORY, 0),
)
"""(caption, chart of a run, which of its lines)."""


def make_compare_sections(records: Mapping[str, Record]) -> list[Section]:
    """Sections on runs by their letters."""
    return [
        Section("overview", "Overview", [_overview(records)]),
        Section("settings", "Settings that differ", [_differences(records)]),
        Section("training", "Training", _curves(records)),
        Section("evaluation", "Evaluation", _evaluations(records)),
        Section("samples", "Last samples", _samples(records)),
    ]


def _overview(records: Mapping[str, Record]) -> Table:
    rows = []
    for letter, record in records.items():
        counts = record.manifest.counts if record.manifest is not None else {}
        steps = record.steps()
        rows.append(
            [
                letter,
                record.uri,
                "finished" if record.manifest is not None else "not finished",
                say_number(counts.get("step", steps[-1]["step"] if steps else 0)),
                say_number(counts.get("val_loss")),
                say_number(counts.get("val_bpb")),
                say_duration(counts.get("train_s", 0.0) or sum(line.get("step_s", 0.0) for line in steps)),
            ]
        )
    return Table("Runs", ["run", "URI", "state", "steps", "validation loss", "bits per byte", "time in steps"], rows)


def _differences(records: Mapping[str, Record]) -> Block:
    names = sorted({name for record in records.values() for name in record.settings})
    rows = []
    for name in names:
        values = [_say(record.settings.get(name)) for record in records.values()]
        if len(set(values)) > 1:
            rows.append([name, *values])
    if not rows:
        return Text("None: the runs have equal settings, as far as their manifests tell.")
    return Table("As their manifests have them", ["setting", *records], rows)


def _curves(records: Mapping[str, Record]) -> list[Block]:
    charts = {
        letter: {caption: lines for caption, lines, _ in list_charts(record.steps(), record.evaluations())}
        for letter, record in records.items()
    }
    blocks: list[Block] = []
    for caption, name, place in _COMPARED:
        lines = [replace(own[name][place], name=letter) for letter, own in charts.items()]
        if any(line.points for line in lines):
            blocks.append(draw_lines(caption, lines, scale="linear" if name == LOSS else "from zero"))
    return blocks or [Text("Not there: none of the runs has metrics yet.", "missing")]


def _evaluations(records: Mapping[str, Record]) -> list[Block]:
    figures: dict[str, dict[str, Any]] = {}
    for letter, record in records.items():
        if record.evaluation is not None and (models := list(record.evaluation.scores.get("models", {}))):
            figures[letter] = record.evaluation.scores["figures"].get(models[-1], {})
    if not figures:
        return [Text("Not there: none of the runs was evaluated; `nanosft eval` does it.", "missing")]
    names = list(dict.fromkeys(name for own in figures.values() for name in own))
    rows = [[name, *(say_interval(figures.get(letter, {}).get(name)) for letter in records)] for name in names]
    main = [row for row in rows if not row[0].startswith(("topic ", "manner "))]
    rest = [row for row in rows if row[0].startswith(("topic ", "manner "))]
    head = ["figure", *records]
    blocks: list[Block] = [Table("Means, with intervals at 95 %", head, main)]
    if rest:
        blocks.append(Table(f"By topic and manner ({len(rest)})", head, rest, folded=True))
    blocks.append(Text("Paired differences, probe by probe: `nanosft eval compare` with the evaluations' prefixes."))
    return blocks


def _samples(records: Mapping[str, Record]) -> list[Block]:
    last: dict[str, dict[str, str]] = {}
    for letter, record in records.items():
        sampled = [line["samples"] for line in record.metrics if line.get("samples")]
        last[letter] = sampled[-1] if sampled else {}
    prompts = list(dict.fromkeys(prompt for own in last.values() for prompt in own))
    if not prompts:
        return [Text("Not there: none of the runs sampled answers.", "missing")]
    return [
        Answers(prompt, [(letter, str(own[prompt]), "") for letter, own in last.items() if prompt in own])
        for prompt in prompts
    ]


def _say(value: object) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)
