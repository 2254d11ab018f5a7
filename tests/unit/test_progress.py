"""Progress: JSON lines where there is no terminal, and a bar that stays whole on a narrow one."""

import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nanosft import progress
from nanosft.progress import Bar, SafeConsole, configure_logging, write_json, write_result


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    logger = logging.getLogger("nanosft")
    before = (logger.handlers[:], logger.level, logger.propagate)
    yield
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a terminal of 80 columns is sent."""
    sent = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=sent, force_terminal=True, width=80, color_system=None))
    return sent


def test_a_log_line_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    with Bar("train", 5) as bar:
        for step in range(3):
            bar.advance(loss=1.0 / (step + 1))
    (line,) = capsys.readouterr().err.splitlines()
    record = json.loads(line)
    assert (record["message"], record["done"], record["total"]) == ("train", 3, 5)
    assert record["loss"] == pytest.approx(1 / 3)


def test_lines_are_written_now_and_then(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    configure_logging()
    now_s = 0.0
    monkeypatch.setattr("nanosft.progress.time.monotonic", lambda: now_s)
    with Bar("mix", None) as bar:
        for _ in range(62):
            now_s += 0.5
            bar.advance()
    done = [json.loads(line)["done"] for line in capsys.readouterr().err.splitlines()]
    assert done == [30, 60, 62]


def test_a_quiet_bar_says_nothing(capsys: pytest.CaptureFixture[str], terminal: io.StringIO) -> None:
    configure_logging()
    with Bar("train", 5, quiet=True) as bar:
        bar.advance()
    assert capsys.readouterr().err == terminal.getvalue() == ""


def test_an_error_is_logged_with_its_traceback_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(debug=True)
    try:
        int("oops")
    except ValueError:
        logging.getLogger("nanosft.test").exception("it failed")
    (line,) = capsys.readouterr().err.splitlines()
    assert "ValueError: invalid literal" in json.loads(line)["traceback"]


def test_a_bar_stays_whole_beside_many_fields(terminal: io.StringIO) -> None:
    with Bar("train", 5) as bar:
        bar.advance(5, loss=1.23456, lr_scale=0.8, tokens_per_s=12345.678, cost_usd=0.0012, rejected=17)
    shown = " ".join(terminal.getvalue().split())
    fields = ["loss 1.235", "lr_scale 0.8", "12,346", "cost_usd 0.0012", "rejected 17"]
    for wanted in ["train ━", "5/5", "0:00:0", *fields]:
        assert wanted in shown


def test_names_are_shown_as_they_are(terminal: io.StringIO) -> None:
    with Bar("read [rows]", 1) as bar:
        bar.advance(source="[/x] a")
    assert "read [rows]" in terminal.getvalue()
    assert "[/x] a" in terminal.getvalue()


def test_no_text_steers_the_terminal() -> None:
    """Raw escape sequences of data reached it from error lines, excerpts, `describe` and `--dry-run`."""
    out = io.StringIO()
    shown = SafeConsole(file=out, force_terminal=True, width=60, color_system="standard")
    table = Table("name\x1b[2J", title="t\x1b]0;x\x07")
    table.add_row(Text("a\x1b[31mb"), "c\x9bd")
    shown.print(table)
    shown.print("x\x1b[2Jy", style="bold red", highlight=False)
    assert not any(sequence in out.getvalue() for sequence in ("\x1b[2J", "\x1b]0", "\x9b", "\x07", "a\x1b[31mb"))
    assert "x\\x1b[2Jy" in out.getvalue()
    assert "\x1b[1;31m" in out.getvalue()


def test_no_result_steers_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """`describe` printed raw what a manifest's settings held; JSON let DEL, C1 and the marks of direction pass."""
    foreign = "\x1b[31ma\x07\x7f\x9b2J\u202eb é \U0001f642"
    write_result(f"{foreign}\n")
    write_json({foreign: [foreign, 1.5, None]})
    write_json({foreign: foreign}, indent=True)
    shown = capsys.readouterr().out
    assert all(letter.isprintable() or letter == "\n" for letter in shown)
    lines = shown.splitlines()
    assert lines[0] == "\\x1b[31ma\\x07\\x7f\\x9b2J\\u202eb é \U0001f642"
    assert json.loads(lines[1]) == {foreign: [foreign, 1.5, None]}
    assert json.loads("".join(lines[2:])) == {foreign: foreign}


def test_every_result_goes_through_the_filter() -> None:
    """The class of what `describe` printed raw: nobody else writes to standard output."""
    raw = re.compile(r"sys\.stdout\.(buffer\.)?write|(?<![\w.])print\(|typer\.echo")
    allowed = {
        "progress.py": "the filter itself",
        "cli.py": "its version",
        "streams.py": "the error line, which is filtered",
        "help.py": "its own pages",
        "chat/scripted.py": "to a pipe an answer is as the model said it",
        "doctor/ranks.py": "a child process tells its parent",
    }
    root = Path(progress.__file__).parent
    found = {str(path.relative_to(root)) for path in root.rglob("*.py") if raw.search(path.read_text())}
    assert found == set(allowed)
