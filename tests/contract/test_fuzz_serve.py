"""A short part of what `make fuzz-serve` does for five minutes, and what it has found."""

import logging
import socket
from urllib.parse import urlsplit

import pytest
import torch

from nanosft.serve.logs import soften_client_faults
from tests.fuzz.serve import fuzz
from tests.serving import serving


def test_no_request_is_a_defect_of_the_server_and_none_hangs() -> None:
    torch.set_num_threads(1)
    found = fuzz(seconds=60, seed=0, max_requests=240)
    assert found.problems == []
    assert found.num_requests == 240
    assert {status for _, status in found.counts} > {"200", "400", "404", "405", "left"}


def test_a_client_that_breaks_http_is_a_line_of_the_log_and_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    soften_client_faults()
    body = b'{"model": "small", "prompt": "Hi", "max_tokens": 8}'
    head = b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    request = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with serving() as server:
        parts = urlsplit(server.url)
        with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=30) as connection:
            connection.sendall(request + b"no request line\r\n\r\n")
            while connection.recv(65536):
                pass
    assert "a client broke HTTP" in caplog.text or "Invalid HTTP request" in caplog.text
    assert "Traceback" not in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


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
