"""Where a user's own files lie, by the XDG base directory specification."""

import os
from pathlib import Path


def find_cache_dir() -> Path | None:
    """The directory for what can be fetched again; None where this user has no home."""
    return _find("XDG_CACHE_HOME", ".cache")


def find_state_dir() -> Path | None:
    """The directory for what is kept between sessions, such as a history; None where this user has no home."""
    return _find("XDG_STATE_HOME", ".local/state")


def _find(variable: str, default: str) -> Path | None:
    given = Path(os.environ.get(variable, ""))
    if given.is_absolute():  # the specification has relative ones passed over
        return given / "nanosft"
    try:
        return Path.home() / default / "nanosft"
    except RuntimeError:  # as in a container whose user id has no entry
        return None
