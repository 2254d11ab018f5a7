"""The command line: every command documented, every option frozen, every error its line and exit code."""

import sys
from pathlib import Path

import pytest

import nanosft.chat.stage
from nanosft import errors
from nanosft.cli import app, main
from nanosft.settings import StageSettings
from nanosft.settings.base import extra_of, option_name

GOLDEN = Path(__file__).parent.parent / "golden" / "options.txt"


def run_main(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["nanosft", *words])
    with pytest.raises(SystemExit) as caught:
        main()
    return caught.value.code


def all_settings():
    return sorted(StageSettings.__subclasses__(), key=lambda cls: cls.command)


def shown_options():
    """Every command with its options, types and defaults: what scripts and manifests rely on."""
    for cls in (cls for cls in all_settings() if cls.__module__.startswith("nanosft.")):
        yield f"{cls.command}"
        for name, field in cls.model_fields.items():
            default = "required" if field.is_required() else repr(field.default)
            kind = str(field.annotation).removeprefix("<class '").removesuffix("'>").replace("typing.", "")
            is_option = "SecretStr" not in kind
            yield f"    {option_name(name, field) if is_option else extra_of(field)['env']}  {kind}  {default}"


def test_the_options_are_those_that_scripts_and_manifests_rely_on():
    shown = "\n".join(shown_options()) + "\n"
    assert shown == GOLDEN.read_text(encoding="utf-8"), f"review the change, then write it to {GOLDEN.name}"


def test_every_command_and_every_option_is_documented():
    for info in [*app.registered_commands, *(info for group in app.registered_groups for info in _commands(group))]:
        assert info.help, info.name
    for cls in all_settings():
        for name, field in cls.model_fields.items():
            assert field.description, f"{cls.__name__}.{name}"
            assert field.description[0].isupper(), f"{cls.__name__}.{name}: {field.description}"
            assert field.description.endswith((".", "…", "?")), f"{cls.__name__}.{name}: {field.description}"


def _commands(group):
    return group.typer_instance.registered_commands


def test_no_two_options_of_a_command_have_one_name():
    for cls in all_settings():
        names = [option_name(name, field) for name, field in cls.model_fields.items()]
        names += [extra_of(field)["short"] for field in cls.model_fields.values() if "short" in extra_of(field)]
        assert len(names) == len(set(names)), cls.__name__


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConfigError("bad\nsetting"), 2),
        (errors.DataError("bad data"), 3),
        (errors.DataError("role \x1b[2J\x9b" + "x" * 2_000_000), 3),
        (errors.CreditError("no credit"), 4),
        (errors.TrainError("not finite"), 5),
        (errors.ProviderError("busy"), 75),
        (errors.StoreError("down"), 75),
        (errors.Interrupted(15), 143),
        (errors.Interrupted(2), 130),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError("oops"), 1),
    ],
)
def test_an_error_ends_with_one_line_and_its_code(monkeypatch, capsys, error, code):
    def fail(_settings):
        raise error

    monkeypatch.setattr(nanosft.chat.stage, "run_chat", fail)
    assert run_main(monkeypatch, "chat", "--model", "x") == code
    shown = capsys.readouterr().err
    assert shown.count("\n") <= 1
    assert len(shown) < 5000
    assert shown.rstrip("\n").isprintable()
    assert "Traceback" not in shown


def test_debug_shows_the_traceback(monkeypatch, capsys):
    def fail(_settings):
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(nanosft.chat.stage, "run_chat", fail)
    assert run_main(monkeypatch, "chat", "--model", "x", "--debug") == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["chat"], "--model is missing"),
        (["chat", "--model", "x", "--top-k", "many"], "'--top-k'"),
        (["chat", "--model", "x", "--temperature", "-1"], "--temperature"),
        (["chat", "--modle", "x"], "--modle"),
        (["chatt"], "chatt"),
        (["chat", "--model", "x", "--config", "nowhere.toml"], "nowhere.toml"),
    ],
)
def test_a_wrong_command_line_is_exit_2_and_names_the_word(monkeypatch, capsys, words, message):
    assert run_main(monkeypatch, *words) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1


def test_h_is_help(monkeypatch, capsys):
    for words in (["-h"], ["chat", "-h"], ["knowledge", "check", "-h"]):
        assert run_main(monkeypatch, *words) == 0
        assert "Usage:" in capsys.readouterr().out


def test_a_misspelled_variable_is_a_warning_with_the_nearest_name(monkeypatch, capsys):
    monkeypatch.setenv("NANOSFT_TEMPRATURE", "1")
    assert run_main(monkeypatch, "--version") == 0
    assert "did you mean NANOSFT_TEMPERATURE?" in capsys.readouterr().err
