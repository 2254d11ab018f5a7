"""The rows of a set, for its figures and for the browser: read once, streamed, and a sample of them kept.

What cannot be read is counted and told, never raised: a page shows what is there.
"""

import hashlib
import heapq
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from nanosft.conversation import Conversation, Format, parse_conversation, parse_line, to_line
from nanosft.data import DATA_SUFFIXES, DataObject, day_of_process, iter_lines, list_data_objects
from nanosft.errors import DataError, NanosftError
from nanosft.inspection import Inspection, count_row
from nanosft.knowledge import Knowledge, content_words
from nanosft.manifest import Manifest
from nanosft.store import Store, open_store

_REJECTS: Final = "rejects/"
_ROWS: Final = "rows/"
_MAX_ERRORS: Final = 5
_ROWS_TRIED: Final = 2000
"""Rows whose compression tells how many have room."""
_MAX_FACT_ROWS: Final = 3000
_MIN_STATED: Final = 0.6
"""Share of a fact's content words that a conversation has when it counts as stating it."""


@dataclass
class SetFigures:
    """What a set's rows say, all of them counted.

    Attributes:
        uri: The set.
        manifest: Its manifest, or None.
        format: The format of its lines.
        inspection: Lengths, turns, languages, openings.
        parts: Rows by part: train, val, accepted, clean, refused.
        cells: Rows by topic and persona.
        cost_usd: By model and day; the day is that of the process that asked.
        answers: Answers by model and day.
        rejects: Rejected answers by reason.
        num_unreadable: Lines that are no conversation.
        errors: The first of what could not be read.
        texts: What the assistants of the first rows say, for the facts that are stated.
    """

    uri: str
    manifest: Manifest | None = None
    format: Format = "auto"
    inspection: Inspection = field(default_factory=Inspection)
    parts: Counter[str] = field(default_factory=Counter)
    cells: Counter[tuple[str, str]] = field(default_factory=Counter)
    cost_usd: defaultdict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))
    answers: Counter[tuple[str, str]] = field(default_factory=Counter)
    rejects: Counter[str] = field(default_factory=Counter)
    num_unreadable: int = 0
    errors: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def fail(self, problem: object) -> None:
        """Keep what went wrong, the first few times."""
        if len(self.errors) < _MAX_ERRORS:
            self.errors.append(str(problem))


class Sample:
    """Those rows with the smallest draws by the seed, as many as have room. Drawn by content, so order changes nothing.

    Args:
        max_bytes: Of all rows together, as JSON.
        seed: Of the draws.
    """

    def __init__(self, max_bytes: int, seed: int) -> None:
        self._max_bytes = max_bytes
        self._seed = seed
        self._heap: list[tuple[int, int, bytes]] = []  # (-draw, number, row)
        self._num_bytes = 0
        self.num_seen = 0

    def add(self, key: str, row: dict[str, Any]) -> None:
        """Offer a row; `key` decides its draw."""
        self.num_seen += 1
        draw = int.from_bytes(hashlib.sha256(f"{self._seed}/{key}".encode()).digest()[:8], "big")
        if self._num_bytes > self._max_bytes and draw >= -self._heap[0][0]:
            return
        line = orjson.dumps(row)
        heapq.heappush(self._heap, (-draw, self.num_seen, line))
        self._num_bytes += len(line)
        while self._num_bytes > self._max_bytes and len(self._heap) > 1:
            self._num_bytes -= len(heapq.heappop(self._heap)[2])

    def rows(self) -> list[dict[str, Any]]:
        """The rows that were kept, in the order in which they came."""
        return [orjson.loads(line) for _, _, line in sorted(self._heap, key=lambda item: item[1])]

    def fit(self, max_bytes: int) -> None:
        """Keep those with the smallest draws, as many as compress to about `max_bytes`."""
        tried = b"\n".join(line for _, _, line in heapq.nlargest(_ROWS_TRIED, self._heap))
        if not tried:
            return
        room = max_bytes * len(tried) / len(zlib.compress(tried))
        while self._num_bytes > room and self._heap:
            self._num_bytes -= len(heapq.heappop(self._heap)[2])


def read_set(
    uri: str,
    manifest: Manifest | None,
    sample: Sample | None,
    format: Format = "auto",  # noqa: A002 - the field's word
    *,
    held_out: bool = False,
) -> SetFigures:
    """Count a set's rows, and offer them to the sample.

    Args:
        uri: A file, prefix or pattern of conversations; a generate run may be unfinished; an audit has parts.
        manifest: What is known to lie there.
        sample: For the browser; None where the rows are not shown.
        format: The format that each line must have.
        held_out: The set is a run's validation data: what it validates on, be it all.
    """
    found = SetFigures(uri, manifest, format)
    for part, item in _list_objects(uri, found):
        try:
            for number, line in iter_lines(item):
                _take_line(found, sample, "val" if held_out else part, item, number, line)
        except NanosftError as exc:
            found.fail(exc)
    return found


def read_rejects(uri: str, found: SetFigures, sample: Sample | None) -> None:
    """Count what a generate run has rejected, and offer it to the sample."""
    try:
        store = open_store(uri)
        for info in store.list(_REJECTS):
            day = day_of(info.key)
            for number, line in enumerate(store.read(info.key).splitlines(), 1):
                _take_reject(found, sample, line, day, f"{info.key}:{number}")
    except NanosftError as exc:
        found.fail(exc)


