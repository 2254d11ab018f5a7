"""Sections on sets of conversations: how they were made, what they cover, how they were mixed, what an audit found."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from nanosft.inspection import BINS_CHARS
from nanosft.manifest import Manifest
from nanosft.quality.scores import HIGHEST, LOWEST
from nanosft.report.blocks import Bars, Block, Facts, Heat, Section, Table, Text
from nanosft.report.record import Record
from nanosft.report.rows import SetFigures
from nanosft.report.wording import say_money, say_number, say_share

_FUNNEL_CAPTION: Final = (
    "From lines to train rows: bad, filtered, exact duplicates, near duplicates, repeats of held-out text, validation"
)
_MAX_CELLS: Final = 40
_MAX_LISTED: Final = 12
_JUDGED: Final = {"kept with a score": "scored", "kept without one": "unscored", "refused for their score": "refused"}
_MAX_FACTS: Final = 400


def make_set_section(found: SetFigures, title: str = "What the set is like") -> Section:
    """Lengths, turns, languages, sources, openings."""
    figures = found.inspection
    num_rows = max(figures.num_rows, 1)
    parts = ", ".join(f"{count:,} {part}" for part, count in found.parts.most_common())
    facts = [
        ("conversations", say_number(figures.num_rows)),
        ("parts", parts),
        ("characters each", say_number(round(figures.num_chars / num_rows))),
        ("distinct first messages", say_share(len(figures.openings), figures.num_rows)),
    ]
    if found.num_unreadable:
        facts.append(("lines that are no conversation", say_number(found.num_unreadable)))
    blocks: list[Block] = [Facts(facts)]
    lengths = {_name_bin(place): figures.lengths[low] for place, low in enumerate(BINS_CHARS)}
    blocks += _bars("Characters in a conversation", {name: count for name, count in lengths.items() if count}, num_rows)
    turns = {f"{num} turn{'s' if num > 1 else ''}": count for num, count in sorted(figures.turns.items())}
    blocks += _bars("Turns", dict(list(turns.items())[:_MAX_LISTED]), num_rows)
    if len(figures.sources) > 1:
        blocks += _bars("Source", dict(figures.sources.most_common(_MAX_LISTED)), num_rows)
    if len(figures.languages) > 1:
        blocks += _bars(
            "Language, as script and frequent words suggest", dict(figures.languages.most_common(8)), num_rows
        )
    blocks += _bars("Most frequent first messages", dict(figures.openings.most_common(_MAX_LISTED)), num_rows)
    return Section("data", title, blocks)


def make_generate_section(found: SetFigures, record: Record) -> Section:
    """From what was asked to what was kept, cost by model and day, coverage, and the facts that are stated."""
    manifest = found.manifest
    blocks: list[Block] = []
    if manifest is None:
        blocks.append(
            Text(
                "The generate run is not finished: no manifest is there. Below is what it has flushed so far; the same "
                "`nanosft generate` command goes on with it.",
                "warning",
            )
        )
    counts = manifest.counts if manifest is not None else {}
    blocks += _funnel(counts, found)
    if found.rejects:
        blocks += _bars("Rejected answers by reason", dict(found.rejects.most_common(20)), found.rejects.total())
    blocks += _costs(found, counts)
    blocks += _scores(counts.get("judge"))
    if found.cells:
        blocks.append(make_heat(found.cells))
    blocks += _facts(record)
    return Section("generate", "Generate", blocks)


def make_heat(cells: Mapping[tuple[str, str], int]) -> Block:
    """Rows by topic and persona; the largest topics and personas where there are very many."""
    topics, personas = Counter[str](), Counter[str]()
    for (topic, persona), count in cells.items():
        topics[topic] += count
        personas[persona] += count
    columns = sorted(name for name, _ in personas.most_common(_MAX_CELLS))
    shown = [name for name, _ in topics.most_common(_MAX_CELLS)]
    rows = [(topic, [cells.get((topic, persona), 0) for persona in columns]) for topic in sorted(shown)]
    left_out = len(topics) - len(shown) + len(personas) - len(columns)
    note = f"; {left_out} rare topics and personas are left out" if left_out else ""
    return Heat(f"Conversations by topic and persona{note}", columns, rows)


def make_mix_section(manifest: Manifest) -> Section:
    """Wanted and achieved shares, what became of each source's lines, and the overlap of train and validation."""
    counts = manifest.counts
    sources: Mapping[str, Any] = counts.get("sources", {})
    unit = counts.get("unit", "rows")
    wanted = sum(source.get("wanted_amount", 0) for source in sources.values())
    shares = [
        [
            name,
            say_share(source.get("wanted_amount", 0), wanted),
            f"{source.get('share', 0):.2%}",
            say_number(source.get("amount")),
            f"{source.get('epochs', 0):.2f}",
            say_number(source.get("train_rows")),
            say_number(source.get("val_rows")),
            say_number(source.get("train_supervised_tokens") or None),
        ]
        for name, source in sources.items()
    ]
    head = [
        "source",
        "wanted",
        "achieved",
        str(unit).replace("_", " "),
        "epochs",
        "train rows",
        "val rows",
        "supervised tokens",
    ]
    funnel = [
        [
            name,
            say_number(source.get("lines")),
            say_number(source.get("bad")),
            _say_filtered(source.get("filtered", {})),
            say_number(source.get("exact_duplicates")),
            say_number(source.get("near_duplicates")),
            say_number(source.get("contaminated")),
            say_number(source.get("val_rows")),
            say_number(source.get("distinct_train_rows")),
            say_number(source.get("train_rows")),
        ]
        for name, source in sources.items()
    ]
    funnel_head = ["source", "lines", "bad", "filtered", "exact", "near", "held-out", "val", "distinct", "taken"]
    overlap = counts.get("overlap", {})
    said = ", ".join(f"{number} {kind}" for kind, number in overlap.items()) or "not looked for"
    facts = [
        ("train rows", say_number(counts.get("train_rows"))),
        ("validation rows", say_number(counts.get("val_rows"))),
        ("synthetic share", f"{counts.get('synthetic_share', 0):.2%}"),
        ("shared by train and validation", said),
    ]
    blocks: list[Block] = [
        Facts(facts),
        Table("Shares", head, shares),
        Table(_FUNNEL_CAPTION, funnel_head, funnel),
    ]
    if any(overlap.values()):
        blocks.append(Text("Train and validation overlap: the validation loss is too good.", "warning"))
    return Section("mix", "Mix", blocks)


