"""The chat API that the simulated runs of generate ask: a writer and a judge, and what was asked of them.

Their answers cost something, and are a function of what is asked. Runs in batches have their own service.
"""

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import orjson

from nanosft.conversation import Conversation, parse_line
from nanosft.errors import ProviderError
from nanosft.generate.judges import open_judge
from nanosft.generate.provider import Answer, Usage
from nanosft.generate.rows import Judge
from nanosft.generate.writers import open_provider
from nanosft.quality.scores import list_criteria
from nanosft.settings.generate import GenerateSettings
from tests.chaos.checks import Flushed
from tests.chaos.faults import CHAT, JUDGE, current

LOWEST: Final = 3
"""The judge's lowest score that keeps a conversation."""
_COST_USD: Final = 0.001
_ANSWER_S: Final = 0.001
"""Between a request and its answer: parts of rows are put meanwhile."""
_ASKED: Final = "asked.txt"
_JUDGED: Final = "judged.txt"


@asynccontextmanager
async def open_simulated(settings: GenerateSettings, *arguments: Any) -> AsyncIterator[Any]:
    """The composer, called by way of a chat API that bills each answer and breaks every fifth row's first one.

    Runs in batches have their own service.
    """
    if settings.mode == "batch":
        async with open_provider(settings, *arguments) as ask:
            yield ask
        return
    offline = settings.model_copy(update={"provider": "offline"})
    async with open_provider(offline, *arguments) as compose:

        async def ask_one(row: Any, attempt: int, rejections: Any, on_failure: Any) -> Answer:
            process = current()
            kind = process.take(f"{CHAT}row {row.row}")
            with _place(_ASKED).open("a") as file:
                file.write(f"{row.row} {row.prompt_variant} {attempt}\n")
            await asyncio.sleep(_ANSWER_S)
            answer = await compose(row, attempt, rejections, on_failure)
            if kind == "kill after":
                process.die()
            text = "No." if row.row % 5 == 0 and attempt == 0 else answer.text
            return replace(answer, text=text, raw=text, model="chaos", usage=Usage(7, 0, 9, _COST_USD))

        yield ask_one


@asynccontextmanager
async def open_simulated_judge(settings: GenerateSettings, *arguments: Any) -> AsyncIterator[Judge | None]:
    """A judge that bills each answer. What it says depends on the conversation alone, and on which try it is."""
    async with open_judge(settings, *arguments) as judge:
        if judge is None or settings.mode == "batch":
            yield judge
            return

        async def ask_one(row: Any, conversation: Conversation, number: int, _on_failure: Any) -> Answer:
            process = current()
            kind = process.take(f"{JUDGE}row {row.row}")
            digest = _digest_of(conversation)
            with _place(_JUDGED).open("a") as file:
                file.write(f"{digest}\n")
            await asyncio.sleep(_ANSWER_S)
            if kind == "kill after":
                process.die()
            if kind is not None:
                raise ProviderError("the judge does not answer")
            draw = int(digest[:2], 16)
            numbers = dict.fromkeys(list_criteria(has_course=True), 5)
            numbers["natural"] = 2 if draw % 4 == 0 else 4
            text = "Well told." if draw % 3 == 0 and number == 0 else orjson.dumps(numbers | {"reason": "so"}).decode()
            return Answer(text, text, "stop", "judge", Usage(5, 0, 3, _COST_USD))

        yield replace(judge, ask=ask_one)


def forget_asked() -> None:
    """What is asked from now on is another start's."""
    for name in (_ASKED, _JUDGED):
        _place(name).unlink(missing_ok=True)


def find_paid_twice(_out: str, flushed: Flushed) -> list[tuple[int, ...]]:
    """The requests that were sent though what came of them was saved before."""
    return sorted(flushed.requests.intersection(tuple(map(int, line.split())) for line in _read(_ASKED)))


def find_judged_twice(out: str, flushed: Flushed) -> list[object]:
    """What `find_paid_twice` finds, and the conversations that were saved with a score, and scored again."""
    scored = {_digest_of(parse_line(line, where="rows")) for line in flushed.lines}
    return [*find_paid_twice(out, flushed), *sorted(scored.intersection(_read(_JUDGED)))]


def _digest_of(conversation: Conversation) -> str:
    return hashlib.sha256("\n".join(f"{item.role} {item.text}" for item in conversation.messages).encode()).hexdigest()


def _place(name: str) -> Path:
    """In the folder of this exploration, where all of its processes have their temporary files (`stages.prepared`)."""
    return Path(tempfile.gettempdir()) / name


def _read(name: str) -> list[str]:
    return _place(name).read_text().splitlines() if _place(name).exists() else []
