"""A short part of what `make fuzz-serve` does for five minutes, and what it has found."""

import logging
import socket
from urllib.parse import urlsplit

import h11
import pytest
import torch

from nanosft.serve.logs import soften_client_faults
from tests.fuzz.serve import fuzz
from tests.serving import serving


def test_no_request_is_a_defect_of_the_server_and_none_hangs() -> None:
    torch.set_num_threads(1)
    found = fuzz(seconds=200, seed=0, max_requests=240)
    assert found.problems == []
    assert found.num_requests == 240
    assert {status for _, status in found.counts} > {"200", "400", "404", "405", "left"}


def test_a_client_that_breaks_http_is_a_line_of_the_log_and_a_defect_stays_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The fuzzer's first find: uvicorn logged its own answer to a broken exchange as the application's exception."""
    soften_client_faults()
    soften_client_faults()
    for exc in (h11.LocalProtocolError("can't handle event type Response"), ValueError("ours")):
        logging.getLogger("uvicorn.error").error("Exception in ASGI application\n", exc_info=exc)
    broken, defect = caplog.records
    assert (broken.levelno, broken.exc_info) == (logging.WARNING, None)
    assert broken.getMessage() == "a client broke HTTP: can't handle event type Response"
    assert (defect.levelno, defect.getMessage()) == (logging.ERROR, "Exception in ASGI application\n")
    assert defect.exc_info


def test_a_body_that_was_promised_and_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nanosft.serve.reading.BODY_TIMEOUT_S", 0.2)
    head = b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    with serving() as server:
        parts = urlsplit(server.url)
        with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=30) as connection:
            connection.sendall(head + b"Content-Length: 5\r\n\r\n")
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"body_timeout"' in answer
