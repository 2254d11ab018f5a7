"""What a run is asked for: its plan, and the record of all that decides the plan's rows."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from nanosft.generate.examples import Examples
from nanosft.generate.judges import JUDGE_SETTINGS, plan_settings
from nanosft.generate.planning import DEALING, TOKENS_PER_MESSAGE, Dimensions, Plan, make_plan
from nanosft.generate.provider import PromptTemplate
from nanosft.generate.records import PlanRecord
from nanosft.generate.writers import model_name, writer_shares
from nanosft.knowledge import SHIPPED, Knowledge
from nanosft.manifest import Parent
from nanosft.quality.gates import GATE_SETTINGS, Gates
from nanosft.settings.generate import GenerateSettings
from nanosft.settings.shares import DEFAULT_LANGUAGES

_DEALING_KEY: Final = "dealing"
"""How several models or languages are dealt; absent where there is one of each, and in plans of the first dealing."""
_log: Final = logging.getLogger(__name__)


def make_run_plan(settings: GenerateSettings, dimensions: Dimensions, knowledge: Knowledge) -> Plan:
    """The plan of a run, with its models and languages. Raises as `make_plan`."""
    return make_plan(
        dimensions,
        knowledge,
        seed=settings.seed,
        models=writer_shares(settings),
        languages=_languages(settings),
        max_messages=_max_messages(settings),
    )


def go_on_with(plan: Plan, begun: Iterable[PlanRecord]) -> Plan:
    """The plan, dealt as what an earlier version began of it."""
    if all(_DEALING_KEY in record.settings for record in begun):
        return plan
    first = (None if deal is None else deal.as_first() for deal in (plan.models, plan.languages))
    return replace(plan, models=next(first), languages=next(first))


def make_record(
    settings: GenerateSettings, plan: Plan, template: PromptTemplate, gates: Gates, examples: Examples
) -> PlanRecord:
    """What decides the rows of a plan, as manifests name it; `num` is apart, as it may grow."""
    content = settings.content()
    apart = (*GATE_SETTINGS, *JUDGE_SETTINGS, "examples", "languages", "max_messages", "num_examples", "num")
    for name in apart:  # the gates stand under one name
        del content[name]
    derived = {
        "dimensions": plan.dimensions.sha256,
        "gates": gates.to_settings(),
        "knowledge": plan.knowledge.sha256,
        "model": model_name(settings),
        "prompt_version": template.version,
    }
    languages = _languages(settings)
    spoken = {} if languages is None else {"languages": languages}
    long = {} if settings.max_messages is None else {"max_messages": settings.max_messages}
    dealt = {_DEALING_KEY: DEALING} if _is_balanced(plan) else {}
    stated = content | derived | spoken | long | dealt | examples.plan_settings() | plan_settings(settings, plan)
    return PlanRecord(settings.num, stated, (*_parents(settings, plan), *examples.parents))


def _is_balanced(plan: Plan) -> bool:
    """Whether there is more than one model or language, dealt as new plans have them."""
    deals = (plan.models, plan.languages)
    return any(deal is not None and len(deal.word) > 1 and deal.dimensions for deal in deals)


def _max_messages(settings: GenerateSettings) -> int | None:
    """The bound that is asked for, and no more than what the base can take, where that is told."""
    asked, context = settings.max_messages, settings.max_context_tokens
    if asked is None or context is None or asked * TOKENS_PER_MESSAGE <= context:
        return asked
    bound = max(2, context // TOKENS_PER_MESSAGE // 2 * 2)
    _log.info(
        "--max-messages %d: %d, as about %d tokens a message fit into --max-context-tokens",
        asked,
        bound,
        TOKENS_PER_MESSAGE,
    )
    return bound


def _languages(settings: GenerateSettings) -> Mapping[str, int] | None:
    """The languages by their shares; None for English alone, as sets begun before there were others have it."""
    shares: dict[str, Any] = settings.language_shares
    return None if tuple(shares) == DEFAULT_LANGUAGES else shares


def _parents(settings: GenerateSettings, plan: Plan) -> tuple[Parent, ...]:
    """The knowledge base, and the dimensions unless they are those that nanosft ships."""
    parents = (Parent(uri=settings.knowledge or SHIPPED, sha256=plan.knowledge.sha256),)
    if settings.dimensions is None:
        return parents
    return (*parents, Parent(uri=settings.dimensions, sha256=plan.dimensions.sha256))
