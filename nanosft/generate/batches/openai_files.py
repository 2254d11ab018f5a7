"""OpenAI's form: the requests are a JSONL file that is uploaded, and results are files that are downloaded.

    POST /files               purpose "batch": {"id"}
    POST /batches             input_file_id, endpoint, completion_window, metadata
    GET  /batches?after=      the newest first: where a batch is looked for whose answer was lost
    GET  /batches/{id}        status, request_counts, output_file_id, error_file_id
    GET  /files/{id}/content  results

No cost is stated: it is counted from the tokens, at the prices that were given.
"""

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote, urlencode

import orjson

from nanosft.errors import ProviderError
from nanosft.generate.batches.api import GONE, BatchResult, BatchStatus, Draft, GoneError, RefusedBatchError
from nanosft.generate.batches.http import (
    GONE_STATUSES,
    BatchHttp,
    PassingError,
    count_of,
    json_of,
    object_of,
    text_of,
)
from nanosft.generate.batches.openrouter import parse_result
from nanosft.generate.provider import HttpReply, error_message

_ENDPOINT: Final = "/v1/chat/completions"
_WINDOW: Final = "24h"
_ENDED: Final = frozenset({"completed", "failed", "expired", "cancelled"})
_KEY: Final = "nanosft_key"
_PAGE: Final = 100
_MAX_PAGES: Final = 1000
_CLOCK_SLACK_S: Final = 3600.0
"""A batch may seem older than its record by as much: clocks differ."""


class OpenAiBatches:
    """The batch service of OpenAI, and of others with its form."""

    def __init__(self, http: BatchHttp) -> None:
        self._http = http

    async def submit(self, draft: Draft, *, is_again: bool) -> BatchStatus:
        """Upload the file and make the batch; before every later try the batch is looked for by its key.

        A file that was uploaded twice costs nothing.
        """
        file_id = ""
        num_tries = 0
        while True:
            if is_again and (found := await self._find(draft)) is not None:
                return found
            file_id = file_id or await self._upload(draft)
            body = {
                "input_file_id": file_id,
                "endpoint": _ENDPOINT,
                "completion_window": _WINDOW,
                "metadata": {_KEY: draft.key},
            }
            is_again = True
            try:
                reply = await self._http.request_once(
                    "POST", "/batches", orjson.dumps(body), {"idempotency-key": draft.key}
                )
            except PassingError as exc:
                await self._http.wait(num_tries, exc)
                num_tries += 1
                continue
            if reply.status not in {HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.ACCEPTED}:
                raise RefusedBatchError(self._http.refusal("/batches", reply))
            return self._status(object_of(reply), reply)

    async def poll(self, batch_id: str) -> BatchStatus:
        """Where it stands."""
        path = f"/batches/{quote(batch_id, safe='')}"
        reply = await self._http.request("GET", path)
        if reply.status in GONE_STATUSES:
            return BatchStatus(batch_id, GONE, is_ended=True, error=self._http.refusal(path, reply))
        return self._status(object_of(reply), reply)

    async def read_results(self, status: BatchStatus) -> list[BatchResult]:
        """Those of both files; one that expired has some too."""
        results: list[BatchResult] = []
        gone = ""
        for file_id in status.objects:
            try:
                results += await self._read_file(file_id)
            except GoneError as exc:
                gone = str(exc)
        if gone:
            raise GoneError(gone, results)
        return results

    async def _read_file(self, file_id: str) -> list[BatchResult]:
        path = f"/files/{quote(file_id, safe='')}/content"
        reply = await self._http.request("GET", path)
        if reply.status in GONE_STATUSES:
            raise GoneError(self._http.refusal(path, reply))
        if reply.status != HTTPStatus.OK:
            raise ProviderError(f"{self._http.refusal(path, reply)}: no file of results: try again later")
        return [found for item in _lines(reply.body) if (found := parse_result(item)) is not None]

    async def _upload(self, draft: Draft) -> str:
        body = b"".join(_line(draft.model, custom_id, fields) for custom_id, fields in draft.requests)
        boundary = f"nanosft-{draft.key}"
        parts = (
            f'--{boundary}\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
            f'--{boundary}\r\ncontent-disposition: form-data; name="file"; filename="{draft.key}.jsonl"\r\n'
            "content-type: application/jsonl\r\n\r\n"
        )
        data = parts.encode() + body + f"\r\n--{boundary}--\r\n".encode()
        reply = await self._http.request(
            "POST", "/files", data, {"content-type": f"multipart/form-data; boundary={boundary}"}
        )
        file_id = text_of(object_of(reply).get("id"), 200)
        if reply.status not in {HTTPStatus.OK, HTTPStatus.CREATED} or not file_id:
            raise RefusedBatchError(self._http.refusal("/files", reply))
        return file_id

    async def _find(self, draft: Draft) -> BatchStatus | None:
        """The batch that an earlier try has made, by its metadata; None where there is none."""
        query: dict[str, Any] = {"limit": _PAGE}
        for _ in range(_MAX_PAGES):
            reply = await self._http.request("GET", f"/batches?{urlencode(query)}")
            value = json_of(reply)
            page = value.get("data") if isinstance(value, dict) else None
            if reply.status != HTTPStatus.OK or not isinstance(page, list):
                raise ProviderError(f"{self._http.refusal('/batches', reply)}: no list of batches: try again later")
            items = [item for item in page if isinstance(item, dict)]
            for item in items:
                metadata = item.get("metadata")
                if isinstance(metadata, dict) and metadata.get(_KEY) == draft.key:
                    return self._status(item, reply)
            last = text_of(items[-1].get("id"), 200) if items else ""
            oldest_s = items[-1].get("created_at") if items else None
            is_older = isinstance(oldest_s, int | float) and oldest_s < draft.created_s - _CLOCK_SLACK_S
            if not last or not value.get("has_more") or is_older:
                return None
            query["after"] = last
        return None

    def _status(self, value: dict[str, Any], reply: HttpReply) -> BatchStatus:
        batch_id, state = text_of(value.get("id"), 200), text_of(value.get("status"))
        if not HTTPStatus.OK <= reply.status < HTTPStatus.MULTIPLE_CHOICES or not batch_id or not state:
            raise ProviderError(f"{self._http.refusal('/batches', reply)}: not where a batch stands: try again later")
        counts = value.get("request_counts")
        counts = counts if isinstance(counts, dict) else {}
        files = (text_of(value.get(name), 200) for name in ("output_file_id", "error_file_id"))
        return BatchStatus(
            id=batch_id,
            state=state,
            is_ended=state in _ENDED,
            num_total=count_of(counts.get("total")),
            num_completed=count_of(counts.get("completed")),
            num_failed=count_of(counts.get("failed")),
            error=error_message(value["errors"]) if value.get("errors") else "",
            objects=tuple(file_id for file_id in files if file_id) if state in _ENDED else (),
        )


def _line(model: str, custom_id: str, fields: Mapping[str, Any]) -> bytes:
    value = {"custom_id": custom_id, "method": "POST", "url": _ENDPOINT, "body": {"model": model, **fields}}
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)


def _lines(body: bytes) -> Iterator[Any]:
    for line in body.splitlines():
        try:
            yield orjson.loads(line)
        except orjson.JSONDecodeError:
            continue  # its row has no answer, and is released
