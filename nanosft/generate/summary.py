"""What a run of the generate stage tells at its end: one line for people, JSON for programs."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.markup import escape

from nanosft.generate.dry_run import print_dry_run
from nanosft.generate.judges import tell_judge
from nanosft.generate.offers import Offers
from nanosft.generate.planning import Plan
from nanosft.generate.preview import show_preview
from nanosft.generate.provider import PromptTemplate
from nanosft.generate.rows import ShardResult
from nanosft.manifest import MANIFEST_KEY, Manifest
from nanosft.progress import console, make_result_console, write_json
from nanosft.quality.scores import list_means
from nanosft.settings.generate import GenerateSettings
from nanosft.store import join_uri


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did, and what stands in the store now.

    Attributes:
        out: The data set's URI.
        num_planned: Rows of this shard.
        num_accepted: Rows of the shard that are in.
        num_given_up: Rows of the shard that were given up.
        num_made: Rows accepted by this run.
        rows_per_s: Speed of this run, from its first request to its last flush.
        counts: The shard's answers, rejects, tokens and costs, over all its runs.
        cost_usd: What is known to have been paid for the shard.
        elapsed_s: Seconds that this run took.
        manifest: URI of the data set's manifest; None while rows of the plan are missing.
        preview: What `read_preview` tells; None without --preview.
    """

    out: str
    num_planned: int
    num_accepted: int
    num_given_up: int
    num_made: int
    rows_per_s: float
    counts: dict[str, Any]
    cost_usd: float
    elapsed_s: float
    manifest: str | None
    preview: dict[str, Any] | None = None


def summarize(settings: GenerateSettings, manifest: Manifest, result: ShardResult, started_s: float) -> Summary:
    """The summary of a finished shard or data set, from its manifest."""
    rows = manifest.counts["rows"]
    return Summary(
        out=settings.out,
        num_planned=rows["planned"],
        num_accepted=rows["accepted"],
        num_given_up=rows["given_up"],
        num_made=result.num_rows,
        rows_per_s=round(result.num_rows / result.elapsed_s, 3) if result.elapsed_s else 0.0,
        counts=manifest.counts,
        cost_usd=manifest.cost_usd or 0.0,
        elapsed_s=round(time.monotonic() - started_s, 3),
        manifest=join_uri(settings.out, MANIFEST_KEY) if manifest.kind == "generated" else None,
    )


def report(summary: Summary, settings: GenerateSettings) -> Summary:
    """Print the summary: a line to standard error, and JSON to standard output where it is asked for."""
    _print_json(summary, settings)
    if summary.preview is not None:
        show_preview(console if settings.json_output else make_result_console(), summary.preview)
    unknown_usd, tokens = summary.counts["cost"]["unknown_usd"], summary.counts["tokens"]
    if facts := summary.counts.get("facts"):
        fewest = min(facts, key=facts.__getitem__)
        num_stated = sum(map(bool, facts.values()))
        console.print(
            f"{num_stated} of {len(facts)} facts are stated by an answer; fewest answers: {fewest} ({facts[fewest]})",
            highlight=False,
        )
    console.print(
        f"{summary.num_accepted} of {summary.num_planned} rows are in, {summary.num_given_up} given up, "
        f"{summary.num_made} made now; ${summary.cost_usd:.4f} paid"
        + (f" and at most about ${unknown_usd:.4f} for answers never received" if unknown_usd else "")
        + (f"; {tokens['cached'] / tokens['prompt']:.0%} of prompt tokens cached" if tokens["prompt"] else "")
        + (
            f"; {tokens['reasoning'] / tokens['completion']:.0%} of the answers' tokens are reasoning"
            if tokens.get("reasoning")
            else ""
        )
        + _say_judged(summary.counts.get("judge"))
        + _say_models(summary.counts.get("models"))
        + _say_rest(summary),
        highlight=False,
        soft_wrap=True,  # a log keeps it on one line
    )
    return summary


def _say_rest(summary: Summary) -> str:
    """Where the set is, or who makes the rows that are missing."""
    if summary.manifest:
        return f"; the set is complete: {summary.manifest}"
    is_preview = summary.preview is not None
    return "; the same command without --preview makes the others" if is_preview else "; other shards have rows to make"


def _say_models(models: Mapping[str, Any] | None) -> str:
    """What each of several models made; nothing where there is one."""
    if models is None:
        return ""
    parts = []
    for name, found in models.items():
        answers, scores = found["answers"], found.get("scores", {})
        lowest = f", lowest score {scores['lowest']['mean']:.2f}" if "lowest" in scores else ""
        parts.append(f"{name} {answers['accepted']} (refused {answers['refused']}, ${found['cost_usd']:.4f}{lowest})")
    return f"; by model: {', '.join(parts)}"


def _say_judged(judge: Mapping[str, Any] | None) -> str:
    """What the judge made of the rows; nothing where there is none."""
    if judge is None:
        return ""
    rows, means = judge["rows"], list_means(judge["scores"])
    return (
        f"; {rows['scored']} scored{f' ({means})' if means else ''}, {rows['refused']} refused for their score"
        + (f", {rows['unscored']} without a usable score" if rows["unscored"] else "")
        + f", ${judge['cost_usd']:.4f} of it for the judge"
    )


def report_dry_run(
    settings: GenerateSettings, template: PromptTemplate, plan: Plan, offers: Offers, started_s: float
) -> Summary:
    """Print what the plan covers and will take: to standard output, or beside the JSON that is asked for there."""
    out = console if settings.json_output else make_result_console()
    estimate = print_dry_run(out, settings, template, plan, offers)
    if settings.judge_model is not None:
        out.print(f"[bold]Judge[/]: {escape(tell_judge(settings, plan, offers))}", highlight=False)
    summary = Summary(
        out=settings.out,
        num_planned=settings.num,
        num_accepted=0,
        num_given_up=0,
        num_made=0,
        rows_per_s=0.0,
        counts={"estimate": asdict(estimate)},
        cost_usd=0.0,
        elapsed_s=round(time.monotonic() - started_s, 3),
        manifest=None,
    )
    _print_json(summary, settings)
    return summary


def _print_json(summary: Summary, settings: GenerateSettings) -> None:
    if settings.json_output:
        write_json(asdict(summary))
