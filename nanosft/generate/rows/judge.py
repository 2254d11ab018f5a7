"""The judge: a second model that scores what the gates have accepted, before it counts as accepted.

An answer of the judge that cannot be read is asked for again, up to `NUM_TRIES` times; then the conversation is kept
without a score, and counted: the gates have accepted it, it is paid for, and a judge that cannot make up its mind must
not cost rows. A judge that does not answer at all is another matter: the answer is held in the store, the run ends as
it does for a writer that does not answer, and the next one has the same answer scored. Answers that came in a batch are
held at once, and scored in batches.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from nanosft.conversation import Conversation
from nanosft.errors import ProviderError
from nanosft.generate.planning import PlanRow
from nanosft.generate.provider import AdaptiveLimit, Answer, ChatRequest
from nanosft.quality.scores import NUM_TRIES, Score, is_drawn

AskJudge = Callable[[PlanRow, Conversation, int, Callable[[Answer], None]], Awaitable[Answer]]
"""Ask for a score: the row, its conversation, which try it is, and who is told of billed failures."""
WriteCase = Callable[[PlanRow, Conversation, int], ChatRequest]
"""What a judge is asked: of a row, its conversation, and which try it is."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A judge's last answer, and the score that it is; None: no answer could be read."""

    score: Score | None
    answer: Answer


@dataclass(frozen=True, slots=True)
class JudgeBatches:
    """A judge, as it is asked in batches.

    Attributes:
        model: Its slug.
        write: What it is asked.
        account: Of the budget.
    """

    model: str
    write: WriteCase
    account: int


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
        batches: How it is asked in batches; None: it has none.
    """

    ask: AskJudge
    parse: Callable[[str], Score | None]
    limit: AdaptiveLimit
    min_score: int | None
    share: float
    seed: int
    timeout_s: float
    batches: JudgeBatches | None = None

    def is_due(self, row: int) -> bool:
        """Whether the row is among those that are scored."""
        return is_drawn(row, seed=self.seed, share=self.share)

    def refuses(self, score: Score) -> bool:
        """Whether a conversation with this score is refused."""
        return score.is_below(self.min_score)

    def read(self, answer: Answer) -> Score | None:
        """The score that an answer is; None where it cannot be read."""
        return self.parse(answer.text) if answer.problem is None else None

    async def score(
        self,
        row: PlanRow,
        conversation: Conversation,
        on_failure: Callable[[Answer], None],
        on_unread: Callable[[Answer], None],
        *,
        num_tries: int = 0,
    ) -> Judgement:
        """The judgement of one conversation.

        Args:
            row: Its row.
            conversation: What the gates have accepted.
            on_failure: Gets each request that was paid for, or may have been, and that no answer came to.
            on_unread: Gets each answer that cannot be read.
            num_tries: Those that earlier processes got.

        Raises:
            ProviderError: The judge does not answer, or not in time.
            NanosftError: The judge cannot be asked, or the budget is reached.
        """
        try:
            async with asyncio.timeout(self.timeout_s):
                while True:
                    answer = await self._ask(row, conversation, num_tries, on_failure)
                    if (score := self.read(answer)) is not None:
                        return Judgement(score, answer)
                    on_unread(answer)
                    num_tries += 1
                    if num_tries >= NUM_TRIES:
                        return Judgement(None, answer)
        except TimeoutError as exc:
            raise ProviderError(f"the judge of row {row.row} took longer than {self.timeout_s:g} s") from exc

    async def _ask(
        self, row: PlanRow, conversation: Conversation, number: int, on_failure: Callable[[Answer], None]
    ) -> Answer:
        await self.limit.acquire()
        try:
            return await self.ask(row, conversation, number, on_failure)
        finally:
            self.limit.release()
