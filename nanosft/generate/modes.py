"""How the rows of a run are asked for: one by one, or in batches; and what is with the provider from runs before."""

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from nanosft.errors import ConfigError
from nanosft.generate import provider
from nanosft.generate.batches import (
    Batcher,
    BatchHttp,
    BatchPolicy,
    Journal,
    OpenAiBatches,
    OpenBatch,
    OpenRouterBatches,
    Requests,
    RowRequest,
    TokenPrices,
)
from nanosft.generate.offers import Offers, OtherModels, find_prices
from nanosft.generate.planning import PlanRow
from nanosft.generate.provider import ChatRequest, PromptTemplate, read_key, request_fields
from nanosft.generate.rows import Budget, MakeSome, RowMaker, held_answer
from nanosft.generate.writers import sends_openrouter_fields, write_request
from nanosft.settings.generate import GenerateSettings
from nanosft.store import Store

_MAX_BODY_BYTES: Final = 1 << 28
"""Of what a batch service answers: the results of 5,000 long conversations in one file."""
_FIELDS_OF_ONE: Final = frozenset({"usage", "provider"})
"""OpenRouter's own fields of a request that is sent alone: a batch states its cost, and goes to one provider."""
_MILLION: Final = 1_000_000
_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModePrices:
    """Dollars of the whole plan in each mode, of its scores too; None: no price is known.

    Attributes:
        sync_usd: One by one, with the fixed part of the prompt from the cache as far as the model has a price for that.
        batch_usd: In batches.
    """

    sync_usd: float | None = None
    batch_usd: float | None = None


def choose_batch(settings: GenerateSettings, read_prices: Callable[[], ModePrices]) -> bool:
    """Whether rows go out in batches; what `--mode auto` has chosen, and why, is told.

    Raises:
        ConfigError: Batches are asked for of a writer that has none.
    """
    if settings.provider != "openrouter":
        if settings.mode == "batch":
            raise ConfigError(f"--mode batch: --provider {settings.provider} has no batches: leave --mode out")
        return False
    if settings.mode != "auto":
        return settings.mode == "batch"
    chosen, why = compare(read_prices())
    _log.info("--mode auto: %s: %s", "batch" if chosen else "sync", why)
    return chosen


def compare(prices: ModePrices) -> tuple[bool, str]:
    """Whether batches cost less, and the words for it; sync where a price is not known."""
    if prices.batch_usd is None:
        return False, "no batch price is known of the model"
    if prices.sync_usd is None:
        return False, "no price is known of the model"
    figures = f"about ${prices.batch_usd:,.2f} in batches, ${prices.sync_usd:,.2f} one by one with prompt caching"
    return prices.batch_usd < prices.sync_usd, figures


@dataclass(frozen=True, slots=True)
class ShardBatches:
    """What is in the store of batches when a run begins, and whether it sends more."""

    journal: Journal
    pending: Sequence[OpenBatch]
    shard: range
    sends: bool

    @property
    def names(self) -> list[str]:
        """Of the batches that are not done."""
        return [found.record.name for found in self.pending]

    def have_rows(self, taken: Mapping[str, set[int]]) -> bool:
        """Whether a batch that is not done has answers for the shard that are in no part."""
        return any(
            item.row in self.shard and item.row not in taken.get(found.record.name, ())
            for found in self.pending
            for item in found.record.requests
        )


def find_batches(settings: GenerateSettings, store: Store, shard: range, *, sends: bool) -> ShardBatches:
    """Look for batches of earlier runs, whatever this one's mode is: nothing that they hold is asked for twice."""
    journal = Journal(store, (settings.num_shards, settings.shard_index))
    return ShardBatches(journal, journal.read_open(), shard, sends)


