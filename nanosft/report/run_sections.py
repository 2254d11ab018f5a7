"""Sections on a run: what was asked, what it came from, how training went, what the model says, how to go on."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from nanosft.lineage import Ancestor
from nanosft.report.blocks import Answers, Block, Commands, Facts, Fold, Listing, Section, Table, Text, Tree
from nanosft.report.commands import changed_settings, repeat_command, write_recipe
from nanosft.report.figures import Line, Scale, draw_lines
from nanosft.report.record import Evaluation, Record
from nanosft.report.wording import say_duration, say_money, say_number, say_size, say_time

_MAX_ANSWERS: Final = 24
_FOLDED: Final = 4
"""Of so many pairs of answers one is shown at once."""
_MAX_SAMPLED: Final = 6
"""Evaluations of which samples are shown."""
_MAX_LINES: Final = 8
"""Lines of a chart that can be told apart."""
_GIB: Final = 1 << 30
LOSS: Final = "Loss, nats a supervised token"
LEARNING_RATE: Final = "Learning rate, as a share of each group's"
SPEED: Final = "Tokens a second"
MEMORY: Final = "Peak memory, GiB"
_KINDS: Final = {
    "generated": "Generate",
    "generated-shard": "Generate",
    "mixture": "Mix",
    "model": "Train",
    "state": "Train",
    "audited": "Audit",
    "evaluation": "Evaluate",
}
_MAIN_FIGURES: Final = (
    "identity", "identity: wrong", "identity: missing", "claims another name", "claims another maker",
    "says that it does not know", "ungrounded numbers and links", "ended",
)  # fmt: skip


def make_asked_section(record: Record) -> Section:
    """The settings that differ from their defaults, and the commands that make it all again."""
    if record.lineage is None:
        text = "What was asked is not there: no manifest and no saved state is under this prefix yet."
        return Section("asked", "What was asked", [Text(text, "missing")])
    commands: dict[str, str] = {}
    blocks: list[Block] = []
    for ancestor in reversed(list(record.ancestors())):
        command = repeat_command(ancestor)
        if command is not None and ancestor.manifest is not None:
            commands.setdefault(command, _name_kind(ancestor.manifest.kind))
            if ancestor.manifest.kind == "mixture":
                blocks.append(
                    Listing("The recipe, as the mixture's manifest keeps it", write_recipe(ancestor.manifest.settings))
                )
    if record.lineage.manifest is not None and (changed := changed_settings(record.lineage.manifest)):
        what = "settings" if record.lineage.manifest.kind == "mixture" else "settings that differ from their defaults"
        blocks.insert(0, Table(f"{_name_kind(record.lineage.manifest.kind)}: {what}", ["setting", "value"], changed))
    if commands:
        blocks.insert(0, Commands([(f"{what}: to make it again", command) for command, what in commands.items()]))
    return Section(
        "asked", "What was asked", blocks or [Text("A base checkpoint or a file: no command of nanosft made it.")]
    )


def make_lineage_section(record: Record) -> Section:
    """All that it was made from, with hashes, dates, versions and cost."""
    if record.lineage is None:
        text = "Not there: a manifest or a saved state names what a run is made from; none is under this prefix yet."
        return Section("ancestry", "Made from", [Text(text, "missing")])
    paid = {item.uri: item.manifest.cost_usd for item in record.ancestors() if item.manifest and item.manifest.cost_usd}
    items = list(_draw_tree(record.lineage, 0))
    blocks: list[Block] = [Tree(items)]
    if paid:
        blocks.insert(0, Facts([("paid for all of it", say_money(sum(paid.values())))]))
    return Section("ancestry", "Made from", blocks)


def make_train_section(record: Record) -> Section:
    """Curves of the run, with evaluations as dots and resumes as lines."""
    steps, evaluations = record.steps(), record.evaluations()
    if not steps and not evaluations:
        text = "Curves are not there: `nanosft train` writes metrics.jsonl every 30 seconds, and none has come yet."
        return Section("training", "Training", [Text(text, "missing")])
    blocks: list[Block] = [Facts(list(_train_facts(record, steps, evaluations)))]
    marks = {float(line["step"]): "resumed" for line in record.metrics if line.get("resumed")}
    if marks:
        blocks.append(
            Text(f"Dashed lines mark where the run was resumed: step {', '.join(f'{step:g}' for step in marks)}.")
        )
    for caption, lines, scale in list_charts(steps, evaluations):
        if any(line.points for line in lines):
            blocks.append(draw_lines(caption, lines, scale=scale, marks=marks))
    if not any("val_loss" in line for line in evaluations):
        blocks.append(
            Text("Validation loss is not there: the run has no validation data (--val-data, or a mixture).", "missing")
        )
    return Section("training", "Training", blocks)


def list_charts(
    steps: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]]
) -> list[tuple[str, list[Line], Scale]]:
    """(caption, lines, scale) of each chart of a run."""
    scored = [line for line in evaluations if "val_loss" in line]
    sources = list(dict.fromkeys(name for line in scored for name in line.get("val_sources", {})))
    groups = list(dict.fromkeys(name for line in steps for name in line.get("grad_norm", {})))

    def by_source(score: str) -> list[Line]:
        return [Line(name, _nested(scored, "val_sources", name, score), dots=True) for name in sources[:_MAX_LINES]]

    def of_steps(**keys: str) -> list[Line]:
        return [Line(name.replace("_", " "), _series(steps, key)) for name, key in keys.items()]

    return [
        (LOSS, [*of_steps(train="loss"), Line("validation", _series(scored, "val_loss"), dots=True)], "linear"),
        ("Validation loss by source", by_source("loss"), "linear"),
        ("Validation bits per byte by source", by_source("bpb"), "linear"),
        (LEARNING_RATE, of_steps(scale="lr_scale"), "from zero"),
        (
            "Gradient norms by group, before the step",
            [Line(name, _nested(steps, "grad_norm", name)) for name in groups[:_MAX_LINES]],
            "log",
        ),
        (SPEED, of_steps(all="tokens_per_s", supervised="supervised_per_s"), "from zero"),
        ("Stalls, seconds", of_steps(waiting_for_data="data_wait_s", copying_a_state="save_stall_s"), "from zero"),
        (MEMORY, [Line("peak", _series(steps, "peak_memory_bytes", 1 / _GIB))], "from zero"),
    ]


def make_samples_section(record: Record) -> Section:
    """What the model answered at each evaluation, the base first."""
    sampled = [line for line in record.metrics if line.get("samples")]
    if not sampled:
        text = "Samples are not there: --sample-tokens was 0, or no evaluation has come yet."
        return Section("samples", "Samples at each evaluation", [Text(text, "missing")])
    places = {round(place * (len(sampled) - 1) / (_MAX_SAMPLED - 1)) for place in range(_MAX_SAMPLED)}
    shown = [sampled[place] for place in sorted(places)]
    prompts = list(dict.fromkeys(prompt for line in shown for prompt in line["samples"]))
    blocks: list[Block] = [
        Answers(prompt, [(_name_step(line["step"]), str(line["samples"].get(prompt, "")), "") for line in shown])
        for prompt in prompts
    ]
    return Section("samples", "Samples at each evaluation", blocks)


def make_evaluation_sections(record: Record) -> list[Section]:
    """Answers of base and chat side by side, and the figures with their intervals."""
    found = record.evaluation
    if found is None:
        text = f"Not evaluated yet: `nanosft eval --model {record.uri} --out …` asks base and model who they are."
        return [Section("evaluation", "Evaluation", [Text(text, "missing")])]
    sections = [Section("evaluation", "Evaluation", list(_evaluation_blocks(found)))]
    if pairs := list(_pair_answers(found)):
        blocks: list[Block] = [*pairs[::_FOLDED]]
        if rest := [pair for place, pair in enumerate(pairs) if place % _FOLDED]:
            blocks.append(Fold(f"{len(rest)} more", rest))
        sections.append(Section("answers", "Base and chat answers side by side", blocks))
    return sections


def make_next_section(record: Record) -> Section:
    """The exact commands that go on from here."""
    uri = record.uri
    if record.manifest is None:
        text = "The run has no model yet: its own command goes on where it stopped, or begins."
        command = repeat_command(record.lineage) if record.lineage is not None else None
        return Section("next", "Go on", [Text(text, "missing"), *([Commands([("Go on", command)])] if command else [])])
    commands = [
        ("Talk", f"nanosft chat --model {uri}"),
        ("A page to talk on, and OpenAI's API", f"nanosft serve --model {uri}"),
        ("Evaluate", f"nanosft eval --model {uri} --out {uri}-evaluation"),
        ("For transformers and the Hub", f"nanosft export --model {uri} --out {uri}-hf"),
        ("All it was made from", f"nanosft describe {uri}"),
    ]
    return Section("next", "Go on", [Commands(commands)])


def _draw_tree(ancestor: Ancestor, depth: int) -> Iterator[tuple[int, str, str, str]]:
    manifest, facts = ancestor.manifest, ""
    if manifest is not None:
        size_bytes = sum(item.size_bytes for item in manifest.objects)
        said = [
            f"{manifest.kind}, manifest {manifest.sha256[:12]}",
            f"nanosft {manifest.nanosft_version}",
            say_time(ancestor.made_s),
            f"{manifest.num_rows:,} rows" if manifest.num_rows else "",
            say_size(size_bytes),
            f"cost {say_money(manifest.cost_usd)}" if manifest.cost_usd is not None else "",
            "" if manifest.complete else "unfinished",
        ]
        facts = " · ".join(word for word in said if word)
    yield depth, ancestor.uri, "" if ancestor.state == "as recorded" else ancestor.state, facts
    for parent in ancestor.parents:
        yield from _draw_tree(parent, depth + 1)


def _train_facts(
    record: Record, steps: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, str]]:
    counts = record.manifest.counts if record.manifest is not None else {}
    last = steps[-1] if steps else {}
    yield "steps", say_number(counts.get("step", last.get("step", 0)))
    if counts:
        yield "best step", say_number(counts.get("best_step"))
    scored = [line for line in evaluations if "val_loss" in line]
    if scored:
        yield "validation loss", f"{scored[0]['val_loss']:.3f} → {scored[-1]['val_loss']:.3f}"
        yield "bits per byte", f"{scored[0]['val_bpb']:.3f} → {scored[-1]['val_bpb']:.3f}"
    if steps:
        yield "loss of the last step", f"{last['loss']:.3f}"
        yield "time in steps", say_duration(counts.get("train_s") or sum(line.get("step_s", 0.0) for line in steps))
        speeds = sorted(line.get("tokens_per_s", 0.0) for line in steps)
        yield "tokens a second, median", say_number(round(speeds[len(speeds) // 2]))
        yield "peak memory", say_size(max(line.get("peak_memory_bytes", 0) for line in steps))
    tokens = counts.get("num_supervised") or sum(line.get("num_supervised", 0) for line in steps)
    yield "supervised tokens", say_number(tokens)


def _evaluation_blocks(found: Evaluation) -> Iterator[Block]:
    models, figures = found.scores.get("models", {}), found.scores.get("figures", {})
    yield Text(
        f"{found.uri}: " + ", ".join(f"{number:,} {name}" for name, number in found.scores.get("counts", {}).items())
    )
    labels = [*models, *(["change"] if "change" in figures else [])]
    names = list(dict.fromkeys(name for label in labels for name in figures.get(label, {})))
    main = [name for name in names if name in _MAIN_FIGURES or name.startswith(("bits per byte", "kind ", "task "))]
    rest = [name for name in names if name not in main]
    head = ["figure", *labels]
    for caption, own, folded in (
        ("Means, with intervals at 95 %", main, False),
        (f"By topic, manner and fault ({len(rest)})", rest, True),
    ):
        rows = [[name, *(say_interval(figures.get(label, {}).get(name)) for label in labels)] for name in own]
        if rows:
            yield Table(caption, head, rows, folded=folded)


def say_interval(value: Mapping[str, float] | None) -> str:
    """A mean and its interval."""
    return f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]" if value else ""


def _pair_answers(found: Evaluation) -> Iterator[Answers]:
    """The first answers to probes, wrong ones before missing and right ones, so that what is amiss is seen."""
    labels = list(found.scores.get("models", {}))
    by_probe: dict[str, dict[str, dict[str, Any]]] = {}
    for row in found.answers:
        if "probe" in row:
            by_probe.setdefault(row["probe"], {})[row["model"]] = row
    order = {"wrong": 0, "missing": 1, "right": 2}
    by_verdict: dict[int, list[dict[str, dict[str, Any]]]] = {0: [], 1: [], 2: []}
    for own in by_probe.values():
        if labels and labels[-1] in own:
            by_verdict[order.get(own[labels[-1]]["verdict"], 2)].append(own)
    for own in [own for group in by_verdict.values() for own in group[: _MAX_ANSWERS // 3]]:
        answers = [(label, str(own[label]["answer"]), str(own[label]["verdict"])) for label in labels if label in own]
        yield Answers(" ⏎ ".join(item["content"] for item in next(iter(own.values()))["messages"]), answers)


def _series(lines: Sequence[Mapping[str, Any]], key: str, factor: float = 1.0) -> list[tuple[float, float]]:
    return [(float(line["step"]), line[key] * factor) for line in lines if isinstance(line.get(key), int | float)]


def _nested(lines: Sequence[Mapping[str, Any]], *path: str) -> list[tuple[float, float]]:
    points = []
    for line in lines:
        value: Any = line
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, int | float):
            points.append((float(line["step"]), float(value)))
    return points


def _name_kind(kind: str) -> str:
    return _KINDS.get(kind, kind)


def _name_step(step: int) -> str:
    return "base (step 0)" if step == 0 else f"step {step:,}"
