"""Records become pages: which sections, in which order, and what stands at the top."""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from nanosft.errors import clip
from nanosft.report.blocks import Block, Browser, Facts, Page, Section, Table, Text
from nanosft.report.browser import add_tokens, compress_rows, mark_clusters, mark_packed
from nanosft.report.collect import find_row_len, find_tokenizer
from nanosft.report.compare_sections import make_compare_sections
from nanosft.report.data_sections import (
    make_audit_section,
    make_generate_section,
    make_mix_section,
    make_set_section,
)
from nanosft.report.record import Record
from nanosft.report.run_sections import (
    make_asked_section,
    make_evaluation_sections,
    make_lineage_section,
    make_next_section,
    make_samples_section,
    make_train_section,
)
from nanosft.report.wording import say_duration, say_money, say_number, say_time
from nanosft.settings.report import ReportSettings
from nanosft.settings.train import TrainSettings

_UNLIKE_OURS: Final = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError)
"""What drawing raises where a value is of another type than nanosft writes."""
_TRAINED: Final = frozenset({"train", "accepted", "clean"})
"""Parts of a set that a run trains on."""
_log = logging.getLogger(__name__)


def make_page(record: Record, settings: ReportSettings, *, refresh_s: float | None = None) -> Page:
    """The page of a run, a data set or an audit."""
    sections = _run_sections(record) if record.subject == "run" else _data_sections(record)
    browser = None
    try:
        browser = _make_browser(record, settings)
    except _UNLIKE_OURS as exc:
        record.problems.append(f"conversations: {_say_unlike(exc)}")
    if record.problems:
        sections.append(
            Section("problems", "What could not be read", [Text(text, "warning") for text in record.problems])
        )
    badges = {}
    if record.manifest is not None:
        badges = {"manifest": record.manifest.sha256[:12], "nanosft": record.manifest.nanosft_version}
        if record.manifest.cost_usd is not None:
            badges["cost"] = say_money(record.manifest.cost_usd)
    title = {"run": "Run", "data": "Data set", "audit": "Audit"}[record.subject]
    return Page(f"{title} {record.name}", f"{record.uri} · {_say_status(record)}", sections, browser, refresh_s, badges)


def make_comparison(records: Sequence[Record]) -> Page:
    """The page of runs laid over each other."""
    status = ", ".join(f"{letter}: {record.uri}" for letter, record in label_records(records).items())
    sections = _draw("overview", "Overview", lambda: make_compare_sections(label_records(records)))
    return Page(f"{len(records)} runs side by side", status, sections)


def label_records(records: Sequence[Record]) -> dict[str, Record]:
    """Records by the letters that they go by on the page."""
    return {chr(ord("A") + place): record for place, record in enumerate(records)}


def _draw(name: str, title: str, make: Callable[[], Section | list[Section]]) -> list[Section]:
    """What `make` gives, or a section that says why nothing is shown: anybody may have written what it is made from."""
    try:
        drawn = make()
    except _UNLIKE_OURS as exc:
        return [Section(name, title, [Text(_say_unlike(exc), "warning")])]
    return drawn if isinstance(drawn, list) else [drawn]


def _say_unlike(exc: Exception) -> str:
    """What a page says in place of what cannot be drawn; the log has where, as it may be a defect of ours too."""
    _log.debug("a part of the page is not shown", exc_info=exc)
    return f"Not shown: a value is not as nanosft writes it ({type(exc).__name__}: {clip(str(exc), 120)})."


def _run_sections(record: Record) -> list[Section]:
    sections = [
        *_draw("overview", "Overview", lambda: _overview(record)),
        *_draw("training", "Training", lambda: make_train_section(record)),
        *_draw("samples", "Samples at each evaluation", lambda: make_samples_section(record)),
        *_draw("evaluation", "Evaluation", lambda: make_evaluation_sections(record)),
    ]
    made = [found for found in record.sets if found.manifest is not None and found.manifest.kind == "generated"]
    mixtures = [
        item.manifest for item in record.ancestors() if item.manifest is not None and item.manifest.kind == "mixture"
    ]
    if made:
        sections += _draw("generate", "Generate", lambda: make_generate_section(made[0], record))
    else:
        text = "Not there: no set that `nanosft generate` made is among what the run was made from."
        sections.append(Section("generate", "Generate", [Text(text, "missing")]))
    if mixtures:
        sections += _draw("mix", "Mix", lambda: make_mix_section(mixtures[0]))
    else:
        text = "Not there: the run was trained on data that `nanosft mix` did not make."
        sections.append(Section("mix", "Mix", [Text(text, "missing")]))
    if record.sets and record.sets[0].inspection.num_rows:
        sections += _draw("data", "The training data", lambda: make_set_section(record.sets[0], "The training data"))
    return [*sections, *_draw_origins(record), *_draw("next", "Go on", lambda: make_next_section(record))]


def _draw_origins(record: Record) -> list[Section]:
    return [
        *_draw("asked", "What was asked", lambda: make_asked_section(record)),
        *_draw("ancestry", "Made from", lambda: make_lineage_section(record)),
    ]


def _data_sections(record: Record) -> list[Section]:
    sections: list[Section] = []
    if (audit := record.audit) is not None:
        sections += _draw("audit", "Audit", lambda: make_audit_section(audit))
    manifest = record.manifest
    if record.sets:
        found = record.sets[0]
        sections += _draw("data", "What the set is like", lambda: make_set_section(found))
        is_generated = manifest is not None and manifest.kind.startswith("generated")
        if is_generated or (manifest is None and found.cells and record.subject == "data"):
            sections += _draw("generate", "Generate", lambda: make_generate_section(found, record))
    if manifest is not None and manifest.kind == "mixture":
        sections += _draw("mix", "Mix", lambda: make_mix_section(manifest))
    if record.lineage is not None:
        sections += _draw_origins(record)
    return sections


