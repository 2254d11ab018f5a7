"""A judge of an audit's rows: who is drawn, what is asked, what is kept of each answer, and the sums of it.

    <out>/judgements/<attempt>-<number>.jsonl    every answer of the judge, put as soon as a chunk of rows is through

Who asks is handed in (`AskScores`), which `nanosft.judging` is. Lines name row, conversation, judge and task: a later
run of the same audit, or of one with other gates, finds them there and pays for none of them again.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import orjson

from nanosft.conversation import Conversation
from nanosft.data import name_process
from nanosft.errors import ConfigError, CreditError, DataError, ProviderError
from nanosft.knowledge import Knowledge
from nanosft.quality.scores import (
    LOCAL_REASON_CHARS,
    LOW_SCORE,
    NUM_TRIES,
    JudgeReply,
    Score,
    ScoreTally,
    hash_task,
    is_drawn,
    list_criteria,
    make_score_format,
    parse_score,
    write_case,
    write_task,
)
from nanosft.quality.verdict import Defect, Verdict
from nanosft.settings.audit import AuditSettings
from nanosft.settings.judge import LOCAL_JUDGE
from nanosft.signals import saving
from nanosft.store import Store, open_store

JUDGEMENTS: Final = "judgements/"
CHUNK_ROWS: Final = 128
"""Rows that are asked about together: at most so many answers are lost by a kill, and one part is put for each."""


Take = Callable[[int, JudgeReply], bool]
"""Gets every answer of the judge, by the place of its case, and says whether it is a score."""


class AskScores(Protocol):
    """Asks a judge."""

    @property
    def model(self) -> str:
        """Who is asked."""

    def count_earlier(self, costs_usd: Iterable[float | None]) -> None:
        """Count what earlier runs have paid."""

    def ask(self, task: str, cases: Sequence[str], response_format: dict[str, Any], take: Take) -> None:
        """Ask about each case until an answer can be used; raises NanosftError where nothing more can be asked."""


@dataclass
class Judgements:
    """Scores rows of one audit, a chunk at a time.

    Attributes:
        settings: Of the audit.
        ask: Who asks.
        knowledge: What the assistant may say; None where it is not known.
    """

    settings: AuditSettings
    ask: AskScores
    knowledge: Knowledge | None
    _lines: list[bytes] = field(default_factory=list)
    _known: dict[tuple[int, str], list[dict[str, Any]]] = field(default_factory=dict)
    _scores: ScoreTally = field(default_factory=ScoreTally)
    _num_parts: int = 0
    _num_scored: int = 0
    _num_unscored: int = 0
    _num_refused: int = 0
    _num_requests: int = 0
    _num_unknown: int = 0
    _cost_usd: float = 0.0

    def __post_init__(self) -> None:
        self._criteria = list_criteria(has_course=False)
        self._task = write_task(self.knowledge, self._criteria)
        self._name = name_process()
        self._store: Store | None = open_store(self.settings.out) if self.settings.out else None
        if self._store is not None:
            for record in self._read():
                self._known.setdefault((record["row"], record["id"]), []).append(record)
                self._count(record["cost_usd"])
            self.ask.count_earlier(record["cost_usd"] for found in self._known.values() for record in found)

    def judge(self, first_row: int, verdicts: Sequence[Verdict | None]) -> list[Verdict | None]:
        """The verdicts of a chunk, scored where the gates accepted and the draw has it; None stays.

        Args:
            first_row: The row number of the first.
            verdicts: One a row, in order.

        Raises:
            NanosftError: With `out`: the judge cannot be asked on; what came is put. Without, such rows get no score.
        """
        due = [
            (first_row + place, verdict.conversation)
            for place, verdict in enumerate(verdicts)
            if verdict is not None
            and verdict.accepted
            and is_drawn(first_row + place, seed=self.settings.seed, share=self.settings.judge_share)
        ]
        asked = [item for item in due if not self._is_done(*item)]
        if asked:
            self._ask(asked)
        rows = dict(due)
        return [
            self._apply(first_row + place, verdict) if verdict is not None and first_row + place in rows else verdict
            for place, verdict in enumerate(verdicts)
        ]

    def counts(self) -> dict[str, Any]:
        """What the audit tells: rows by what became of them, means and counts by score, answers and dollars."""
        return {
            "model": self.ask.model,
            "rows": {"scored": self._num_scored, "unscored": self._num_unscored, "refused": self._num_refused},
            "scores": self._scores.summarize(),
            "requests": self._num_requests,
            "requests_of_unknown_cost": self._num_unknown,
            "cost_usd": round(self._cost_usd, 12),
        }

    def _ask(self, rows: Sequence[tuple[int, Conversation]]) -> None:
        def take(place: int, reply: JudgeReply) -> bool:
            row, conversation = rows[place]
            score = parse_score(reply.text, self._criteria) if reply.text is not None else None
            record = {
                "row": row,
                "id": conversation.id,
                "task": hash_task(self._task),
                "asked": self.settings.judge_model,
                "model": reply.model,
                "scores": None if score is None else dict(score.values),
                "reason": reply.detail if score is None else score.reason,
                "cost_usd": reply.cost_usd,
                "tokens": dict(reply.tokens),
            }
            self._known.setdefault((row, conversation.id), []).append(record)
            self._lines.append(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
            self._count(reply.cost_usd)
            return score is not None

        bound = LOCAL_REASON_CHARS if self.settings.judge_model == LOCAL_JUDGE else None
        score_format = make_score_format(self._criteria, max_reason_chars=bound)
        try:
            self.ask.ask(self._task, [write_case(conversation) for _, conversation in rows], score_format, take)
        except (ConfigError, CreditError, ProviderError) as exc:
            if self._store is not None:
                raise type(exc)(
                    f"{exc}: {len(self._known):,} rows are judged, and none is paid for again: run the same command "
                    "again, with a larger --budget-usd where that is it"
                ) from exc
        finally:
            self._put()

    def _apply(self, row: int, verdict: Verdict) -> Verdict:
        """A verdict with the score in its conversation's meta, refused where it is too low."""
        records = self._known.get((row, verdict.conversation.id), [])
        found = next((record for record in records if record["scores"]), None)
        if found is None:
            self._num_unscored += 1
            why = records[-1]["reason"] if records else "the judge was not asked"
            judged = verdict.conversation.with_meta(judge={"model": self.ask.model, "unscored": why})
            return Verdict(judged, verdict.defects)
        meta = {name: found[name] for name in ("model", "scores", "reason", "cost_usd", "tokens")}
        judged = verdict.conversation.with_meta(judge=meta)
        score, limit = Score(found["scores"], found["reason"]), self.settings.min_score
        if limit is None or not score.is_below(limit):
            self._num_scored += 1
            self._scores.add(score.values)
            return Verdict(judged, verdict.defects)
        self._num_refused += 1
        return Verdict(judged, (*verdict.defects, Defect("judge", LOW_SCORE, score.explain(limit))))

    def _is_done(self, row: int, conversation: Conversation) -> bool:
        records = self._known.get((row, conversation.id), [])
        return any(record["scores"] for record in records) or len(records) >= NUM_TRIES

    def _count(self, cost_usd: float | None) -> None:
        self._num_requests += 1
        self._num_unknown += cost_usd is None
        self._cost_usd += cost_usd or 0.0

    def _put(self) -> None:
        """Put what has come as one part."""
        if self._store is not None and self._lines:
            with saving():
                self._store.write(f"{JUDGEMENTS}{self._name}-{self._num_parts:05d}.jsonl", b"".join(self._lines))
                self._num_parts += 1
        self._lines = []

    def _read(self) -> Iterator[dict[str, Any]]:
        """What earlier runs have put of this judge and this task."""
        assert self._store is not None
        wanted = hash_task(self._task), self.settings.judge_model
        for info in self._store.list(JUDGEMENTS):
            for number, line in enumerate(self._store.read(info.key).splitlines(), 1):
                try:
                    record = orjson.loads(line)
                    is_ours = (record["task"], record["asked"]) == wanted
                    _ = record["row"], record["id"], record["scores"], record["cost_usd"]
                except (orjson.JSONDecodeError, KeyError, TypeError) as exc:
                    where = f"{self._store.uri_of(info.key)}:line {number}"
                    raise DataError(f"{where}: not a judgement of an audit: remove the object") from exc
                if is_ours:
                    yield record
