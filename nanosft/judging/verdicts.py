"""Verdicts on an evaluation's answers: `nanosft eval --judge-model`.

An evaluation is never lost to its judge: where the API fails or the budget is reached, what came until then is kept,
and the rest is counted.
"""

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from typing import Final

from nanosft.evaluate.second_opinion import AskJudge, Opinion, Opinions, make_response_format, parse_opinion
from nanosft.generate.provider import Answer, ChatRequest
from nanosft.judging.asking import Asker, open_asker
from nanosft.progress import Bar
from nanosft.settings.evaluate import EvalSettings

_MAX_TOKENS: Final = 512
_CASE_TOKENS: Final = 800
"""Task, facts and question of a verdict, without the answer that is judged."""
_log = logging.getLogger(__name__)


def make_judge(settings: EvalSettings) -> AskJudge | None:
    """What asks for verdicts the judge that the settings of `eval` name; None where they name none.

    Raises:
        ConfigError: There is no key, the judge cannot do the job, or there is nothing to hold the budget against.
    """
    if settings.judge_model is None:
        return None
    num_prompt_tokens = _CASE_TOKENS + settings.max_tokens
    return partial(_ask_verdicts, open_asker(settings, settings.judge_model, num_prompt_tokens=num_prompt_tokens))


def _ask_verdicts(asker: Asker, prompts: Sequence[list[dict[str, str]]]) -> Opinions:
    """One opinion a prompt, as far as the API and the budget reach."""
    opinions: list[Opinion | None] = [None] * len(prompts)

    def write(place: int, _number: int) -> ChatRequest:
        return ChatRequest(
            prompts[place], response_format=make_response_format(), max_tokens=_MAX_TOKENS, temperature=0.0
        )

    def take(place: int, answer: Answer) -> bool:
        opinions[place] = None if answer.problem else parse_opinion(answer.text)
        return True

    bill = asker.bill
    with Bar("judge", len(prompts)) as bar:
        asyncio.run(asker.ask(write, len(prompts), take, bar=bar))
    if bill.stopped_by is not None:
        _log.warning("the judge is asked no more: %s", bill.stopped_by)
    return Opinions(asker.model, tuple(opinions), bill.spent_usd, bill.num_requests, bill.num_unknown)
