"""COMMANDS.md, made of the settings classes and the commands' help: `make reference` writes it, `make check` compares.

python -m tests.reference [--check]
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from nanosft.cli import app
from nanosft.settings import StageSettings
from nanosft.settings.base import ENV_PREFIX, extra_of, option_name

TARGET = Path(__file__).parents[1] / "COMMANDS.md"
INTRODUCTION = """\
# Commands

Every command and every setting. Made from the code by `make reference`: do not edit.

A setting is given on the command line, or else as a variable, or else as a key of the TOML file that `--config FILE`
names (the option's name with underscores, at the top level or in a table with the command's name), or else it has its
default. A list is a repeated option, or has commas in a variable; `--no-…` turns a switch off; `--debug` shows
tracebacks. Settings marked ° decide only where and how a stage works, never what it makes: what has begun may be gone
on with under another value.
"""


def list_commands() -> Iterator[tuple[str, str]]:
    """(name, help) of every command, in the order of `nanosft --help`."""
    for info in app.registered_commands:
        yield str(info.name), info.help or ""
    for group in app.registered_groups:
        assert group.typer_instance is not None
        if callback := group.typer_instance.registered_callback:
            yield str(group.typer_instance.info.name), callback.help or ""
        for info in group.typer_instance.registered_commands:
            yield f"{group.typer_instance.info.name} {info.name}", info.help or ""


def render() -> str:
    """The whole reference."""
    classes = {cls.command: cls for cls in StageSettings.__subclasses__() if cls.__module__.startswith("nanosft.")}
    sections = [_section(name, text, classes[name]) for name, text in list_commands()]
    return "\n".join([INTRODUCTION, *sections])


def _section(name: str, text: str, cls: type[StageSettings]) -> str:
    paragraphs = text.strip().split("\n\n")
    example = [
        f"```sh\n{paragraph}\n```" if paragraph.startswith("nanosft ") else paragraph for paragraph in paragraphs
    ]
    rows = [_row(field_name, field) for field_name, field in cls.model_fields.items()]
    table = ["| option | variable | default | |", "|---|---|---|---|", *rows]
    return "\n\n".join([f"## {name}", *example, "\n".join(table)]) + "\n"


def _row(name: str, field: FieldInfo) -> str:
    extra = extra_of(field)
    kind = _kind(field.annotation)
    option = option_name(name, field)
    if extra.get("argument"):
        option = f"`{option}`"
    elif kind == "secret":
        option = "(no option)"
    else:
        shown = f", {extra['short']}" if "short" in extra else ""
        option = f"`{option}{shown}{'' if kind == 'switch' else ' ' + kind}`"
    variables = [ENV_PREFIX + name.upper(), *([str(extra["env"])] if "env" in extra else [])]
    mark = " °" if extra.get("content") is False else ""
    cells = [
        option + mark,
        ", ".join(f"`{variable}`" for variable in variables),
        _default(field),
        field.description or "",
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _kind(annotation: Any) -> str:
    """What an option takes: its choices, `N`, `X` (a real number) or `TEXT`."""
    if get_origin(annotation) in (Union, UnionType):
        return _kind(next(item for item in get_args(annotation) if item is not type(None)))
    if get_origin(annotation) is tuple:
        return f"{_kind(get_args(annotation)[0])} …"
    if get_origin(annotation) is Literal:
        return "|".join(map(str, get_args(annotation)))
    return {bool: "switch", int: "N", float: "X", SecretStr: "secret"}.get(annotation, "TEXT")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if value is None or value in ("", ()):
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    return ", ".join(f"`{item}`" for item in (value if isinstance(value, tuple) else (value,)))


def main(arguments: list[str]) -> None:
    """Write the file, or compare it.

    Raises:
        SystemExit: With `--check`, where the file is not what the settings say.
    """
    text = render()
    if arguments == ["--check"]:
        if not TARGET.is_file() or TARGET.read_text(encoding="utf-8") != text:
            raise SystemExit(f"{TARGET.name} is not what the settings say: run `make reference`")
    else:
        TARGET.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
