import pytest

from nanosft.errors import ConfigError
from nanosft.settings.base import load_settings
from nanosft.settings.generate import GenerateSettings
from nanosft.settings.shares import split_languages, split_models


@pytest.mark.parametrize(
    ("items", "shares"),
    [
        (["a/b:free"], {"a/b:free": 1}),
        (["a", "b"], {"a": 1, "b": 1}),
        (["a=3", "b:free=1"], {"a": 3, "b:free": 1}),
        (["a=0.9", "b=0.1"], {"a": 9, "b": 1}),
        (["a=6", "b=2"], {"a": 3, "b": 1}),
        (["a=0.67", "b=0.33"], {"a": 67, "b": 33}),
    ],
)
def test_models_and_their_shares(items, shares):
    assert split_models(items) == shares


@pytest.mark.parametrize(
    "items", [["a=0"], ["a=x"], ["a=-1"], ["=1"], ["a", "a=2"], [""], ["a b"], [], ["a=1", "b=999"]]
)
def test_models_that_are_none(items):
    with pytest.raises(ValueError, match=r"written|twice|parts"):
        split_models(items)


def test_languages_and_their_shares():
    assert split_languages(["en:0.9,de:0.1"]) == {"en": 9, "de": 1}
    assert split_languages(["en=3", "pt-BR"]) == {"en": 3, "pt-BR": 1}
    for wrong in (["English"], ["en:"], ["en,en:2"], ["de:1:2"]):
        with pytest.raises(ValueError, match=r"written|twice|parts"):
            split_languages(wrong)


def test_every_source_of_settings_takes_several(monkeypatch, tmp_path):
    options = {"out": "x"}
    monkeypatch.setenv("NANOSFT_MODEL", "a=3,b")
    monkeypatch.setenv("NANOSFT_LANGUAGES", "en:0.9,de:0.1")
    found = load_settings(GenerateSettings, options)
    assert (found.model_shares, found.language_shares) == ({"a": 3, "b": 1}, {"en": 9, "de": 1})
    monkeypatch.delenv("NANOSFT_MODEL")
    monkeypatch.delenv("NANOSFT_LANGUAGES")
    config = tmp_path / "config.toml"
    config.write_text('[generate]\nmodel = "a"\nlanguages = ["de"]\n')
    found = load_settings(GenerateSettings, options, config=str(config))
    assert (found.model_shares, found.language_shares) == ({"a": 1}, {"de": 1})
    assert load_settings(GenerateSettings, {**options, "model": ["a=2", "b"]}).model_shares == {"a": 2, "b": 1}


def test_the_composer_writes_english_alone():
    with pytest.raises(ConfigError, match="--provider offline writes English alone"):
        load_settings(GenerateSettings, {"out": "x", "provider": "offline", "languages": ["en:0.5,de:0.5"]})
    load_settings(GenerateSettings, {"out": "x", "provider": "offline", "languages": ["en"]})
