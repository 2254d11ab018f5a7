"""The page: one file without any network of its own, and the policy that holds it to that."""

import base64
import hashlib
import re
from importlib.resources import files
from typing import Final

_INLINE: Final = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


def load_page() -> tuple[str, str]:
    """The page, and its Content-Security-Policy: its own script and style, and requests to its own server."""
    page = (files(__name__) / "index.html").read_text(encoding="utf-8")
    sources: dict[str, list[str]] = {"script": [], "style": []}
    for kind, content in _INLINE.findall(page):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        sources[kind].append(f"'sha256-{digest}'")
    policy = (
        f"default-src 'none'; script-src {' '.join(sources['script'])}; style-src {' '.join(sources['style'])}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return page, policy