def make_audit_section(audit: Mapping[str, Any]) -> Section:
    """What an audit found, by gate and reason, with examples."""
    num_rows = audit.get("num_rows", 0)
    facts = [
        ("rows", say_number(num_rows)),
        ("clean", say_number(audit.get("num_clean"))),
        ("refused", say_number(audit.get("num_refused"))),
        ("no conversation", say_number(audit.get("num_unreadable"))),
    ]
    facts += [(name, str(audit[name])) for name in ("name", "maker") if audit.get(name)]
    blocks: list[Block] = [Facts(facts)]
    for key, caption in (("refused", "Rows that are refused, by gate and reason"), ("reported", "Only reported")):
        named = Counter({name: int(count) for name, count in dict(audit.get(key, {})).items()})
        blocks += _bars(caption, dict(named.most_common()), num_rows)
    blocks += _scores(audit.get("judge"))
    examples = [
        [name, str(item.get("where", "")), str(item.get("detail", "")), str(item.get("excerpt", ""))]
        for name, items in dict(audit.get("examples", {})).items()
        for item in items
    ]
    if examples:
        blocks.append(Table("Examples", ["defect", "where", "what", "text"], examples))
    else:
        blocks.append(Text("No gate found anything."))
    return Section("audit", "Audit", blocks)


