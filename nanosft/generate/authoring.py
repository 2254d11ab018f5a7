"""`nanosft knowledge check` and `nanosft knowledge draft`: what a person needs to write a knowledge base."""

import asyncio
from dataclasses import asdict

from rich.console import Group
from rich.markup import escape
from rich.table import Table

from nanosft.data import is_same
from nanosft.errors import ConfigError, DataError, ProviderError
from nanosft.generate import provider
from nanosft.generate.provider import (
    AdaptiveLimit,
    Answer,
    ChatClient,
    ChatRequest,
    ClientOptions,
    parse_draft,
    require_key,
    speaks_openrouter,
    write_draft_messages,
)
from nanosft.knowledge import SHIPPED, Knowledge, KnowledgeReport, check_knowledge, read_knowledge
from nanosft.progress import console, make_result_console, write_json
from nanosft.settings.knowledge import KnowledgeCheckSettings, KnowledgeDraftSettings
from nanosft.store import open_object

_DRAFT_TEMPERATURE = 0.2


def run_knowledge_check(settings: KnowledgeCheckSettings) -> KnowledgeReport:
    """Print what a knowledge base holds and what a person should mend in it.

    Raises:
        DataError: It cannot be read; or, with --strict, there is something to mend.
        StoreError: The store fails.
    """
    report = check_knowledge(read_knowledge(settings.uri))
    if settings.json_output:
        write_json(asdict(report), indent=True)
    else:
        make_result_console().print(render_report(report))
    if settings.strict and not report.is_clean:
        raise DataError(f"{settings.uri or SHIPPED}: {_count_problems(report)} to mend: see the report")
    return report


def run_knowledge_draft(settings: KnowledgeDraftSettings) -> Knowledge:
    """Have the chat API draft a knowledge base from a README, for a person to edit.

    Raises:
        ConfigError: There is no key, or something is at --out already.
        DataError: The source cannot be read.
        CreditError: No credit, or the key is refused.
        ProviderError: No usable answer came.
        StoreError: The store fails.
    """
    key = require_key(settings.openrouter_api_key, settings.base_url)
    source, source_key = open_object(settings.source)
    target, target_key = open_object(settings.out)
    if is_same(settings.source, settings.out):
        raise ConfigError(f"{settings.out}: is --from itself: choose another --out")
    if not settings.overwrite and target.exists(target_key):
        raise ConfigError(f"{settings.out} is there already: choose another --out, or --overwrite it")
    try:
        text = source.read(source_key).decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise DataError(f"{settings.source}: not UTF-8 text: {exc.reason} at byte {exc.start}") from exc
    answer = asyncio.run(_ask(settings, text, key))
    if answer.problem is not None and answer.problem.kind == "finish_length":
        raise ProviderError(f"the draft was cut at {settings.max_tokens} tokens: raise --max-tokens, or shorten it")
    if answer.problem is not None:
        raise ProviderError(f"the draft is no use: {answer.problem.detail}: try again, or another --model")
    knowledge = parse_draft(answer.text, where=settings.out)
    target.write(target_key, knowledge.text.encode())
    console.print(render_report(check_knowledge(knowledge)))
    console.print(f"Read it and correct it: every answer of the model will rest on {escape(settings.out)}")
    return knowledge


def render_report(report: KnowledgeReport) -> Group:
    """The report as tables for a terminal."""
    summary = Table(title=escape(report.where), title_justify="left", show_header=False)
    summary.add_row("name", escape(report.name))
    summary.add_row("maker", escape(report.maker) or "[yellow]not told[/]")
    summary.add_row(
        "size", f"{report.num_facts} facts in {report.num_topics} topics, about {report.num_tokens:,} tokens"
    )
    summary.add_row("topics", escape(", ".join(f"{topic} {count}" for topic, count in report.facts_per_topic.items())))
    mend = Table(title="To mend", title_justify="left", show_header=False)
    for left, right in report.contradictions:
        mend.add_row("contradiction", escape(f"{left.id}: {left.statement}\n{right.id}: {right.statement}"))
    for topic in report.empty_topics:
        mend.add_row("no fact", escape(topic))
    for statement in report.repeated:
        mend.add_row("repeated", escape(statement))
    for problem in report.problems:
        mend.add_row("problem", escape(problem))
    return Group(summary, "Nothing to mend." if report.is_clean else mend)


def _count_problems(report: KnowledgeReport) -> int:
    return len(report.contradictions) + len(report.empty_topics) + len(report.repeated) + len(report.problems)


async def _ask(settings: KnowledgeDraftSettings, text: str, key: str) -> Answer:
    options = ClientOptions(
        models=(settings.model,),
        endpoint=settings.base_url,
        openrouter=speaks_openrouter(settings.base_url),
        max_retries=settings.max_retries,
        secret=key,
    )
    request = ChatRequest(
        messages=write_draft_messages(text, where=settings.source, name=settings.name, maker=settings.maker),
        max_tokens=settings.max_tokens,
        temperature=_DRAFT_TEMPERATURE,
    )
    async with provider.open_post(
        settings.base_url,
        key=key,
        num_connections=1,
        connect_timeout_s=settings.connect_timeout_s,
        read_timeout_s=settings.read_timeout_s,
    ) as post:
        client = ChatClient(post, options, limit=AdaptiveLimit(1))
        return await client.ask(request, on_failure=lambda _: None)
