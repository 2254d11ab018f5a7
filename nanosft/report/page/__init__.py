"""The page: one file that asks nothing of any network, and the policy that holds it to that.

`page.html` is the template, `page.css` and `page.js` go into it. All text is escaped by Jinja2 or enters as text nodes.
"""

import base64
import hashlib
import json
from importlib.resources import files
from typing import Final

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from nanosft import __version__
from nanosft.report.blocks import Page

_SHADES: Final = 7


def render_page(page: Page) -> str:
    """The page as HTML."""
    room = files(__name__)
    style, script, template = (
        (room / name).read_text(encoding="utf-8") for name in ("page.css", "page.js", "page.html")
    )
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["shade"] = _shade
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return environment.from_string(template).render(
        page=page,
        policy=policy,
        style=Markup(style),  # noqa: S704 - ours
        script=Markup(script),  # noqa: S704 - ours
        version=__version__,
        json=lambda value: Markup(json.dumps(value).replace("<", "\\u003c")),  # noqa: S704 - no tag can stand in it
    )


def _digest(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def _shade(count: int, most: int) -> int:
    """0 for none, then 1 to 7; small counts stay light, however small the largest is."""
    return 0 if not count else max(1, round(_SHADES * count / max(most, _SHADES // 2)))
