"""A batch service in memory that fails on purpose and keeps its own bill: OpenRouter's form and OpenAI's.

`BatchStub.send` is what the clients of `nanosft.generate` call in place of HTTP; `serve_batches` puts it on loopback,
for processes that are to be killed. A batch is billed when it is taken, and ends after some looks at it. Single chat
requests are answered too, by `tests.stub_provider`.

Which answers are bad, and which calls fail, is drawn from a seed and the number of the call: a run can be repeated.
"""

import asyncio
import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson

from nanosft.generate.planning import Plan, make_plan, plan_row, read_dimensions
from nanosft.generate.provider import HttpReply, LostError
from nanosft.knowledge import read_knowledge
from tests.servers import LoopbackServer
from tests.stub_provider import KNOWLEDGE, PRICE_USD, Stub, write_conversation

PICO = 10**12
BATCH_PRICE_PICO = round(PRICE_USD * PICO / 2)
PAGE = 100
_NOT_FOUND = HttpReply(404, {}, b'{"error":{"message":"no such batch"}}')
_FILE = re.compile(rb'name="file".*?\r\n\r\n(.*)\r\n--', re.DOTALL)


@dataclass
class Faults:
    """What goes wrong, each at a rate.

    Attributes:
        lost: Of calls to the batch service, that are carried out and whose answer is lost.
        http_429: Of calls, that are refused for now.
        http_500: Of calls, that fail for now.
        failed: Of batches, that end as failed, unbilled.
        expired: Of batches, that end as expired, unbilled.
        gone: Of batches, that are billed and not known any more once they have ended.
        lost_files: Of batches, that are billed and whose results are not there.
        missing: Of results, that are left out though they are billed.
        doubled: Of results, that come twice.
        partial: Of requests, that fail, unbilled.
        broken: Of answers, whose JSON is broken.
        low_score: Of a judge's scores, that are low.
    """

    lost: float = 0.0
    http_429: float = 0.0
    http_500: float = 0.0
    failed: float = 0.0
    expired: float = 0.0
    gone: float = 0.0
    lost_files: float = 0.0
    missing: float = 0.0
    doubled: float = 0.0
    partial: float = 0.0
    broken: float = 0.0
    low_score: float = 0.0


@dataclass
class Batch:
    """One batch that was taken."""

    id: str
    key: str
    requests: list[tuple[str, dict[str, Any]]]
    outcome: str
    created_s: float
    cost_pico: int = 0
    num_polls: int = 0
    results: list[dict[str, Any]] = field(default_factory=list)


