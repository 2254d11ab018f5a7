"""What a look ends in: one line, and where something is wrong what mends it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from nanosft.errors import EXIT_OK, NanosftError

Status = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        name: What was looked at.
        status: "warning" is what some runs do without, "error" what none does.
        found: What was found.
        remedy: The command, or the sentence, that mends it; empty where nothing is to mend.
        exit_code: Of an error: that of the command which would meet it.
    """

    name: str
    status: Status
    found: str
    remedy: str = ""
    exit_code: int = EXIT_OK


def look(name: str, remedy: str, find: Callable[[], Finding | str]) -> Finding:
    """What `find` tells, as a finding: a text is "ok", an error of ours an "error" that `remedy` mends."""
    try:
        found = find()
    except NanosftError as exc:
        return Finding(name, "error", str(exc), remedy, exc.exit_code)
    return found if isinstance(found, Finding) else Finding(name, "ok", found)


def choose_exit_code(findings: list[Finding]) -> int:
    """0 without an error; otherwise the first error's, those that stay before those that may pass (75)."""
    codes = [item.exit_code for item in findings if item.status == "error"]
    return next((code for code in codes if code < _MAY_PASS), codes[0] if codes else EXIT_OK)


def write_lines(findings: list[Finding]) -> Iterator[str]:
    """The report as text."""
    width = max(len(item.name) for item in findings)
    for item in findings:
        yield f"{item.status:<8} {item.name:<{width}}  {item.found}"
        if item.remedy:
            yield f"{'':<8} {'':<{width}}  -> {item.remedy}"


_MAY_PASS = 75
