"""Rows that are added for facts which too few answers state: `--fill`."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from nanosft.generate.records import find_fills, grow_plan, read_plans
from nanosft.generate.summary import Summary
from nanosft.settings.generate import GenerateSettings
from nanosft.store import open_store

_MOST_TRIES: Final = 3
"""Rows that are added for a fact at most, for each answer that is wanted: some facts are never said as they stand."""
_log: Final = logging.getLogger(__name__)


def fill_up(settings: GenerateSettings, run: Callable[[GenerateSettings], Summary]) -> Summary:
    """Run; as long as a finished set has facts that too few answers state, add rows for them and run on.

    Whichever process finishes the plan makes the added rows, all shards' of them: the others have ended. A run that is
    killed meanwhile leaves a plan that has grown, which any later run of the same command goes on with.

    Args:
        settings: What the run is told.
        run: Makes the rows that are missing.
    """
    summary = run(settings)
    if settings.fill is None or settings.preview is not None:
        return summary
    store = open_store(settings.out)
    while summary.manifest is not None:
        facts = summary.counts["facts"]
        _, fills = find_fills(read_plans(store).values(), settings.num)
        if not (lacking := find_lacking(facts, settings.fill, Counter(fills.values()))):
            _tell_rest(facts, settings.fill)
            return summary
        _log.info("--fill: %d rows more, for %d facts", len(lacking), len(set(lacking)))
        grow_plan(store, lacking)
        summary = run(settings.model_copy(update={"num_shards": 1, "shard_index": 0, "finalize": False}))
    return summary


def find_lacking(facts: Mapping[str, int], least: int, tried: Mapping[str, int]) -> tuple[str, ...]:
    """The facts to add a row for, in turns: half of what each lacks, as other facts' rows may state it. Pure.

    Args:
        facts: Answers that state each, by its id.
        least: How many are wanted.
        tried: Rows that were added for each so far.
    """
    wanted = {
        fact: min(-(-(least - count) // 2), _MOST_TRIES * least - tried.get(fact, 0))
        for fact, count in facts.items()
        if count < least
    }
    return tuple(fact for turn in range(least) for fact, num in wanted.items() if turn < num)


def _tell_rest(facts: Mapping[str, int], least: int) -> None:
    """Warn of facts that rows of their own did not get stated."""
    if rest := [fact for fact, count in facts.items() if count < least]:
        _log.warning(
            "--fill: %d facts are stated by fewer than %d answers, although %d rows were added for each (%s): "
            "look at their words in the knowledge base",
            len(rest),
            least,
            _MOST_TRIES * least,
            ", ".join(rest[:5]),
        )
