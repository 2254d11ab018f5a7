"""Where an audit's rows go, by what became of them."""

from contextlib import ExitStack
from types import TracebackType
from typing import Any, Final, Self

from nanosft.data import ShardWriter
from nanosft.manifest import ManifestObject
from nanosft.quality.verdict import Defect, Verdict
from nanosft.store import open_store

_ROWS_PER_OBJECT: Final = 100_000


class Sinks:
    """Writers of `clean/`, `refused/` and `unreadable/`, a new object every 100,000 rows; without a URI, nothing."""

    def __init__(self, out: str | None) -> None:
        self._store = open_store(out) if out else None
        self._stack = ExitStack()
        self._writers: dict[str, list[ShardWriter]] = {"clean": [], "refused": [], "unreadable": []}

    def __enter__(self) -> Self:
        self._stack.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._stack.__exit__(kind, value, at)

    def put(self, verdict: Verdict) -> None:
        """Write a row where its verdict says; a refused one with its defects."""
        if self._store is None:
            return
        part, row = "clean", verdict.conversation
        if not verdict.accepted:
            part, row = "refused", row.with_meta(defects=[_as_meta(defect) for defect in verdict.defects])
        self._writer(part).write(row)

    def write(self, part: str, line: bytes) -> None:
        """Write a line as it is."""
        if self._store is not None:
            self._writer(part).write_line(line)

    def objects(self, part: str) -> list[ManifestObject]:
        """What was put of a part; after the context."""
        return [writer.object for writer in self._writers[part]]

    def _writer(self, part: str) -> ShardWriter:
        writers = self._writers[part]
        if not writers or writers[-1].num_rows >= _ROWS_PER_OBJECT:
            assert self._store is not None
            writer = ShardWriter(self._store, f"{part}/rows-{len(writers):05}.jsonl")
            writers.append(self._stack.enter_context(writer))
        return writers[-1]


def _as_meta(defect: Defect) -> dict[str, Any]:
    return {"gate": defect.gate, "reason": defect.reason, "detail": defect.detail, "message": defect.index}
