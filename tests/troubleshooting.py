"""docs/troubleshooting.md, made of the error classes and of every message that the code raises (`tests.reference`)."""

import ast
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from nanosft.errors import NanosftError

ROOT = Path(__file__).parents[1]
_WORD = re.compile("[a-z]{2,}")
_LEAST_WORDS = 3
INTRODUCTION = """\
# Troubleshooting

Every error is one line on standard error: what is wrong, with which object, and what to do. Below are all of them, by
the exit code of the process; search for a few words of the line, without its names and numbers. Made from the code by
`make reference`: do not edit.

First aid: `nanosft doctor` (with `--out URI` for a bucket) looks at what a run stands on and says what mends it;
`--debug` shows the traceback; a rerun of the same command goes on from what is saved. Exit code 1 is a defect of
nanosft; 130 and 143 are a stop that you asked for, with everything saved.
"""


def render() -> str:
    """The whole file."""
    found = sorted(set(_find_messages()))
    classes = {name for name, _, _ in found}
    sections = [_section(cls, [item for item in found if item[0] == cls.__name__]) for cls in _classes(classes)]
    return "\n".join([INTRODUCTION, *sections])


def _section(cls: type[NanosftError], found: list[tuple[str, str, str]]) -> str:
    cause, *rest = (inspect.getdoc(cls) or "").split("\n\n")
    above = cls.__mro__[1]
    remedy = [" ".join(part.split()) for part in rest] or [f"As {above.__name__}."]
    lines = [f"- `{message}` ({room})" for _, room, message in found]
    return "\n\n".join([f"## {cls.__name__}: exit code {cls.exit_code}", " ".join(cause.split()), *remedy]) + (
        "\n\n" + "\n".join(lines) + "\n"
    )


def _classes(names: set[str]) -> list[type[NanosftError]]:
    """The error classes with a message, those with one exit code side by side."""
    found: list[type[NanosftError]] = []
    waiting = [NanosftError]
    while waiting:
        cls = waiting.pop()
        waiting += cls.__subclasses__()
        if cls.__name__ in names and cls.__module__.startswith("nanosft."):
            found.append(cls)
    return sorted(found, key=lambda cls: (cls.exit_code, len(cls.__mro__), cls.__name__))


def _find_messages() -> Iterator[tuple[str, str, str]]:
    """Class, room and message of each error that is made with a text of its own."""
    for path in sorted((ROOT / "nanosft").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        defined = [node.name for node in tree.body if isinstance(node, ast.ClassDef) and node.name.endswith("Error")]
        parts = path.relative_to(ROOT).with_suffix("").parts
        if defined:
            import_module(".".join(parts))  # so that it is among the subclasses
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or not node.args:
                continue
            message = _text(node.args[0])
            name = node.func.id
            if name == "ValueError" and (parts[1] == "settings" or parts[-1] == "recipe"):
                name = "ConfigError"  # which the settings' base and the recipe's parser make of it
            if name.endswith("Error") and len(_WORD.findall(message)) >= _LEAST_WORDS:
                yield name, parts[1], message


def _text(node: ast.expr) -> str:
    """A message's words, with … for what is filled in."""
    if isinstance(node, ast.Constant):
        return " ".join(str(node.value).split()).replace("`", "'")
    if isinstance(node, ast.JoinedStr):
        raw = "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        return " ".join(raw.split()).replace("`", "'")
    return ""
