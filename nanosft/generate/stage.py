"""The generate stage: one process makes one shard of a plan's rows, and puts the data set once all are in.

    run_generate(GenerateSettings(out="s3://bucket/identity", num=1000))

Rows belong to the plan: row r is made by shard r modulo the number of shards, unless any process has it already.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from nanosft.data import read_manifest
from nanosft.dedup import NearDuplicateIndex
from nanosft.errors import ConfigError, DataError
from nanosft.generate.estimate import check_models, estimate_answer_usd, look_at_models, price_modes
from nanosft.generate.examples import read_examples
from nanosft.generate.fill import fill_up
from nanosft.generate.judges import estimate_judge_usd, open_judge
from nanosft.generate.modes import ShardBatches, choose_batch, find_batches, open_batches
from nanosft.generate.offers import Offers, model_slugs, read_offers
from nanosft.generate.plan_record import go_on_with, make_record, make_run_plan
from nanosft.generate.planning import Plan, choose_rows, plan_row, read_dimensions
from nanosft.generate.preview import read_preview
from nanosft.generate.provider import PromptTemplate, make_template
from nanosft.generate.records import (
    PartBuffer,
    PlanRecord,
    PlanState,
    attempt_of,
    check_same_plan,
    finalize_plan,
    find_fills,
    find_plan,
    is_of_another_shard,
    lacks_shards,
    name_attempt,
    read_plans,
    read_records,
    read_state,
    register_plan,
    shard_manifest,
    usd_of,
)
from nanosft.generate.rows import (
    AnswerChecker,
    Budget,
    RetryPolicy,
    RowMaker,
    Runner,
    ShardResult,
    Timing,
    filling,
    iter_jobs,
    make_index,
    read_ledgers,
    split_budget,
)
from nanosft.generate.summary import Summary, report, report_dry_run, summarize
from nanosft.generate.writers import (
    check_key,
    make_limit,
    make_retries,
    open_provider,
    source_name,
)
from nanosft.knowledge import StatedFacts, read_knowledge
from nanosft.manifest import parse_manifest
from nanosft.memory import keep_freed_memory
from nanosft.nanochat import load_tokenizer
from nanosft.progress import Bar
from nanosft.quality.gates import Context, make_gates
from nanosft.quality.grounding import make_reference
from nanosft.settings.generate import GenerateSettings
from nanosft.settings.judge import is_paid_judge
from nanosft.store import Store, open_store

_KEPT_BYTES: Final = 128 << 10
"""Freed memory that the C library keeps at most. By itself it keeps every array of the near-duplicate index that was
outgrown, up to 32 MiB each: two thirds of what a process grew by with its rows."""


@dataclass(frozen=True, slots=True)
class _Work:
    """A plan bound to its place in the store."""

    settings: GenerateSettings
    store: Store
    plan: Plan
    template: PromptTemplate
    record: PlanRecord
    context: Context
    sends_batches: bool
    offers: Offers

    @property
    def shard(self) -> range:
        """Row numbers of this process's shard."""
        return range(self.settings.shard_index, self.record.num, self.settings.num_shards)

    @property
    def rows(self) -> Sequence[int]:
        """Row numbers that this process makes: its shard's, or the few that are shown first."""
        preview = self.settings.preview
        return self.shard if preview is None else choose_rows(self.plan, self.record.num, preview)

    @property
    def name(self) -> str:
        """The data set's name: the last word of its URI."""
        return self.settings.out.rstrip("/").rpartition("/")[2]

    @property
    def threshold(self) -> float | None:
        """Of near-duplicates; None where they are not looked for."""
        gates = self.context.gates
        return gates.near_threshold if gates.has("near_duplicate") else None


def run_generate(settings: GenerateSettings) -> Summary:
    """Make a shard's missing rows; finish the data set when no row of the plan is missing, and fill it up if asked to.

    Raises:
        ConfigError: A setting cannot be right, or the prefix holds another plan.
        DataError: The knowledge base, the dimensions or a part cannot be read.
        CreditError: No credit, or the budget is reached; everything is flushed.
        ProviderError: Rows got no answer; everything is flushed.
        BatchesPendingError: Batches are with the provider, and are not waited for; everything is recorded.
        StoreError: The store fails.
        Interrupted: After a signal; everything is flushed.
    """
    if settings.dry_run:
        return _run_once(settings)
    return report(fill_up(settings, _run_once), settings)