def _funnel(counts: Mapping[str, Any], found: SetFigures) -> Iterator[Block]:
    rows, answers = counts.get("rows", {}), counts.get("answers", {})
    if not rows:
        yield Bars(
            "So far",
            [
                ("accepted", found.inspection.num_rows, say_number(found.inspection.num_rows)),
                ("rejected answers", found.rejects.total(), say_number(found.rejects.total())),
            ],
        )
        return
    asked = sum(answers.values()) if answers else rows.get("planned", 0)
    steps = [
        ("rows planned", rows.get("planned", 0)),
        ("answers asked for", asked),
        ("answers rejected", answers.get("refused", 0)),
        ("answers that never came", answers.get("unknown", 0)),
        ("rows given up", rows.get("given_up", 0)),
        ("near-duplicates dropped", rows.get("near_duplicates_dropped", 0)),
        ("rows kept", rows.get("accepted", 0)),
    ]
    yield Bars(
        "From asked to kept",
        [(name, value, f"{value:,} ({say_share(value, rows.get('planned', 0)) or '0'})") for name, value in steps],
    )


def _costs(found: SetFigures, counts: Mapping[str, Any]) -> Iterator[Block]:
    cost, tokens = counts.get("cost", {}), counts.get("tokens", {})
    if cost:
        facts = [
            ("paid", say_money(cost.get("total_usd", 0.0))),
            ("for a kept row", say_money(cost.get("per_accepted_row_usd", 0.0))),
            ("for rejected answers", say_money(sum(cost.get("rejects_usd", {}).values()))),
            *([("for the judge", say_money(judge["cost_usd"]))] if (judge := counts.get("judge")) else []),
            ("prompt tokens", say_number(tokens.get("prompt"))),
            ("of them cached", say_share(tokens.get("cached", 0), tokens.get("prompt", 0)) or "0"),
            ("completion tokens", say_number(tokens.get("completion"))),
        ]
        yield Facts(facts)
    if found.answers:
        rows = [
            [model, day, f"{number:,}", say_money(found.cost_usd[model, day])]
            for (model, day), number in sorted(found.answers.items())
        ]
        yield Table("Answers and cost by model and day", ["model", "day", "answers", "cost"], rows)


def _scores(judge: Mapping[str, Any] | None) -> Iterator[Block]:
    """What a judge made of the rows; nothing where there is none."""
    if not judge:
        return
    rows = judge["rows"]
    yield Facts([(name, say_number(rows[key])) for name, key in _JUDGED.items()])
    numbers = [str(number) for number in range(LOWEST, HIGHEST + 1)]
    yield Table(
        "Scores of the rows that are kept",
        ["criterion", "mean", *numbers],
        [
            [name, f"{scores['mean']:.2f}", *(f"{scores['counts'][number]:,}" for number in numbers)]
            for name, scores in judge["scores"].items()
        ],
    )


def _facts(record: Record) -> Iterator[Block]:
    if not record.stated:
        yield Text(
            "Facts stated: not there; the knowledge base that the set was made from cannot be read now.", "missing"
        )
        return
    stated = [item for item in record.stated if item[2]]
    yield Text(
        f"{len(stated)} of {len(record.stated)} facts of the knowledge base are stated "
        f"({say_share(len(stated), len(record.stated))}): most of their words stand in what the assistant says "
        f"in one of {record.num_fact_rows:,} conversations."
    )
    for caption, items in (
        ("Facts that none states", [item for item in record.stated if not item[2]]),
        ("Facts by how often they are stated", sorted(stated, key=lambda item: -item[2])),
    ):
        if items:
            rows = [[statement, topic, str(count)] for topic, statement, count in items[:_MAX_FACTS]]
            yield Table(f"{caption} ({len(items)})", ["fact", "topic", "conversations"], rows, folded=True)


def _bars(caption: str, counts: Mapping[str, int], total: float) -> Sequence[Block]:
    """Counts with their shares; nothing of nothing."""
    if not counts:
        return []
    return [Bars(caption, [(name, count, f"{count:,} ({say_share(count, total)})") for name, count in counts.items()])]


def _name_bin(place: int) -> str:
    low = BINS_CHARS[place]
    return f"{low:,} to {BINS_CHARS[place + 1] - 1:,}" if place + 1 < len(BINS_CHARS) else f"{low:,} and more"


def _say_filtered(filtered: object) -> str:
    if not isinstance(filtered, dict) or not filtered:
        return "0"
    return f"{sum(filtered.values()):,} ({', '.join(f'{name} {count:,}' for name, count in filtered.items())})"
