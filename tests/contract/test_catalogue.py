"""The catalogue on an endpoint that answers over HTTP."""

from types import SimpleNamespace

import pytest

from nanosft.errors import ConfigError, ProviderError
from nanosft.generate.provider import Catalogue, catalogue
from tests.contract.test_doctor import serving


def read(answers, **changes):
    with serving(answers) as url:
        return Catalogue(url, **{"key": "", "timeout_s": 5.0, **changes}).read_models()


def test_a_list_in_pages_is_read_whole():
    pages = {
        "/v1/models": (200, {"data": [{"id": "a/one"}], "links": {"next": "/v1/models?offset=1"}}),
        "/v1/models?offset=1": (200, {"data": [{"id": "a/two"}], "links": {"next": None}}),
    }
    assert read(pages).keys() == {"a/one", "a/two"}


def test_no_key_goes_to_a_page_elsewhere_and_no_list_is_endless():
    elsewhere = {"data": [{"id": "a/one"}], "links": {"next": "http://127.0.0.1:1/v1/models"}}
    assert read({"/v1/models": (200, elsewhere)}, key="sesame").keys() == {"a/one"}
    again = {"data": [{"id": "a/one"}], "links": {"next": "/v1/models"}}
    assert read({"/v1/models": (200, again)}).keys() == {"a/one"}


def test_an_answer_that_never_ends_is_left(monkeypatch):
    monkeypatch.setattr(catalogue, "_MAX_BODY_BYTES", 1000)
    with pytest.raises(ConfigError, match="has more than"):
        read({"/v1/models": (200, {"data": [{"id": "x" * 2000}]})})
    clock = iter([0.0, 7.0])
    monkeypatch.setattr(catalogue, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with pytest.raises(ProviderError, match="no answer within 5 s"):
        read({"/v1/models": (200, {"data": []})})


@pytest.mark.parametrize("value", ["1", True, 1e300, [], {}])
def test_a_key_that_tells_nonsense_has_no_limit(value):
    answers = {"/v1/key": (200, {"data": {"usage": value, "limit_remaining": value}})}
    with serving(answers) as url:
        status = Catalogue(url, key="sesame", timeout_s=5.0).read_key()
    assert (status.used_usd, status.left_usd) == (0.0, None)


def test_a_proxy_that_is_none_is_no_defect(monkeypatch):
    """`HTTP_PROXY=nonsense://` was exit 1: httpx raises a ValueError."""
    monkeypatch.setenv("HTTP_PROXY", "nonsense://me:secret@host")
    monkeypatch.setenv("NO_PROXY", "")
    with pytest.raises(ConfigError, match="the proxy that a variable names") as caught:
        Catalogue("http://192.0.2.1/v1", key="", timeout_s=5.0).read_models()
    assert "secret" not in str(caught.value)
