"""The help: whole at any width, under headings, with an example, and shown without what it is made of."""

import json
import os
import subprocess
import sys

import pytest

from nanosft.help import PAGES_PATH, PANELS, answer, render
from nanosft.settings import StageSettings
from nanosft.settings.base import extra_of, option_name
from nanosft.settings.options import COMMON, OPTIONS, kind_of
from tests.reference import render_pages

PAGES = json.loads(PAGES_PATH.read_bytes())
SETTINGS = {cls.command: cls for cls in StageSettings.__subclasses__() if cls.__module__.startswith("nanosft.")}


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_the_pages_are_those_of_the_commands():
    assert PAGES_PATH.read_text(encoding="utf-8") == render_pages(), "run `make reference`"
    assert set(PAGES) == {"", "knowledge", *SETTINGS}


def test_help_loads_nothing_that_takes_time_and_the_rest_of_the_command_line_no_stage():
    heavy = {"typer", "pydantic", "rich", "torch", "numpy", "boto3", "httpx", "duckdb", "pyarrow"}
    show = "import sys\nfrom nanosft.__main__ import main\nsys.argv = ['nanosft', 'generate', '--help']\nmain()\n"
    assert not heavy & set(run(show + "print(*sys.modules)").splitlines()[-1].split())
    parsed = set(run("import sys, nanosft.cli\nprint(*sys.modules)").split())
    assert heavy & parsed == {"typer", "pydantic"}


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_cut_or_wider_than_the_terminal(monkeypatch, name, width):
    monkeypatch.setenv("COLUMNS", str(width))
    shown = render(name, PAGES[name], bold=False)
    assert [line for line in shown.splitlines() if len(line) > width] == []
    words = " ".join(shown.split())
    for heading, term, text in (row for rows in PAGES[name]["sections"] for row in rows):
        assert f"\n{heading}\n" in shown
        assert f"\n  {term}" in shown
        assert " ".join(text.split()) in words


@pytest.mark.parametrize("name", PAGES)
def test_each_help_has_an_example(name):
    examples = [part for part in PAGES[name]["text"].split("\n\n") if part.startswith(f"nanosft {name}".rstrip())]
    assert examples


def test_commands_stand_under_what_they_are_for():
    commands, options = PAGES[""]["sections"]
    assert list(dict.fromkeys(panel for panel, _, _ in commands)) == list(PANELS)
    assert {"--version", "--install-completion", "--show-completion"} <= {term for _, term, _ in options}


@pytest.mark.parametrize("name", [name for name, cls in SETTINGS.items() if len(cls.model_fields) > 10])
def test_the_options_of_a_large_command_stand_under_headings(name):
    (rows,) = (rows for rows in PAGES[name]["sections"] if any(heading == COMMON for heading, _, _ in rows))
    headings = {heading for heading, _, _ in rows}
    assert len(headings) > 2
    assert OPTIONS not in headings or name == "launch"  # whose command line for the ranks is no setting


@pytest.mark.parametrize("name", SETTINGS)
def test_a_switch_that_is_off_by_default_has_no_other_form(name):
    terms = [term for rows in PAGES[name]["sections"] for _, term, _ in rows]
    for key, field in SETTINGS[name].model_fields.items():
        if kind_of(field.annotation) == "switch":
            option = option_name(key, field)
            other = f" / --no-{option.removeprefix('--')}" if field.default is not False else ""
            assert f"{option}{other}" in [term.removeprefix(f"{extra_of(field).get('short')}, ") for term in terms]


@pytest.mark.parametrize("words", [["chat", "-p", "--help"], ["launch", "train", "--help"], ["nothing", "-h"], ["mix"]])
def test_what_is_more_than_a_commands_name_and_help_is_left_to_the_command_line(capsys, words):
    assert not answer(words)
    assert capsys.readouterr().out == ""


def test_the_version_and_the_first_page_are_shown_at_once(capsys):
    assert answer(["--version"])
    assert capsys.readouterr().out.startswith("nanosft ")
    assert answer([])
    assert capsys.readouterr().out.startswith("Usage: nanosft [OPTIONS] COMMAND")


def test_headings_are_bold_unless_colour_is_unwanted(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\033[1mMake\033[0m" in render("", PAGES[""], bold=True)
    monkeypatch.setenv("NO_COLOR", "")
    assert "\033" not in render("", PAGES[""], bold=True)


@pytest.mark.parametrize(("line", "expected"), [("nanosft ge", "generate"), ("nanosft mix --on-bad-row ", "skip")])
def test_the_shell_is_told_how_a_line_may_go_on(line, expected):
    words = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" ")), "_NANOSFT_COMPLETE": "complete_bash"}
    command = [sys.executable, "-m", "nanosft"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **words})
    assert expected in done.stdout.split()
