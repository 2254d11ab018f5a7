"""Which models are served, and who can reach them."""

from typing import Any

import pytest

from nanosft.errors import ConfigError
from nanosft.settings import load_settings
from nanosft.settings.serve import ServeSettings


def load(**options: Any) -> ServeSettings:
    return load_settings(ServeSettings, {"model": ["/base"], **options})


def test_models_have_the_names_they_are_given_or_their_uris_last_part() -> None:
    settings = load(model=["s3://bucket/run=1/model/", "old=file:///a=b", "./d12"])
    assert settings.models == {"model": "s3://bucket/run=1/model/", "old": "file:///a=b", "d12": "./d12"}
    with pytest.raises(ConfigError, match="two models have one name"):
        load(model=["a/model", "b/model"])


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_no_key(host: str) -> None:
    assert load(host=host).is_local


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org"])
def test_another_address_needs_a_key_or_the_users_word(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"set NANOSFT_API_KEY, or give --insecure"):
        load(host=host)
    assert load(host=host, insecure=True).api_key is None
    monkeypatch.setenv("NANOSFT_API_KEY", "secret")
    assert load(host=host).api_key is not None
