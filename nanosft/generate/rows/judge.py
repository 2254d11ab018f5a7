"""The judge: a second model that scores what the gates have accepted, before it counts as accepted.

An answer of the judge that cannot be read is asked for again, up to `NUM_TRIES` times; then the conversation is kept
without a score, and counted: the gates have accepted it, it is paid for, and a judge that cannot make up its mind must
not cost rows. A judge that does not answer at all is another matter: the answer is held in the store, the run ends as
it does for a writer that does not answer, and the next one has the same answer scored.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from nanosft.conversation import Conversation
from nanosft.errors import ProviderError
from nanosft.generate.planning import PlanRow
from nanosft.generate.provider import AdaptiveLimit, Answer
from nanosft.quality.scores import NUM_TRIES, Score, is_drawn

AskJudge = Callable[[PlanRow, Conversation, int, Callable[[Answer], None]], Awaitable[Answer]]
"""Ask for a score: the row, its conversation, which try it is, and who is told of billed failures."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A judge's last answer, and the score that it is; None: no answer could be read."""

    score: Score | None
    answer: Answer


@dataclass(frozen=True, slots=True)
class Judge:
    """Scores conversations of the rows that are drawn.

    Attributes:
        ask: Who is asked.
        parse: What an answer's text says; None where it is of another form.
        limit: Slots for its requests in flight, apart from the writer's.
        min_score: A conversation with a lower number is refused; None: none is.
        share: Of the rows, drawn by number and seed.
        seed: Of the draw.
        timeout_s: Seconds for all answers about one conversation together.
    """

    ask: AskJudge
    parse: Callable[[str], Score | None]
    limit: AdaptiveLimit
    min_score: int | None
    share: float
    seed: int
    timeout_s: float

    def is_due(self, row: int) -> bool:
        """Whether the row is among those that are scored."""
        return is_drawn(row, seed=self.seed, share=self.share)

    def refuses(self, score: Score | None) -> bool:
        """Whether a conversation with this score is refused; one without is not."""
        return score is not None and score.is_below(self.min_score)

    async def score(self, row: PlanRow, conversation: Conversation, on_failure: Callable[[Answer], None]) -> Judgement:
        """The judgement of one conversation.

        Args:
            row: Its row.
            conversation: What the gates have accepted.
            on_failure: Gets each answer of the judge that was paid for, or may have been, and is no score.

        Raises:
            ProviderError: The judge does not answer, or not in time.
            NanosftError: The judge cannot be asked, or the budget is reached.
        """
        try:
            async with asyncio.timeout(self.timeout_s):
                return await self._score(row, conversation, on_failure)
        except TimeoutError as exc:
            raise ProviderError(f"the judge of row {row.row} took longer than {self.timeout_s:g} s") from exc

    async def _score(self, row: PlanRow, conversation: Conversation, on_failure: Callable[[Answer], None]) -> Judgement:
        number = 0
        while True:
            await self.limit.acquire()
            try:
                answer = await self.ask(row, conversation, number, on_failure)
            finally:
                self.limit.release()
            score = self.parse(answer.text) if answer.problem is None else None
            if score is not None:
                return Judgement(score, answer)
            on_failure(answer)
            number += 1
            if number == NUM_TRIES:
                return Judgement(None, answer)
