"""Models that a command is told by URI, each under a name: what `serve` and `chat` share."""

import re
from collections.abc import Iterable
from typing import Final

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