def _run_once(settings: GenerateSettings) -> Summary:
    """Make the rows of the plan as it has grown, and tell nobody."""
    started_s = time.monotonic()
    knowledge = read_knowledge(settings.knowledge)
    dimensions = read_dimensions(settings.dimensions)
    plan = make_run_plan(settings, dimensions, knowledge)
    examples = read_examples(settings.examples, num=settings.num_examples, seed=settings.seed)
    template = make_template(plan, tone=settings.tone, examples=examples.conversations)
    gates = make_gates(settings)
    if settings.dry_run:
        offers = read_offers(settings)
        summary = report_dry_run(settings, template, plan, offers, started_s)
        choose_batch(settings, partial(price_modes, settings, template, plan, offers))  # tells what auto comes to
        check_models(settings, template, plan, offers)
        return summary
    store = open_store(settings.out)
    begun = read_plans(store)
    num, fills = find_fills(begun.values(), settings.num)
    offers = Offers()
    found = read_manifest(store)
    if found is not None and found.kind != "generated":
        raise ConfigError(f"{store.uri}: holds a {found.kind} set: choose another --out")
    finished = {} if found is None else {int(found.settings["num"]): PlanRecord.of(found)}
    settings = settings.model_copy(update={"num": num})
    plan = replace(go_on_with(plan, (*begun.values(), *finished.values())), fills=fills)
    asked = make_record(settings, plan, template, gates, examples)
    check_same_plan(finished, asked, store)  # a copied set may come without its plan's records
    is_finished = found is not None and found.settings.get("num") == settings.num and not settings.retry_rejects
    if not is_finished and not settings.finalize:
        check_key(settings)
        offers = look_at_models(settings, template, plan)
        asked = replace(asked, catalogue=offers.to_record((*model_slugs(settings), settings.judge_model or "")))
    is_whole = not settings.finalize and settings.preview is None
    sends_batches = is_whole and choose_batch(settings, partial(price_modes, settings, template, plan, offers))
    record = find_plan(store, asked) if settings.finalize else register_plan(store, asked)
    if found is not None and is_finished:
        return _with_preview(store, plan, summarize(settings, found, ShardResult(), started_s), settings)
    tokenizer = load_tokenizer(settings.tokenizer) if settings.tokenizer is not None else None
    context = Context(
        gates,
        make_reference(knowledge),
        full_stops=True,
        tokenizer=tokenizer,
        max_tokens=settings.max_context_tokens,
    )
    work = _Work(settings, store, plan, template, record, context, sends_batches, offers)
    result = ShardResult() if settings.finalize else _make_shard(work)
    return _finish(work, result, started_s)


def _make_shard(work: _Work) -> ShardResult:
    """Make the shard's missing rows and put its manifest, whole or not."""
    index = None if work.threshold is None else make_index(work.threshold, work.template.examples)
    batches = find_batches(work.settings, work.store, work.shard, sends=work.sends_batches)
    state = read_state(work.store, work.shard, work.record.num, batches=batches.names, skip=_skip_others(work))
    retries = make_retries(work.settings)
    jobs = iter_jobs(state, work.rows, retries, retry_rejects=work.settings.retry_rejects)
    if next(jobs, None) is None and not batches.have_rows(state.taken):
        _put_shard_manifest(work, state, complete=work.settings.preview is None)
        return ShardResult()
    return asyncio.run(_run_shard(work, state, index, retries, batches))


def _skip_others(work: _Work) -> Callable[[str], bool]:
    """Which parts hold nothing that this process needs: those of other shards, and what they cost is in a ledger."""
    settings = work.settings
    budgeted: set[str] | None = None
    if settings.budget_usd is not None:
        budgeted = {name for entry in read_ledgers(work.store).values() for name in entry.attempts}

    def skip(key: str) -> bool:
        if not is_of_another_shard(key, settings.num_shards, settings.shard_index):
            return False
        return settings.preview is None and (budgeted is None or attempt_of(key) in budgeted)

    return skip