def day_of(key: str) -> str:
    """The day on which the process began that wrote a part; empty where the key tells none."""
    return day_of_process(key.rpartition("/")[2])


def find_stated(knowledge: Knowledge, texts: Sequence[str]) -> list[tuple[str, str, int]]:
    """(topic, statement, rows) of each fact: how many texts have most of its content words."""
    facts = [(fact, frozenset(content_words(fact.statement))) for fact in knowledge.facts]
    counts = [0] * len(facts)
    for text in texts:
        said = frozenset(content_words(text))
        for place, (_, words) in enumerate(facts):
            if words and len(words & said) >= _MIN_STATED * len(words):
                counts[place] += 1
    return [(fact.topic, fact.statement, count) for (fact, _), count in zip(facts, counts, strict=True)]


def _list_objects(uri: str, found: SetFigures) -> Iterator[tuple[str, DataObject]]:
    """The objects of the set, each with the part its rows belong to."""
    try:
        for item in list_data_objects(uri):
            name = item.key.rpartition("/")[2]
            yield ("val" if name.startswith("val-") else "train" if name.startswith("train-") else "accepted"), item
    except DataError as exc:
        parts = list(_list_parts(open_store(uri)))
        if not parts:
            found.fail(exc)
        yield from parts


def _list_parts(store: Store) -> Iterator[tuple[str, DataObject]]:
    """What a generate run under way has flushed, or an audit has written."""
    for info in store.list(_ROWS):
        yield "accepted", DataObject.bare(store, info)
    for part in ("clean", "refused"):
        for info in store.list(f"{part}/"):
            if info.key.endswith(DATA_SUFFIXES):
                yield part, DataObject.bare(store, info)


def _take_line(found: SetFigures, sample: Sample | None, part: str, item: DataObject, number: int, line: bytes) -> None:
    try:
        conversation = parse_line(line, where=item.place(number), format=found.format)
    except DataError as exc:
        found.num_unreadable += 1
        found.fail(exc)
        return
    meta = conversation.meta
    count_row(found.inspection, conversation)
    found.parts[part] += 1
    if isinstance(meta.get("cell"), str):
        found.cells[split_cell(meta["cell"])] += 1
    if isinstance(meta.get("model"), str):
        key = (meta["model"], day_of(item.key))
        found.answers[key] += 1
        found.cost_usd[key] += _dollars(meta.get("cost_usd"))
    _count_judge(found, meta.get("judge"), day_of(item.key))
    if len(found.texts) < _MAX_FACT_ROWS:
        found.texts.append(" ".join(message.text for message in conversation.messages if message.role == "assistant"))
    if sample is not None:
        sample.add(conversation.id, _to_row(conversation, part))


def _take_reject(found: SetFigures, sample: Sample | None, line: bytes, day: str, where: str) -> None:
    try:
        record = orjson.loads(line)
        reason = str(record["reason"])
    except (orjson.JSONDecodeError, KeyError, TypeError) as exc:
        found.fail(f"{where}: {exc!r}")
        return
    _count_judge(found, record.get("judge"), day)
    if record.get("kind") == "judgement":
        return  # no answer of the writer was rejected by it
    key = (str(record.get("model") or "unknown"), day)
    found.cost_usd[key] += _dollars(record.get("cost_usd"))
    if record.get("kind") == "held":
        return  # the row or the reject that it became is counted
    found.rejects[reason] += 1
    found.answers[key] += 1
    if sample is None:
        return
    raw = record.pop("raw", None)
    meta = {name: value for name, value in record.items() if name not in {"reasons", "detail"}}
    row = {"messages": [], "meta": meta, "part": "rejected", "reasons": record.get("reasons") or [reason]}
    row |= {"detail": str(record.get("detail") or ""), "raw": raw if isinstance(raw, str) else to_text(raw)}
    sample.add(where, row)


def _count_judge(found: SetFigures, judge: object, day: str) -> None:
    """Count an answer of a judge under its own model; a row that got no score has none."""
    if isinstance(judge, dict) and "cost_usd" in judge:
        key = (str(judge.get("model") or "unknown"), day)
        found.answers[key] += 1
        found.cost_usd[key] += _dollars(judge["cost_usd"])


def split_cell(cell: str) -> tuple[str, str]:
    """Topic and persona of `meta.cell`."""
    topic, _, persona = cell.rpartition(" x ")
    return (topic, persona) if topic else (cell, "")


def to_text(value: object) -> str:
    """A JSON value as text; empty for none."""
    return "" if value is None else orjson.dumps(value).decode()


def conversation_of(row: dict[str, Any]) -> Conversation | None:
    """The conversation of a kept row; None of a rejected answer."""
    if not row["messages"]:
        return None
    value = {"messages": row["messages"], "meta": row["meta"]}
    return parse_conversation(value, where="a row of the page", format="openai")


def _to_row(conversation: Conversation, part: str) -> dict[str, Any]:
    row: dict[str, Any] = orjson.loads(to_line(conversation))
    row["part"] = part
    defects = conversation.meta.get("defects")
    if isinstance(defects, list):
        named = [item for item in defects if isinstance(item, dict)]
        row["reasons"] = [f"{item.get('gate')}/{item.get('reason')}" for item in named]
        row["detail"] = "; ".join(str(item.get("detail", "")) for item in named)
    return row


def _dollars(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
