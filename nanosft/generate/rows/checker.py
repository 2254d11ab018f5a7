"""Answers become conversations or rejections: parsed, put through the gates, compared with all accepted before.

Answers are checked in small batches, between which the event loop turns: of 256 answers that come at once, the first
one's place is asked for anew before the last one is checked, and near-duplicates are hashed 16 at a time (54 µs each
instead of 248).
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final

from nanosft.conversation import Conversation, Message
from nanosft.dedup import NearDuplicateIndex, normalize_text
from nanosft.generate.planning import PlanRow
from nanosft.generate.provider import Answer, BadAnswerError, parse_messages
from nanosft.quality.gates import Context, check, fold

BATCH: Final = 16
_NEAR_DUPLICATE: Final = "it nearly repeats another conversation: choose other words, examples and a different course"
_NEAR_EXAMPLE: Final = "it nearly repeats one of the examples: take their voice, and choose other words and facts"


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why an answer was rejected: names to count by, the first one first, and words for the next prompt.

    `judge` is what the judge's part in it is recorded as; None where it has none.
    """

    reasons: tuple[str, ...]
    detail: str
    judge: Mapping[str, Any] | None = None


class NotComparedError(Exception):
    """The process ends before it could compare an answer, which the gates accept, with what earlier ones accepted."""


Verdict = Conversation | Rejection
_Waiting = tuple[PlanRow, Answer, bool, asyncio.Future[Verdict]]


class AnswerChecker:
    """Checks the answers of one process. Used from one event loop.

    Args:
        context: Gates and what they check against.
        index: Conversations accepted so far, the style examples first; None: near-duplicates are not looked for.
        num_examples: How many of the first in the index are style examples.
        filled: Done once the index holds what earlier runs accepted; answers wait for it. None: it does already.
    """

    def __init__(
        self,
        context: Context,
        index: NearDuplicateIndex | None,
        *,
        num_examples: int = 0,
        filled: Future[None] | None = None,
    ) -> None:
        self._context = context
        self._index = index
        self._num_examples = num_examples
        self._filled = filled
        self._waits_for_index = False
        self._is_ending = False
        self._waiting: deque[_Waiting] = deque()

    async def check(self, row: PlanRow, answer: Answer, *, is_known: bool = False) -> Verdict:
        """The conversation, folded as the gates say and with what they report in its meta, or why there is none.

        Args:
            row: Its row.
            answer: The answer.
            is_known: It was accepted before, and not forgotten since: it is not compared with itself.

        Raises:
            NotComparedError: `stop_waiting` was called before the index was filled.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Verdict] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._check_some)
        self._waiting.append((row, answer, is_known, future))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            return await future  # the process ends, but the answer is paid for: a moment, and it is kept

    def stop_waiting(self) -> None:
        """Have no answer wait for the index any longer: the process is to end soon."""
        self._is_ending = True
        if self._waits_for_index:
            self._go_on()

    def read(self, row: PlanRow, answer: Answer) -> Conversation:
        """The conversation of an answer that `check` has accepted, by this process or an earlier one."""
        return fold(_parse(row, answer), self._context.gates, language=row.language or "en")

    def forget(self, conversation: Conversation) -> None:
        """Take back what `check` has accepted: the next answer may say nearly the same."""
        if self._index is not None and (place := self._index.query(normalize_text(conversation))) is not None:
            self._index.remove(place)

    def _check_some(self) -> None:
        if self._waits_for_index:
            return
        is_filled = self._filled is None or self._filled.done()
        if self._filled is not None and not is_filled and not self._is_ending:
            self._waits_for_index = True
            loop = asyncio.get_running_loop()
            self._filled.add_done_callback(lambda _: loop.call_soon_threadsafe(self._go_on))
            return
        batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._check_some)
        try:
            verdicts = [check_answer(row, answer, self._context) for row, answer, _, _ in batch]
            if is_filled:
                self._compare(verdicts, [is_known for _, _, is_known, _ in batch])
        except BaseException as exc:  # noqa: BLE001 - a defect of a gate or of a read: it ends the run that awaits
            for *_, future in batch:
                if not future.done():
                    future.set_exception(exc)
            return
        for (_, _, is_known, future), verdict in zip(batch, verdicts, strict=True):
            _tell(future, verdict, is_final=is_filled or is_known or isinstance(verdict, Rejection))

    def _go_on(self) -> None:
        self._waits_for_index = False
        self._check_some()

    def _compare(self, verdicts: list[Verdict], are_known: Sequence[bool]) -> None:
        """Put rejections in the place of near-duplicates; the others are remembered."""
        new = {
            place: verdict
            for place, verdict in enumerate(verdicts)
            if isinstance(verdict, Conversation) and not are_known[place]
        }
        if self._index is None or not new:
            return
        if self._filled is not None:
            self._filled.result()  # raises what reading has met
        texts = [normalize_text(verdict) for verdict in new.values()]
        for place, found in zip(new, self._index.find_or_add_all(texts), strict=True):
            if found is not None and found < self._num_examples:
                verdicts[place] = Rejection(("near_duplicate/example",), _NEAR_EXAMPLE)
            elif found is not None:
                verdicts[place] = Rejection(("near_duplicate/shard",), _NEAR_DUPLICATE)


def _tell(future: asyncio.Future[Verdict], verdict: Verdict, *, is_final: bool) -> None:
    if not future.done() and is_final:
        future.set_result(verdict)
    elif not future.done():
        future.set_exception(NotComparedError)


def make_index(threshold: float, examples: Sequence[Conversation]) -> NearDuplicateIndex:
    """An index of accepted conversations that begins with the style examples."""
    index = NearDuplicateIndex(threshold)
    for example in examples:
        index.add(normalize_text(example))
    return index


def check_answer(row: PlanRow, answer: Answer, context: Context) -> Verdict:
    """What the answer alone shows: its own problem, its form, and the gates."""
    if answer.problem is not None:
        return Rejection((answer.problem.kind,), answer.problem.detail)
    try:
        conversation = _parse(row, answer)
    except BadAnswerError as exc:
        return Rejection((exc.problem.kind,), exc.problem.detail)
    verdict = check(
        conversation,
        context,
        num_messages=row.num_messages,
        names_itself=row.names_itself,
        language=row.language or "en",
    )
    if not verdict.accepted:
        return Rejection(verdict.reasons, verdict.explain())
    reported = {defect.name: defect.detail for defect in verdict.defects}
    return verdict.conversation.with_meta(reported=reported) if reported else verdict.conversation


def _parse(row: PlanRow, answer: Answer) -> Conversation:
    """The conversation that an answer is, after the row's system message. Raises as `parse_messages`."""
    before = (Message("system", row.system),) if row.system else ()
    return Conversation((*before, *parse_messages(answer.text)))