class BatchStub:
    """The service.

    Args:
        num: Rows of the plan.
        form: `openrouter` or `openai`.
        faults: What goes wrong.
        num_polls: Looks at a batch until it has ended.
        num_denied: First looks at a batch that it is not found by.
        states_costs: Each answer of a batch states its own cost too.
        seed: Of all draws.
    """

    def __init__(
        self,
        num: int,
        *,
        form: str = "openrouter",
        faults: Faults | None = None,
        num_polls: int = 2,
        num_denied: int = 0,
        states_costs: bool = False,
        seed: int = 7,
    ) -> None:
        self.plan = _make_plan()
        self.faults = faults or Faults()
        self.batches: dict[str, Batch] = {}
        self.calls: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()  # names of requests (`RowRequest.name`) that were billed in a batch
        self.withheld: Counter[str] = Counter()  # as many of them, whose results are missing
        self.num_alone = 0
        self.num_low_scores = 0
        self.on_call: Callable[[str], None] = lambda _call: None  # told of each, once it is carried out
        self._num = num
        self._files: dict[str, bytes] = {}
        self.form = form
        self._num_polls = num_polls
        self._num_denied = num_denied
        self._states_costs = states_costs
        self._draw = random.Random(seed)

    @cached_property
    def _chat(self) -> Stub:
        return Stub(self.plan, self._num, 0.0, {})

    @property
    def billed_pico(self) -> int:
        """All that was billed, in picodollars, for batches that are gone too."""
        return sum(batch.cost_pico for batch in self.batches.values()) + self.num_alone * round(PRICE_USD * PICO)

    @property
    def gone_pico(self) -> int:
        """What was billed for batches that are gone: nobody is told of it."""
        return sum(batch.cost_pico for batch in self.batches.values() if batch.outcome == "gone")

    async def send(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> HttpReply:
        """One call, as `Send`."""
        await asyncio.sleep(0)
        parts = urlsplit(path)
        self.calls[f"{method} {parts.path.split('/')[1]}"] += 1
        at = self._draw.random()
        if at < self.faults.http_429:
            return HttpReply(429, {"retry-after": "0"}, b'{"error":{"message":"slow down"}}')
        if at < self.faults.http_429 + self.faults.http_500:
            return HttpReply(503, {}, b"<html>oops</html>")
        reply = self._carry_out(method, parts.path, parse_qs(parts.query), body, headers)
        self.on_call(f"{method} {parts.path.split('/')[1]}")
        if self._draw.random() < self.faults.lost and parts.path != "/chat/completions":
            raise LostError("the connection broke", timed_out=False)
        return reply

    def _carry_out(
        self, method: str, path: str, query: Mapping[str, list[str]], body: bytes, headers: Mapping[str, str]
    ) -> HttpReply:
        if path == "/chat/completions":
            self.num_alone += 1
            raw = self._chat.answer(b"POST / HTTP/1.1\r\n\r\n" + body)
            assert raw is not None, "the chat stub drops nothing here"
            return HttpReply(200, {}, raw.partition(b"\r\n\r\n")[2])
        if path == "/models":
            return HttpReply(404, {}, b'{"error":{"message":"no list of models"}}')
        if path.startswith("/files"):
            return self._keep_file(path, body)
        if method == "POST":
            return self._take(orjson.loads(body), headers["idempotency-key"])
        if path == "/batches":
            return self._list(query.get("after", [""])[0])
        return self._show(self.batches[path.split("/")[2]], query, of_results=path.endswith("/results"))

    def _show(self, batch: Batch, query: Mapping[str, list[str]], *, of_results: bool) -> HttpReply:
        if self._is_unknown(batch, of_results=of_results):
            batch.num_polls += 1
            return _NOT_FOUND
        if of_results:
            at = int(query.get("cursor", ["0"])[0])
            following = str(at + PAGE) if at + PAGE < len(batch.results) else None
            return _reply({"results": batch.results[at : at + PAGE], "next_cursor": following})
        batch.num_polls += 1
        return _reply(self._describe(batch))

    def _keep_file(self, path: str, body: bytes) -> HttpReply:
        if path != "/files":
            batch = self.batches.get(path.split("/")[2].rpartition("-")[0])
            if batch is not None and self._is_unknown(batch, of_results=True):
                return _NOT_FOUND
            return HttpReply(200, {}, self._files[path.split("/")[2]])
        match = _FILE.search(body)
        assert match is not None, "an upload has a file"
        file_id = f"file-{len(self._files)}"
        self._files[file_id] = match[1]
        return _reply({"id": file_id})

    def _list(self, after: str) -> HttpReply:
        newest = [batch for batch in reversed(self.batches.values()) if not self._is_unknown(batch)]
        at = next((place + 1 for place, batch in enumerate(newest) if batch.id == after), 0)
        page = [self._describe(batch) for batch in newest[at : at + PAGE]]
        return _reply({"data": page, "has_more": at + PAGE < len(newest)})

    def _take(self, value: dict[str, Any], key: str) -> HttpReply:
        if self.form == "openrouter":
            same = [batch for batch in self.batches.values() if batch.key == key]
            requests = [(item["custom_id"], item["body"]) for item in value["requests"]]
            if same:
                if same[0].requests != requests:
                    return HttpReply(409, {}, b'{"error":{"message":"another body for one key"}}')
                return _reply(self._describe(same[0]), 202)
        else:
            key = value["metadata"]["nanosft_key"]
            lines = map(orjson.loads, self._files[value["input_file_id"]].splitlines())
            requests = [(item["custom_id"], item["body"]) for item in lines]
        assert len({custom_id for custom_id, _ in requests}) == len(requests) <= 5000
        assert all(len(custom_id) <= 64 and "stream" not in fields for custom_id, fields in requests)
        outcome = self._draw_outcome()
        batch = Batch(f"batch-{len(self.batches)}", key, requests, outcome, created_s=2e9 + len(self.batches))
        self.batches[batch.id] = batch
        if outcome not in {"failed", "expired"}:
            self._answer(batch)
        return _reply(self._describe(batch), 202)

    def _draw_outcome(self) -> str:
        at = self._draw.random()
        for outcome in ("failed", "expired", "gone", "lost_files"):
            rate: float = getattr(self.faults, outcome)
            if at < rate:
                return outcome
            at -= rate
        return "completed"

    def _is_unknown(self, batch: Batch, *, of_results: bool = False) -> bool:
        if batch.num_polls < self._num_denied:
            return True
        is_gone = batch.outcome == "gone" and batch.num_polls >= self._num_polls
        return is_gone or (of_results and batch.outcome == "lost_files")

    def _answer(self, batch: Batch) -> None:
        for number, (custom_id, fields) in enumerate(batch.requests):
            name = custom_id.rpartition("-")[0]
            if self._draw.random() < self.faults.partial:
                batch.results.append({"custom_id": custom_id, "response": None, "error": {"message": "no luck"}})
                continue
            cost_pico = BATCH_PRICE_PICO + number * 7 + len(custom_id)
            batch.cost_pico += cost_pico
            self.answered[name] += batch.outcome == "completed"
            result = {"custom_id": custom_id, "response": self._respond(name, fields, cost_pico), "error": None}
            if self._draw.random() < self.faults.missing:
                self.withheld[name] += 1
                continue
            batch.results += [result] * (1 + (self._draw.random() < self.faults.doubled))
        self._draw.shuffle(batch.results)

    def _respond(self, name: str, fields: Mapping[str, Any], cost_pico: int) -> dict[str, Any]:
        row, variant, _, *tries = name.split("-")
        planned = plan_row(self.plan, int(row), int(variant))
        assert orjson.dumps(planned.first_message)[1:-1].decode() in str(fields["messages"][-1]["content"])
        knowledge = self.plan.knowledge
        value: dict[str, Any] = {"messages": write_conversation(planned, knowledge.name, knowledge.maker)}
        if tries:
            value = self._score(fields)
        text = orjson.dumps(value).decode()
        if self._draw.random() < self.faults.broken:
            text = text.replace('":', '"', 1)
        usage: dict[str, Any] = {"prompt_tokens": 4000, "completion_tokens": len(text) // 4}
        if self._states_costs:
            usage["cost"] = cost_pico / PICO
        message = {"role": "assistant", "content": text}
        body = {"model": "stub", "choices": [{"finish_reason": "stop", "message": message}], "usage": usage}
        return {"status_code": 200, "request_id": name, "body": body}

    def _score(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        names = fields["response_format"]["json_schema"]["schema"]["required"]
        score = {"reason": "well told", **dict.fromkeys(names[1:], 5)}
        if self._draw.random() < self.faults.low_score:
            score |= {"reason": "it stretches a fact", "faithful": 2}
            self.num_low_scores += 1
        return score

    def _describe(self, batch: Batch) -> dict[str, Any]:
        is_ended = batch.num_polls >= self._num_polls
        outcome = "completed" if batch.outcome == "lost_files" else batch.outcome
        state = outcome if is_ended else ("validating", "in_progress")[batch.num_polls > 0]
        num = len(batch.requests)
        num_failed = sum(result["error"] is not None for result in batch.results) if is_ended else 0
        value: dict[str, Any] = {
            "id": batch.id,
            "status": state,
            "created_at": batch.created_s,
            "request_counts": {"total": num, "completed": num - num_failed if is_ended else 0, "failed": num_failed},
        }
        if batch.outcome == "failed" and is_ended:
            value["error"] = {"code": "invalid", "message": "the model went away"}
        if self.form == "openrouter":
            is_counted = batch.num_polls > self._num_polls  # the cost is told one look later
            value["usage"] = {"cost": batch.cost_pico / PICO} if is_counted else None
            return value
        value["metadata"] = {"nanosft_key": batch.key}
        if is_ended and batch.results:
            for name, is_error in (("output_file_id", False), ("error_file_id", True)):
                lines = [orjson.dumps(item) for item in batch.results if (item["error"] is not None) == is_error]
                self._files[f"{batch.id}-{name}"] = b"\n".join(lines)
                value[name] = f"{batch.id}-{name}"
        return value


@contextmanager
def serve_batches(stub: BatchStub) -> Iterator[str]:
    """The stub on loopback, in a thread, while the context is open; yields its base URL."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            with lock:
                try:
                    reply = asyncio.run(stub.send(self.command, self.path.removeprefix("/v1"), body, headers))
                except LostError:
                    self.close_connection = True
                    return
            self.send_response(reply.status)
            self.send_header("content-length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        do_GET = do_POST = answer  # noqa: N815 - the names that the server looks for

        def log_message(self, *_: object) -> None:
            pass

    server = LoopbackServer(Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"{server.url}/v1"
    finally:
        server.shutdown()
        server.server_close()


@cache
def _make_plan() -> Plan:
    """The plan of all stubs, which nobody changes."""
    return make_plan(read_dimensions(), read_knowledge(KNOWLEDGE), seed=0)


def _reply(value: dict[str, Any], status: int = 200) -> HttpReply:
    return HttpReply(status, {}, orjson.dumps(value))
