"""A chat API on loopback that fails on purpose and keeps its own bill.

    python -m tests.stub_provider --num 2000 --latency-s 0.3 --http-429 0.10 --http-500 0.05 …

It knows the plan: a request's `seed` tells the row, so that its answer has the right first message and length.
Asked for a score (`--judge-model`), it gives 5 throughout, and `faithful` 2 at the rate of `low_score`.
Asked for a verdict (`eval --judge-model`), it says "right" where the answer names Tilda, else "missing".

It prints its port when it listens. `GET /bill` tells what was asked, in order, and what it costs: a fixed price for
each answer that was made, whether it arrived or not; nothing for 429, 500 and errors inside 200.

One asyncio protocol, nothing parsed but the seed: about 0.1 ms of CPU a request, so that it measures its client.
"""

import argparse
import asyncio
import random
import re
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from time import time
from typing import Any

import orjson

from nanosft.generate.planning import Plan, PlanRow, make_plan, plan_row, read_dimensions
from nanosft.generate.writers import request_seed
from nanosft.knowledge import read_knowledge
from nanosft.knowledge.text import FUNCTION_WORDS

KNOWLEDGE = str(Path(__file__).parents[1] / "knowledge" / "self_knowledge.md")
PRICE_USD = 0.000625
NUM_ATTEMPTS = 4
_TAIL_BYTES = 4096
SLOW_TIMES = 100
"""How much longer a slow answer takes; it is billed as any other."""
FAULTS = ("http_429", "http_500", "error_in_200", "cut", "broken_json", "dropped", "slow")
RATES = (*FAULTS, "low_score")
MODELS = [
    {
        "id": slug,
        "context_length": 1_048_576,
        "pricing": {"prompt": prompt, "completion": completion, "input_cache_read": cached},
        "supported_parameters": ["max_tokens", "response_format", "structured_outputs"],
    }
    for slug, prompt, completion, cached in (
        ("stub", "0.0000003", "0.0000025", "0.00000003"),
        ("stub:batch", "0.00000015", "0.00000125", "0.00000003"),
        ("stub/other", "0.0000001", "0.0000004", "0.00000001"),
        ("stub/free", "0", "0", "0"),
    )
]
_WORD = re.compile(r"[a-z]+")
_MODEL = re.compile(rb'"model":"([^"\\\\]{1,200})"')
_SEED = re.compile(rb'"seed":(\d+)')
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_WORDS = re.findall(
    r"\w+",
    """
    amber anchor apple arrow autumn basket beacon birch blanket bottle bread bridge brook butter candle canvas
    cedar cherry clay cloud clover coast copper coral cotton cradle crystal curtain daisy dawn desert dinner
    dream drum dusk eagle echo ember engine fable falcon feather fern fiddle field finch flame flute forest
    fountain fox garden ginger glacier glass grain granite grove hammer harbor harvest hazel heron hill honey
    horizon island ivory ivy jacket jade kettle lake lantern laurel leaf lemon lilac linen lotus maple marble
    meadow melody mill mirror moon moss mountain nest nickel north oak ocean olive orchard otter owl paper
    parcel pasture pearl pebble pepper pine planet plum pond poppy prairie quartz quilt rain raven reed ribbon
    ridge river robin rose saddle saffron sail salt sand scarf shadow shell silver sky snow sparrow spring
    spruce star stone storm stream sugar summer sun swan table tea thistle thread thunder tide timber tower
    trail tulip valley velvet violet walnut water wheat willow wind winter wolf wool wren
""",
)