def _overview(record: Record) -> Section:
    """What stands first on a run's page: whether it is finished, and what there is of it."""
    blocks: list[Block] = []
    if record.manifest is None:
        state = (
            f"The newest saved state is of step {record.states[-1].step:,} ({say_time(record.states[-1].saved_s)})"
            if record.states
            else "No state is saved yet"
        )
        last = (
            f"the metrics end at step {record.metrics[-1]['step']:,} ({say_time(record.metrics_s)})"
            if record.metrics
            else "no metrics are written yet"
        )
        blocks.append(Text(f"The run is not finished, or it failed: no manifest is there. {state}; {last}.", "warning"))
    if facts := list(_first_facts(record)):
        blocks.append(Facts(facts))
    rows = [
        ["training", f"{len(record.steps()):,} steps in the metrics" if record.steps() else "not there"],
        ["validation", f"{sum('val_loss' in line for line in record.metrics):,} evaluations in training"],
        ["evaluation", record.evaluation.uri if record.evaluation is not None else "not there: nanosft eval makes one"],
        ["states kept", ", ".join(f"step {state.step:,} ({state.attempt})" for state in record.states) or "none"],
        ["model", "finished" if record.manifest is not None else "not there yet"],
    ]
    blocks.append(Table("What is there", ["part", "state"], rows))
    return Section("overview", "Overview", blocks)


def _first_facts(record: Record) -> Iterator[tuple[str, str]]:
    """The figures that one looks for first."""
    scored = [line for line in record.metrics if "val_bpb" in line]
    if scored:
        yield "bits per byte, held out", f"{scored[0]['val_bpb']:.3f} → {scored[-1]['val_bpb']:.3f}"
    if record.evaluation is not None:
        figures = record.evaluation.scores.get("figures", {})
        told = [
            figures[name]["identity"]["mean"]
            for name in ("base", "chat", "model")
            if "identity" in figures.get(name, {})
        ]
        if told:
            yield "knows who it is", " → ".join(f"{mean:.2f}" for mean in told)
    if record.sets:
        yield "conversations", say_number(record.sets[0].inspection.num_rows)
    counts = record.manifest.counts if record.manifest is not None else {}
    if counts.get("train_s"):
        yield "time in steps", say_duration(counts["train_s"])
    paid = sum(item.manifest.cost_usd or 0.0 for item in record.ancestors() if item.manifest is not None)
    yield "paid", say_money(paid)


def _say_status(record: Record) -> str:
    made_s = record.lineage.made_s if record.lineage is not None else None
    if record.manifest is not None:
        return "finished" + (f" {say_time(made_s)}" if made_s else "")
    if record.subject == "run":
        return "not finished"
    return "audited" if record.subject == "audit" else "without a manifest"


def _make_browser(record: Record, settings: ReportSettings) -> Browser | None:
    if not record.rows or not settings.max_data_mib:
        return None
    num_clusters = mark_clusters(record.rows)
    tokenizer = find_tokenizer(record) if settings.max_tokens else None
    row_len = find_row_len(record, settings) if tokenizer is not None else None
    capacity = None if row_len is None else row_len + 1  # the last target
    num_tokenised = (
        0 if tokenizer is None else add_tokens(record.rows, tokenizer, settings.max_tokens, capacity=capacity)
    )
    num_shown, num_seen = len(record.rows), record.num_rows_seen
    said = [
        f"All {num_seen:,} conversations and rejected answers are in this page."
        if num_shown == num_seen
        else f"A sample: {num_shown:,} of {num_seen:,} conversations and rejected answers, drawn by seed "
        f"{settings.seed}; --max-data-mib makes room for more."
    ]
    said.append(
        f"{num_clusters:,} clusters of near-duplicates are among them."
        if num_clusters
        else "None nearly equals another."
    )
    if 0 < num_tokenised < num_shown:
        said.append(f"The first {num_tokenised:,} show the tokenizer's own tokens, the others words.")
    num_packed = 0
    if capacity is not None and num_tokenised:
        num_packed, told = _pack(record, capacity)
        said.append(told)
    return Browser(compress_rows(record.rows), num_shown, " ".join(said), num_packed, capacity or 0)


def _pack(record: Record, capacity: int) -> tuple[int, str]:
    """Mark what shares a row, where all that is trained on is in the page; how many rows there are, and what to say."""
    trained = [row for row in record.rows if row["part"] in _TRAINED]
    if len(record.rows) < record.num_rows_seen or not all("tokens" in row for row in trained):
        return (
            0,
            "How they are packed is told where all of them are here with their tokens: --max-data-mib, --max-tokens.",
        )
    seed, window, overlong = (
        record.settings.get(name, TrainSettings.model_fields[name].default)
        for name in ("seed", "pack_window", "overlong")
    )
    num_packed = mark_packed(
        trained, capacity=capacity, seed=int(seed), window=int(window), keep_turns=overlong == "turns"
    )
    told = f"The first epoch packs them into {num_packed:,} rows of {capacity - 1:,} tokens, told with the loss mask"
    num_cut = sum("packed" in row and "kept" in row["tokens"] for row in trained)
    num_left = sum("packed" not in row for row in trained)
    if num_cut:
        told += f"; {num_cut:,} are shortened to the turns that fit"
    if num_left:
        told += f"; {num_left:,} have no place in a row"
    return num_packed, told + "."