async def _run_shard(
    work: _Work, state: PlanState, index: NearDuplicateIndex | None, retries: RetryPolicy, batches: ShardBatches
) -> ShardResult:
    settings, plan = work.settings, work.plan
    keep_freed_memory(_KEPT_BYTES)
    attempt = name_attempt(settings.num_shards if settings.preview is None else None)
    limit = make_limit(settings, work.template)
    budget = _open_budget(work, state, attempt)
    is_complete = False
    meter = budget.meter(_first_judgement_usd(work, state)) if budget is not None else None
    async with (
        filling(index, partial(read_records, work.store), sorted(state.objects), work.shard) as filled,
        open_provider(settings, plan, work.template, limit, budget, work.offers) as ask,
        open_judge(settings, plan, meter, work.offers) as judge,
    ):
        maker = RowMaker(
            plan_row=partial(plan_row, plan),
            ask=ask,
            retries=retries,
            checker=AnswerChecker(work.context, index, num_examples=len(work.template.examples), filled=filled),
            judge=judge,
            row_timeout_s=settings.row_timeout_s,
            source=source_name(settings),
        )
        timing = Timing(settings.flush_rows, settings.flush_s, settings.stop_grace_s)
        rows = work.rows
        with Bar("generate", len(rows)) as bar:
            bar.update(sum(state.count(rows)), per_s=0.0, cost_usd=state.tally.cost_usd)
            buffer = PartBuffer(settings.shard_index, attempt)
            runner = Runner(
                maker.make, work.store, buffer, limit, timing, bar, state, on_signal=maker.checker.stop_waiting
            )
            try:
                async with open_batches(
                    settings, work.template, work.offers, batches, state.taken, maker, budget
                ) as make_some:
                    jobs = iter_jobs(state, rows, retries, retry_rejects=settings.retry_rejects)
                    result = await runner.run(jobs, make_some)
                is_complete = settings.preview is None
            finally:
                if budget is not None:
                    await asyncio.to_thread(budget.close)
                _put_shard_manifest(work, state, complete=is_complete)
    return result


def _open_budget(work: _Work, state: PlanState, attempt: str) -> Budget | None:
    settings = work.settings
    if settings.budget_usd is None or not (settings.provider == "openrouter" or is_paid_judge(settings.judge_model)):
        return None
    ledgers = read_ledgers(work.store)
    budgeted = {name for entry in ledgers.values() for name in entry.attempts}
    unbudgeted_pico = sum(pico for name, pico in state.pico_by_attempt.items() if name not in budgeted)
    share = split_budget(
        settings.budget_usd,
        num_rows=work.record.num,
        num_shards=settings.num_shards,
        shard_index=settings.shard_index,
        ledgers=ledgers,
        unbudgeted_usd=usd_of(unbudgeted_pico),
    )
    shard = (settings.num_shards, settings.shard_index)
    return Budget(
        work.store,
        shard,
        attempt=attempt,
        share=share,
        entry=ledgers.get(shard),
        mean_cost_usd=_first_cost_usd(work, state),
    )


def _first_cost_usd(work: _Work, state: PlanState) -> float:
    """What an answer is taken to cost until this process has paid for one."""
    if state.tally.num_billed:
        return state.tally.mean_cost_usd
    return estimate_answer_usd(work.settings, work.template, work.plan, work.offers)


def _first_judgement_usd(work: _Work, state: PlanState) -> float:
    """What a score is taken to cost until this process has paid for one."""
    return state.tally.judge.mean_cost_usd or estimate_judge_usd(work.settings, work.plan, work.offers)


def _put_shard_manifest(work: _Work, state: PlanState, *, complete: bool) -> None:
    num_shards, shard_index = work.settings.num_shards, work.settings.shard_index
    manifest = shard_manifest(
        work.record, state, name=work.name, num_shards=num_shards, shard_index=shard_index, complete=complete
    )
    work.store.write(f"shards/{num_shards}/{shard_index:05d}.json", manifest.to_bytes())


def _finish(work: _Work, result: ShardResult, started_s: float) -> Summary:
    """Put the data set's manifest if the plan is complete, and say what stands."""
    settings = work.settings
    manifest = None
    if settings.finalize or settings.preview is not None or not lacks_shards(work.store, settings.num_shards):
        stated = StatedFacts(work.plan.knowledge)
        manifest = finalize_plan(work.store, work.record, name=work.name, threshold=work.threshold, stated=stated)
    if manifest is not None:
        return _with_preview(work.store, work.plan, summarize(settings, manifest, result, started_s), settings)
    if settings.finalize:
        raise DataError(f"{work.store.uri}: rows of the plan are missing: run its shards first")
    key = f"shards/{settings.num_shards}/{settings.shard_index:05d}.json"
    shard = parse_manifest(work.store.read(key), where=work.store.uri_of(key))
    return _with_preview(work.store, work.plan, summarize(settings, shard, result, started_s), settings)


def _with_preview(store: Store, plan: Plan, summary: Summary, settings: GenerateSettings) -> Summary:
    """The summary, with the rows of a preview where one was asked for."""
    if settings.preview is None:
        return summary
    rows = choose_rows(plan, settings.num, settings.preview)
    return replace(summary, preview=read_preview(store, plan, rows, settings.num))