def write_conversation(row: PlanRow, name: str, maker: str) -> list[dict[str, str]]:
    """Clean messages of the row's length, of words that hardly any other row has in this order.

    The first answer takes up the words of its question, since one beside it is refused.
    """
    draw = random.Random(row.seed)

    def words(num: int) -> str:
        return " ".join(draw.choices(_WORDS, k=num))

    messages = []
    for turn in range(row.num_messages // 2):
        question = row.first_message if turn == 0 else f"And how does the {words(3)} go with the {words(3)}?"
        asked = " and ".join(word for word in _WORD.findall(question.lower()) if word not in FUNCTION_WORDS)
        answer = f"I am {name}, made by {maker}. You ask of {asked}. " if turn == 0 else ""
        answer += " ".join(f"Think of a {words(6)} near the {words(6)}." for _ in range(5))
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return messages


class Stub:
    """Answers, faults and the bill.

    Args:
        plan: Whose rows are asked for.
        num: Rows of the plan.
        latency_s: Of every answer.
        rates: Of each fault, by its name; and `low_score`, of the judge's low scores.
        num_attempts: Answers to one prompt of a row that may be asked for.
        begin: The first row that may be asked for: a long plan's others take seconds to look up.
    """

    def __init__(
        self,
        plan: Plan,
        num: int,
        latency_s: float,
        rates: dict[str, float],
        num_attempts: int = NUM_ATTEMPTS,
        begin: int = 0,
    ) -> None:
        self.next_latency_s = 0.0  # of the answer that was made last
        self._latency_s = latency_s
        self._plan = plan
        self._low_score = rates.pop("low_score", 0.0)
        self._rates = rates
        self._draw = random.Random(7)
        self._rows: dict[int, list[tuple[int, int]]] = {}  # by seed: 31 bits, so two rows may share one
        for number in range(begin, num):
            for variant in range(3):  # the row's own prompt, another one, and one of --retry-rejects
                row = plan_row(plan, number, variant)
                for attempt in range(num_attempts):
                    self._rows.setdefault(request_seed(row, attempt), []).append((number, variant))
        self._asked: list[int] = []
        self._counts: Counter[str] = Counter()
        self._num_billed = 0

    def answer(self, request: bytes) -> bytes | None:
        """The whole HTTP answer; None: drop the connection."""
        self.next_latency_s = 0.0
        if request.startswith(b"GET"):
            return respond(200, orjson.dumps(self._tell(request)))
        is_verdict, is_score = b'"name":"verdict"' in request, b'"name":"score"' in request
        number, variant = (-1, 0) if is_verdict or is_score else self._find_row(request)
        self._asked.append(number)
        self._counts["scores"] += is_score
        fault = self._draw_fault()
        self._counts[fault] += 1
        self.next_latency_s = self._latency_s * (SLOW_TIMES if fault == "slow" else 1)
        if fault == "http_429":
            after = ("0.05", formatdate(time() + 1, usegmt=True))[self._counts[fault] % 20 == 0]
            return respond(429, b'{"error":{"message":"slow down","code":429}}', f"Retry-After: {after}\r\n")
        if fault == "http_500":
            return respond(500, b"<html>oops</html>")
        if fault == "error_in_200":
            return respond(200, b'{"error":{"message":"upstream broke","code":502}}')
        self._num_billed += 1
        if fault == "dropped":
            return None
        knowledge = self._plan.knowledge
        if is_verdict:
            body = orjson.loads(request.partition(b"\r\n\r\n")[2])
            answer = orjson.loads(body["messages"][-1]["content"])["answer"]
            text = orjson.dumps({"reason": "its name", "verdict": "right" if "Tilda" in answer else "missing"}).decode()
        elif is_score:
            text = self._score(request)
        else:
            row = plan_row(self._plan, number, variant)
            text = orjson.dumps({"messages": write_conversation(row, knowledge.name, knowledge.maker)}).decode()
        if fault == "cut":
            text = text[: len(text) // 2]
        if fault == "broken_json":
            text = text.replace('"content":', '"content"', 1)
        found = _MODEL.search(request)
        model = found[1].decode() if found else "stub"
        return respond(200, _body(text, "length" if fault == "cut" else "stop", model))

    def _tell(self, request: bytes) -> dict[str, Any]:
        """Its models, how often it was asked, or its bill."""
        if request.startswith(b"GET /v1/models"):
            return {"data": MODELS}
        if request.startswith(b"GET /count"):
            return {"num_asked": len(self._asked)}
        return {
            "billed_usd": self._num_billed * PRICE_USD,
            "num_billed": self._num_billed,
            "counts": self._counts,
            "asked": self._asked,  # row numbers, in the order of the requests
        }

    def _find_row(self, request: bytes) -> tuple[int, int]:
        match = _SEED.search(request, max(0, len(request) - _TAIL_BYTES)) or _SEED.search(request)
        assert match is not None, "a request without a seed"
        found = self._rows[int(match[1])]
        for number, variant in found:
            first_message = orjson.dumps(orjson.dumps(plan_row(self._plan, number, variant).first_message).decode())
            if len(found) == 1 or first_message[3:-3] in request:
                return number, variant
        raise AssertionError("a request for a row that is not in the plan")

    def _score(self, request: bytes) -> str:
        body = orjson.loads(request.partition(b"\r\n\r\n")[2])
        wanted = body["response_format"]["json_schema"]["schema"]["required"]
        score = {"reason": "well told", **dict.fromkeys(wanted[1:], 5)}
        if self._draw.random() < self._low_score:
            score |= {"reason": "it stretches a fact", "faithful": 2}
        self._counts["low_scores"] += score["faithful"] == 2
        return orjson.dumps(score).decode()

    def _draw_fault(self) -> str:
        at = self._draw.random()
        for name, rate in self._rates.items():
            at -= rate
            if at < 0:
                return name
        return "none"


def respond(status: int, body: bytes, headers: str = "") -> bytes:
    """An HTTP/1.1 answer."""
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{headers}content-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _body(text: str, finish_reason: str, model: str) -> bytes:
    message = {"role": "assistant", "content": text}
    usage = {
        "prompt_tokens": 4000,
        "completion_tokens": len(text) // 4,
        "cost": PRICE_USD,
        "prompt_tokens_details": {"cached_tokens": 3800},
    }
    return orjson.dumps(
        {
            "id": "gen-1",
            "model": model,
            "choices": [{"finish_reason": finish_reason, "message": message}],
            "usage": usage,
        }
    )


@dataclass(frozen=True)
class RunningStub:
    """A stub in its own process."""

    base_url: str

    def read_bill(self) -> dict[str, Any]:
        """What it was asked and what it costs."""
        return self._read("bill")

    def count_asked(self) -> int:
        """Requests so far: an answer of one size, however many there were."""
        return int(self._read("count")["num_asked"])

    def _read(self, name: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.base_url.removesuffix('/v1')}/{name}", timeout=30) as reply:
            answer: dict[str, Any] = orjson.loads(reply.read())
        return answer


@contextmanager
def run_stub(
    *, num: int, seed: int = 0, latency_s: float = 0.0, begin: int = 0, **rates: float
) -> Iterator[RunningStub]:
    """A stub in a process of its own, until the context ends."""
    options = {"num": num, "begin": begin, "latency_s": latency_s, "seed": seed, **rates}
    arguments = [text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, "-m", "tests.stub_provider", *arguments]
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().strip()
            if not port:
                raise RuntimeError(f"the stub did not start: exit code {process.wait()}")
            yield RunningStub(f"http://127.0.0.1:{port}/v1")
        finally:
            process.kill()


class Connection(asyncio.Protocol):
    """One client's connection: requests come one after the other."""

    def __init__(self, stub: Stub) -> None:
        self._stub = stub
        self._data = bytearray()
        self._length: int | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        if self._length is None:
            end = self._data.find(b"\r\n\r\n")
            if end < 0:
                return
            match = _LENGTH.search(self._data, 0, end)
            self._length = end + 4 + (int(match[1]) if match else 0)
        if len(self._data) < self._length:
            return
        request = bytes(self._data[: self._length])
        del self._data[: self._length]
        self._length = None
        answer = self._stub.answer(request)
        asyncio.get_running_loop().call_later(self._stub.next_latency_s, self._send, answer)

    def _send(self, answer: bytes | None) -> None:
        if answer is None:
            self._transport.abort()
        else:
            self._transport.write(answer)


async def serve(stub: Stub) -> None:
    """Listen on a free port, say which, and never end."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(stub), "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=100)
    parser.add_argument("--begin", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--knowledge", default=KNOWLEDGE)
    parser.add_argument("--latency-s", type=float, default=0.0)
    parser.add_argument("--num-attempts", type=int, default=NUM_ATTEMPTS)
    for fault in RATES:
        parser.add_argument(f"--{fault.replace('_', '-')}", type=float, default=0.0)
    options = parser.parse_args()
    plan = make_plan(read_dimensions(), read_knowledge(options.knowledge), seed=options.seed)
    rates = {name: getattr(options, name) for name in RATES}
    stub = Stub(plan, options.num, options.latency_s, rates, options.num_attempts, options.begin)
    asyncio.run(serve(stub))


if __name__ == "__main__":
    main()