@asynccontextmanager
async def open_batches(
    settings: GenerateSettings,
    template: PromptTemplate,
    offers: Offers,
    batches: ShardBatches,
    taken: Mapping[str, set[int]],
    maker: RowMaker,
    budget: Budget | None,
) -> AsyncIterator[MakeSome | None]:
    """What makes rows in batches, while the context is open; None where there is nothing for it to do.

    Args:
        settings: What the run is told.
        template: Of prompts.
        offers: What the models can do.
        batches: What `find_batches` returned.
        taken: Rows of the pending batches whose answers are in parts.
        maker: Makes prompts, and puts answers through the gates.
        budget: None: no limit.
    """
    if not batches.sends and not batches.pending:
        yield None
        return
    key = read_key(settings.openrouter_api_key)
    async with provider.open_http(
        settings.base_url,
        key=key,
        num_connections=1,
        connect_timeout_s=settings.connect_timeout_s,
        read_timeout_s=settings.read_timeout_s,
        max_body_bytes=_MAX_BODY_BYTES,
    ) as send:
        http = BatchHttp(send, settings.base_url, settings.max_retries, key)
        openrouter = sends_openrouter_fields(settings)
        batcher = Batcher(
            api=OpenRouterBatches(http) if openrouter else OpenAiBatches(http),
            journal=batches.journal,
            pending=batches.pending,
            taken=taken,
            shard=batches.shard,
            maker=maker,
            writing=_list_rows(settings, template, offers),
            scoring=_list_scores(settings, offers, maker),
            budget=budget,
            policy=BatchPolicy(
                size=settings.batch_size if batches.sends else 0,
                rest=settings.batch_rest,
                poll_s=settings.batch_poll_s,
                wait=settings.wait,
                endpoint=settings.base_url,
            ),
        )
        yield batcher.run


def _list_rows(settings: GenerateSettings, template: PromptTemplate, offers: Offers) -> Requests:
    """Requests of conversations."""

    def write_fields(row: PlanRow, item: RowRequest) -> dict[str, Any]:
        request = write_request(settings, template, offers, row, item.attempt, item.rejections)
        return _to_fields(request, row.model, settings)

    return Requests(
        kind="rows",
        model_of=lambda row: row.model,
        write_fields=write_fields,
        prices_of=partial(_token_prices, (settings.prompt_price_usd, settings.completion_price_usd), offers),
        on_answer=OtherModels(offers),
    )


def _list_scores(settings: GenerateSettings, offers: Offers, maker: RowMaker) -> Requests | None:
    """Requests of scores; None where there is no judge that is asked in batches."""
    judge = None if maker.judge is None else maker.judge.batches
    if judge is None:
        return None

    def write_fields(row: PlanRow, item: RowRequest) -> dict[str, Any]:
        assert item.held is not None, "what is to be scored is held"
        conversation = maker.checker.read(row, held_answer(item.held))
        return _to_fields(judge.write(row, conversation, item.num_tries), judge.model, settings)

    given = settings.judge_prompt_price_usd, settings.judge_completion_price_usd
    return Requests(
        kind="scores",
        model_of=lambda _row: judge.model,
        write_fields=write_fields,
        prices_of=partial(_token_prices, given, offers),
        on_answer=OtherModels(offers),
        account=judge.account,
    )


def _to_fields(request: ChatRequest, model: str, settings: GenerateSettings) -> dict[str, Any]:
    """The fields of a request of a batch, without its model."""
    fields = request_fields(request, model, openrouter=sends_openrouter_fields(settings))
    return {name: value for name, value in fields.items() if name not in _FIELDS_OF_ONE}


def _token_prices(given: tuple[float | None, float | None], offers: Offers, model: str) -> TokenPrices:
    """What tokens of a batch cost where the provider does not say: as given, else as listed; nothing where unknown."""
    card = offers.find(model)
    listed = card.batch_prices if card is not None and given == (None, None) else None
    prices = listed or find_prices(offers, model, given)
    if prices is None:
        return TokenPrices()
    return TokenPrices(float(prices.prompt) * _MILLION, float(prices.completion) * _MILLION)
