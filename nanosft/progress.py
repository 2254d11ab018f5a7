"""Progress for people and for logs: a rich bar on a terminal, one JSON line now and then elsewhere.

Everything goes to standard error; standard output belongs to results (`--json`, answers of the chat).
"""

import json
import logging
import os
import re
import sys
import time
from collections.abc import Iterable
from typing import Any, Final, Self

import orjson
from rich.console import Console, ConsoleOptions, RenderableType
from rich.logging import RichHandler
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Column

from nanosft.foreign import printable

LOG_INTERVAL_S: Final = 15.0
_RESULT_WIDTH: Final = 160
_UNUSUAL: Final = re.compile(r"[^\n\x20-\x7e]")
_log = logging.getLogger("nanosft.progress")


class SafeConsole(Console):
    """A console whose texts cannot steer the terminal: what they hold of control characters is shown."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of a renderable: rich's own controls as they are, all texts printable."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style)


console: Final = SafeConsole(stderr=True)


def make_result_console() -> Console:
    """Standard output for tables: as wide as the terminal, and elsewhere as any table needs to be."""
    stdout = SafeConsole()
    return stdout if stdout.is_terminal or "COLUMNS" in os.environ else SafeConsole(width=_RESULT_WIDTH)


def write_result(text: str) -> None:
    """Write text to standard output as it is, but for control characters, which are shown."""
    sys.stdout.write(printable(text))


def write_json(value: object, *, indent: bool = False) -> None:
    r"""Write a value to standard output as JSON, with what could steer a terminal as `\u` and digits.

    Args:
        value: Anything that orjson takes; keys are written as text.
        indent: Over several lines, for people.
    """
    text = orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS | (orjson.OPT_INDENT_2 if indent else 0)).decode()
    is_unicode = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
    sys.stdout.write(_UNUSUAL.sub(_escape if is_unicode else _escape_always, text) + "\n")


def _escape(found: re.Match[str]) -> str:
    return found[0] if found[0].isprintable() else _escape_always(found)


def _escape_always(found: re.Match[str]) -> str:
    return "\\u007f" if found[0] == "\x7f" else json.dumps(found[0])[1:-1]


class Bar:
    """One piece of long work. `advance` is cheap; it may be called for every row.

    Args:
        description: What is being done, such as "generate".
        total: How many units there are, or None when that is not known.
        quiet: Show nothing, for all ranks but the first.
    """

    def __init__(self, description: str, total: int | None, *, quiet: bool = False) -> None:
        self._description = description
        self._total = total
        self._quiet = quiet
        self._done = 0
        self._fields: dict[str, Any] = {}
        self._started_s = self._logged_s = time.monotonic()
        self._logged = -1
        self._rich = _make_rich(description, total) if console.is_terminal and not quiet else None

    def advance(self, num: int = 1, **fields: Any) -> None:
        """Count `num` more units; `fields` (rate, cost, loss, …) replace those shown."""
        self.update(self._done + num, **fields)

    def update(self, done: int, *, total: int | None = None, **fields: Any) -> None:
        """Set the count of finished units, and the total when it has become known."""
        self._done = done
        self._total = total if total is not None else self._total
        self._fields.update(fields)
        if self._rich is not None:
            progress, task = self._rich
            progress.update(task, completed=done, total=self._total, fields=_shown(self._fields))
        elif time.monotonic() - self._logged_s >= LOG_INTERVAL_S:
            self.log()

    def log(self) -> None:
        """One log line with the count, the rate and the fields, where there is no bar."""
        self._logged_s, self._logged = time.monotonic(), self._done
        if self._rich is None and not self._quiet:
            elapsed_s = max(self._logged_s - self._started_s, 1e-9)
            rate = round(self._done / elapsed_s, 2)
            record = {"done": self._done, "total": self._total, "per_s": rate, **self._fields}
            _log.info("%s", self._description, extra={"fields": record})

    def __enter__(self) -> Self:
        if self._rich is not None:
            self._rich[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._rich is not None:
            self._rich[0].stop()
        elif self._logged != self._done:
            self.log()


def _make_rich(description: str, total: int | None) -> tuple[Progress, Any]:
    # On a narrow terminal the fields alone are wrapped: the bar, the count and the times stay whole.
    progress = Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=16, table_column=Column(width=16)),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[fields]}", table_column=Column()),
        TimeElapsedColumn(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
        console=console,
    )
    return progress, progress.add_task(escape(description), total=total, fields="")


def _shown(fields: dict[str, Any]) -> str:
    return "  ".join(f"[dim]{name}[/] {escape(_number(value))}" for name, value in fields.items())


def _number(value: object) -> str:
    """The value as a person reads it: four digits, and all of those before the point."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"  # noqa: PLR2004 - below, four digits say it


class JsonFormatter(logging.Formatter):
    """A log record as one line of JSON, with the `fields` that came with it."""

    def format(self, record: logging.LogRecord) -> str:
        """One line: time, level, logger, message, then the fields."""
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure_logging(*, debug: bool = False) -> None:
    """Send nanosft's log to standard error: readable on a terminal, JSON lines elsewhere."""
    handler: logging.Handler
    if console.is_terminal:
        handler = RichHandler(console=console, show_time=False, show_path=False, show_level=False)
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("nanosft")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.DEBUG if debug else logging.INFO)
    logger.propagate = False
