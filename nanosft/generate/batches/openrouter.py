"""OpenRouter's form: the requests stand in the body of one POST, and a lost answer is asked for again by its key.

POST /batches                       endpoint, model, completion_window, requests: 202 {"id", "status"}
GET  /batches/{id}                  status, request_counts, usage.cost, error
GET  /batches/{id}/results?cursor=  a page of results, and `next_cursor`
"""

from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote, urlencode

import orjson

from nanosft.errors import ProviderError
from nanosft.generate.batches.api import GONE, BatchResult, BatchStatus, Draft, GoneError, RefusedBatchError
from nanosft.generate.batches.http import GONE_STATUSES, BatchHttp, count_of, json_of, object_of, text_of
from nanosft.generate.provider import HttpReply, error_message, parse_cost

_ENDPOINT: Final = "/v1/chat/completions"
_WINDOW: Final = "24h"
_ENDED: Final = frozenset({"completed", "failed", "expired", "cancelled"})
_MAX_PAGES: Final = 10_000
_MAX_BATCH_USD: Final = 1e6


class OpenRouterBatches:
    """The batch service of OpenRouter, and of proxies that speak its form."""

    def __init__(self, http: BatchHttp) -> None:
        self._http = http

    async def submit(self, draft: Draft, *, is_again: bool) -> BatchStatus:
        """Send it with its key: the provider answers every later try with the batch that the first one made."""
        del is_again  # the key says it
        body = {
            "endpoint": _ENDPOINT,
            "model": draft.model,
            "completion_window": _WINDOW,
            "requests": [{"custom_id": custom_id, "body": fields} for custom_id, fields in draft.requests],
        }
        reply = await self._http.request("POST", "/batches", orjson.dumps(body), {"idempotency-key": draft.key})
        if reply.status == HTTPStatus.CONFLICT:
            raise ProviderError(f"{self._http.refusal('/batches', reply)}: run the same command again later")
        if reply.status not in {HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.ACCEPTED}:
            raise RefusedBatchError(self._http.refusal("/batches", reply))
        return self._status(reply, "/batches")

    async def poll(self, batch_id: str) -> BatchStatus:
        """Where it stands; 410 is told of one whose 30 days are over, 404 of one that it does not know."""
        path = f"/batches/{quote(batch_id, safe='')}"
        reply = await self._http.request("GET", path)
        if reply.status in GONE_STATUSES:
            return BatchStatus(batch_id, GONE, is_ended=True, error=self._http.refusal(path, reply))
        return self._status(reply, path)

    async def read_results(self, status: BatchStatus) -> list[BatchResult]:
        """All pages; a completed batch alone has any."""
        if status.state != "completed":
            return []
        results: list[BatchResult] = []
        path = f"/batches/{quote(status.id, safe='')}/results"
        cursor = ""
        for _ in range(_MAX_PAGES):
            reply = await self._http.request("GET", f"{path}?{urlencode({'cursor': cursor})}" if cursor else path)
            if reply.status in GONE_STATUSES:
                raise GoneError(self._http.refusal(path, reply), results)
            value = json_of(reply)
            page = value.get("results", value.get("data")) if isinstance(value, dict) else None
            if reply.status != HTTPStatus.OK or not isinstance(page, list):
                raise ProviderError(f"{self._http.refusal(path, reply)}: no page of results: try again later")
            results += [found for item in page if (found := parse_result(item)) is not None]
            cursor = value["next_cursor"] if isinstance(value.get("next_cursor"), str) else ""
            if not cursor:
                return results
        raise ProviderError(f"{self._http.endpoint}{path}: its pages do not end: try again later")

    def _status(self, reply: HttpReply, path: str) -> BatchStatus:
        value = object_of(reply)
        batch_id, state = text_of(value.get("id"), 200), text_of(value.get("status"))
        if not HTTPStatus.OK <= reply.status < HTTPStatus.MULTIPLE_CHOICES or not batch_id or not state:
            raise ProviderError(f"{self._http.refusal(path, reply)}: not where a batch stands: try again later")
        counts, usage = value.get("request_counts"), value.get("usage")
        counts = counts if isinstance(counts, dict) else {}
        cost_usd = parse_cost(usage.get("cost"), most_usd=_MAX_BATCH_USD) if isinstance(usage, dict) else None
        is_ended = state in _ENDED
        return BatchStatus(
            id=batch_id,
            state=state,
            is_ended=is_ended,
            num_total=count_of(counts.get("total")),
            num_completed=count_of(counts.get("completed")),
            num_failed=count_of(counts.get("failed")),
            cost_usd=cost_usd,
            awaits_cost=state == "completed" and cost_usd is None,
            error=error_message(value["error"]) if value.get("error") else "",
        )


def parse_result(item: Any) -> BatchResult | None:
    """One result, in the form that both services share; None for what has no custom id."""
    custom_id = item.get("custom_id") if isinstance(item, dict) else None
    if not isinstance(custom_id, str):
        return None
    response, error = item.get("response"), item.get("error")
    body = response.get("body") if isinstance(response, dict) else None
    status = response.get("status_code") if isinstance(response, dict) else None
    if isinstance(body, dict) and status == HTTPStatus.OK and not error:
        return BatchResult(custom_id, orjson.dumps(body).decode())
    return BatchResult(
        custom_id, "", error_message(error or body or "no answer") + (f" (HTTP {status})" if status else "")
    )
