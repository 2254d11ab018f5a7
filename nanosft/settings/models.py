"""Models that a command is told: by URI, each under a name, as `serve` and `chat` are; or by slug, with shares."""

import re
from collections.abc import Iterable
from typing import Final

DEFAULT_MODEL: Final = "google/gemini-3.5-flash-lite"
"""Of the chat API, where none is named. One that its maker has announced to end is replaced here."""
_NAMED: Final = re.compile(r"([\w.-]+)=(.+)")


def name_models(items: Iterable[str]) -> dict[str, str]:
    """URI by name, of items that are a URI or name=URI; without a name, the URI's last part is it.

    Raises:
        ValueError: Two have one name.
    """
    named: dict[str, str] = {}
    for item in items:
        match = _NAMED.fullmatch(item)
        name, uri = (match[1], match[2]) if match else (item.rstrip("/").rpartition("/")[2], item)
        if name in named:
            raise ValueError(f"--model: two models have one name, {name}: write --model name=URI")
        named[name] = uri
    return named
