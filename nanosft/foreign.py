"""Values that others wrote: shown in a message within a bound, and read from TOML within Python's own."""

import reprlib
import tomllib
from typing import Any, Final

from nanosft.errors import ConfigError, clip

_MAX_CHARS: Final = 120
_LIMITS: Final = {
    **dict.fromkeys(("maxstring", "maxother", "maxlong"), _MAX_CHARS),
    **dict.fromkeys(("maxdict", "maxlist", "maxtuple"), 6),
    "maxlevel": 4,
}
"""Of `reprlib`: characters, items of a table, and how deep tables are shown in one another."""


def quote(value: object) -> str:
    """A foreign value as Python writes it, at most 120 characters, whatever it is and however deep it is nested."""
    short = reprlib.Repr()
    vars(short).update(_LIMITS)
    return clip(short.repr(value), _MAX_CHARS)


def parse_toml(data: bytes | str, *, where: str) -> dict[str, Any]:
    """A TOML document, with or without a byte order mark.

    Raises:
        ConfigError: It is not TOML, or nested deeper or with longer numbers than Python reads.
    """
    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data
        return tomllib.loads(text)
    except RecursionError:
        raise ConfigError(f"{where}: not TOML that can be read: it is nested too deep") from None
    except ValueError as exc:  # tomllib's own and that of bad UTF-8 among them, and Python's of thousands of digits
        raise ConfigError(f"{where}: not TOML: {clip(str(exc), _MAX_CHARS)}") from exc
