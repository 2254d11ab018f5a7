"""What others wrote: shown without effect on a terminal, quoted within a bound, read from TOML within Python's."""

import reprlib
import tomllib
import unicodedata
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


def printable(text: str) -> str:
    """The text with its control characters shown, as none may steer the terminal."""
    return "".join(
        letter
        if letter.isprintable() or letter in "\n\t" or unicodedata.category(letter) == "Zs"  # spaces of any width
        else repr(letter)[1:-1]
        for letter in text
    )


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
