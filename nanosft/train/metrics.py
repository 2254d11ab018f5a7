"""What a run reports: `metrics.jsonl` in the store, and rates; `sinks` take the same numbers elsewhere."""

import logging
import re
import secrets
import time
from collections.abc import Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import orjson
import torch

from nanosft.errors import DataError
from nanosft.nanochat.generations import estimate_flops_per_token
from nanosft.nanochat.model import GPT
from nanosft.store import MissingObjectError
from nanosft.store.base import Store, Written
from nanosft.train.data import TokenSet
from nanosft.train.sinks import Sink

METRICS_KEY: Final = "metrics.jsonl"
_FINAL_KEY: Final = re.compile(r"metrics-[0-9a-f]{8}\.jsonl")
FLUSH_INTERVAL_S: Final = 30.0
_PEAK_FLOPS: Final = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "B200": 2250e12, "4090": 165e12}
"""Dense bfloat16 peaks from the vendors' data sheets, in FLOP/s, by a part of the device's name."""
_MEASURE_S: Final = 0.15
_log = logging.getLogger(__name__)


class MetricsLog:
    """The lines of `metrics.jsonl`. A store cannot append, so the object is rewritten, at most every 30 seconds.

    Args:
        store: The run's store.
        executor: Writes in the background, in order.
        step: How many steps are finished; lines of later ones are cut, as a resumed run makes them anew.
        sinks: What gets every number as well.
    """

    def __init__(self, store: Store, executor: Executor, *, step: int, sinks: tuple[Sink, ...] = ()) -> None:
        self._store = store
        self._executor = executor
        self._sinks = sinks
        self._lines = read_metrics(store, step) if step else []
        self._flushed_s = time.monotonic()
        self._pending: Future[Written] | None = None

    def write(self, record: Mapping[str, Any]) -> None:
        """Add a line; `step` must be in it."""
        self._lines.append(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
        for sink in self._sinks:
            sink.write(record["step"], _flatten(record))
        if time.monotonic() - self._flushed_s >= FLUSH_INTERVAL_S:
            self.flush()

    def flush(self) -> None:
        """Start writing all lines so far, in the background; a failure is told, and the next time writes them again."""
        self._flushed_s = time.monotonic()
        if self._pending is not None and self._pending.done() and (error := self._pending.exception()) is not None:
            _log.warning("the metrics were not written (%s); training goes on, the next time is tried", error)
        self._pending = self._executor.submit(self._store.write, METRICS_KEY, b"".join(self._lines))

    def close(self) -> Written:
        """Write all lines, wait until they are up, and tell what was put.

        Raises:
            NanosftError: They could not be written.
        """
        self.flush()
        assert self._pending is not None
        written = self._pending.result()
        with ThreadPoolExecutor(max(1, len(self._sinks))) as closers:  # together: each may take its whole time-out
            list(closers.map(lambda sink: sink.close(), self._sinks))
        return written

    def put_final(self) -> Written:
        """Put all lines once more, under a key of this attempt's own, which a process that was held cannot replace."""
        return self._store.write(f"metrics-{secrets.token_hex(4)}.jsonl", b"".join(self._lines))


def is_final_metrics(key: str) -> bool:
    """Whether an object is what `MetricsLog.put_final` puts, of any attempt."""
    return _FINAL_KEY.fullmatch(key) is not None


@dataclass(frozen=True, slots=True)
class Throughput:
    """Turns the time of a step into rates.

    Attributes:
        flops_per_token: Floating-point operations of forward and backward pass for one token.
        peak_flops: What all ranks together could do, in FLOP/s.
    """

    flops_per_token: float
    peak_flops: float

    def rates(self, *, num_tokens: int, num_supervised: int, step_s: float) -> dict[str, float]:
        """Tokens and supervised tokens a second, and the fraction of the peak that the model's own operations are."""
        tokens_per_s = num_tokens / step_s
        return {
            "tokens_per_s": tokens_per_s,
            "supervised_per_s": num_supervised / step_s,
            "mfu": tokens_per_s * self.flops_per_token / self.peak_flops,
        }


def count_flops_per_token(model: GPT, tokens: TokenSet, *, span: float) -> float:
    """Floating-point operations of forward and backward pass for one token of these conversations, on average.

    Args:
        model: The model.
        tokens: Conversations; the head is computed for their supervised tokens alone.
        span: Tokens that attend to one another, on average.
    """
    share = tokens.supervised.sum() / tokens.lengths.sum()
    return estimate_flops_per_token(model.config, model.generation, round(span), num_head_tokens=float(share))


def find_peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """What this rank's device can do in FLOP/s: from its data sheet, else measured by a matrix product."""
    if device.type == "cuda" and dtype == torch.bfloat16:
        name = torch.cuda.get_device_name(device)
        for part, peak in _PEAK_FLOPS.items():
            if part in name:
                return peak
    return measure_matmul_flops(device, dtype)


def measure_matmul_flops(device: torch.device, dtype: torch.dtype, size: int = 1024) -> float:
    """FLOP/s of a product of two (size, size) matrices, the best of those that fit into 0.15 s."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(size, size, generator=generator).to(device, dtype)
    best_s, end_s = float("inf"), time.perf_counter() + _MEASURE_S
    a @ a
    while best_s == float("inf") or time.perf_counter() < end_s:  # once at least, however busy the machine is
        start_s = time.perf_counter()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best_s = min(best_s, time.perf_counter() - start_s)
    return 2 * size**3 / best_s


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory this rank has held: of the GPU, or of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource  # noqa: PLC0415 - not on every system

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def read_metrics(store: Store, last_step: int) -> list[bytes]:
    """The lines of a run's metrics up to a step; none where none are there.

    Raises:
        DataError: One is no line of metrics.
    """
    try:
        data = store.read(METRICS_KEY)
    except MissingObjectError:
        return []
    lines = []
    for number, line in enumerate(data.splitlines(keepends=True), 1):
        try:
            if orjson.loads(line)["step"] <= last_step:
                lines.append(line)
        except (orjson.JSONDecodeError, KeyError, TypeError) as exc:
            where = f"{store.uri_of(METRICS_KEY)}:line {number}"
            raise DataError(f"{where}: not a line of metrics: delete the object; the run needs it not") from exc
    return lines


def _flatten(record: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of a record; those of its tables as `table/name`."""
    numbers: dict[str, float] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            numbers |= _flatten(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and name != "step":
            numbers[prefix + name] = value
    return numbers
