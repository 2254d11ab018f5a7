"""Names of processes, in the keys of what they put: no two are equal, and each tells when its process began."""

import re
import secrets
from datetime import UTC, datetime
from typing import Final

_STAMP: Final = "%Y%m%dT%H%M%S"
_STAMPED: Final = re.compile(r"\d{8}T\d{6}")


def name_process() -> str:
    """A name for this process that no other has: when it began, and a few random digits."""
    return f"{datetime.now(UTC):{_STAMP}}{secrets.token_hex(4)}"


def day_of_process(name: str) -> str:
    """The day on which a process began, by a text that holds its name; empty where it tells none."""
    match = _STAMPED.search(name)
    try:
        return "" if match is None else f"{datetime.strptime(match[0], _STAMP).replace(tzinfo=UTC):%Y-%m-%d}"
    except ValueError:
        return ""
