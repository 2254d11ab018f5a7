"""`nanosft models` on an endpoint that lists what it offers over HTTP."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from nanosft.errors import ConfigError, ProviderError
from nanosft.generate.models import run_models
from nanosft.settings.offers import ModelsSettings
from tests.contract.test_doctor import serving
from tests.stub_provider import KNOWLEDGE

SOON = f"{datetime.now(UTC) + timedelta(days=10):%Y-%m-%d}"


def entry(slug, prompt="0.000001", completion="0.000002", **changes):
    return {
        "id": slug,
        "context_length": 100_000,
        "pricing": {"prompt": prompt, "completion": completion},
        "supported_parameters": ["structured_outputs"],
        **changes,
    }


OFFERED = [
    entry("a/dear", "0.00001", "0.00002"),
    entry("a/plain"),
    entry("a/cached", pricing={"prompt": "0.000001", "completion": "0.000002", "input_cache_read": "0.0000001"}),
    entry("a/cached:batch", "0.0000005", "0.000001"),
    entry("a/free", "0", "0"),
    entry("a/small", context_length=4096),
    entry("a/prose", supported_parameters=["max_tokens"]),
    entry("a/ending", expiration_date=SOON),
    entry("a/pictures", architecture={"output_modalities": ["image"]}),
    entry("a/router", "-1", "-1"),
    entry("a/short", top_provider={"max_completion_tokens": 1000}),
]


def listed(capfd, *, offered=OFFERED, **changes):
    with serving({"/v1/models": (200, {"data": offered})}) as url:
        run_models(ModelsSettings(base_url=url, knowledge=KNOWLEDGE, json_output=True, **changes))
    return json.loads(capfd.readouterr().out)


def slugs(items):
    return [item["model"] for item in items]


def test_models_that_can_do_the_job_are_listed_cheapest_first(capfd):
    found = listed(capfd)
    assert slugs(found["others"]) == ["a/cached", "a/plain", "a/dear"]
    assert (found["named"], found["num_free"], found["num_left_out"]) == ([], 1, 0)
    cached, plain, _ = (item["usd_per_thousand"] for item in found["others"])
    tokens = found["tokens_per_row"]
    assert plain["sync"] == pytest.approx(
        (tokens["fixed"] + tokens["varying"]) * 1e-3 + tokens["completion"] * 2e-3, rel=0.01
    )
    assert plain["batch"] is None
    saved_usd = tokens["fixed"] * 936 * 0.9e-6  # all rows but the first 64 find the fixed part in the cache
    assert cached["sync"] == pytest.approx(plain["sync"] - saved_usd, rel=0.01)
    assert cached["batch"] == pytest.approx(plain["sync"] / 2, rel=0.01)


def test_a_word_a_limit_and_models_that_cost_nothing(capfd):
    assert slugs(listed(capfd, word="PLAIN")["others"]) == ["a/plain"]
    few = listed(capfd, limit=1)
    assert (slugs(few["others"]), few["num_left_out"]) == (["a/cached"], 2)
    assert slugs(listed(capfd, free=True)["others"])[0] == "a/free"
    assert "a/short" in slugs(listed(capfd, max_tokens=500)["others"])


def test_longer_conversations_cost_more(capfd):
    short, usual, long = (listed(capfd, max_messages=bound) for bound in (4, None, 60))
    prices = [found["others"][1]["usd_per_thousand"]["sync"] for found in (short, usual, long)]
    assert [slugs(found["others"])[1] for found in (short, usual, long)] == ["a/plain"] * 3
    assert prices == sorted(prices)
    assert len(set(prices)) == 3


def test_models_that_are_named_come_first_whatever_they_lack(capfd):
    found = listed(capfd, model=("a/dear", "a/prose=2", "a/gone"))
    assert slugs(found["named"]) == ["a/dear", "a/prose"]
    assert "a/dear" not in slugs(found["others"])


def test_people_read_a_table_of_a_hundred_columns(capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    with serving({"/v1/models": (200, {"data": OFFERED})}) as url:
        run_models(ModelsSettings(base_url=url, knowledge=KNOWLEDGE, model=("a/dear", "a/gone"), limit=1))
    printed = capfd.readouterr()
    assert max(map(len, printed.out.splitlines())) <= 100
    assert "Not listed: 1 dearer ones: --limit; 1 that cost nothing" in printed.out
    assert "a/gone is not on offer" in printed.err


def test_without_a_list_or_a_price_in_it_the_command_fails():
    with pytest.raises(ProviderError, match="no list of models"):
        run_models(ModelsSettings(base_url="http://127.0.0.1:9/v1"))
    with serving({"/v1/models": (200, {"data": [{"id": "m"}]})}) as url, pytest.raises(ConfigError, match="no prices"):
        run_models(ModelsSettings(base_url=url))
