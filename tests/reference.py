"""What is made of the settings classes and the commands' help: `make reference` writes it, `make check` compares.

COMMANDS.md and docs/troubleshooting.md for readers, and nanosft/help.json, from which `--help` is shown without
loading what made it.

python -m tests.reference [--check]
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from pydantic.fields import FieldInfo

from nanosft.cli import app
from nanosft.help import PAGES_PATH, Page
from nanosft.settings import StageSettings
from nanosft.settings.base import ENV_PREFIX, extra_of, option_name
from nanosft.settings.options import OPTIONS, HelpGroup, grouped_fields, kind_of, make_page
from tests import troubleshooting

TROUBLESHOOTING_PATH = Path(__file__).parents[1] / "docs/troubleshooting.md"
COMMANDS_PATH = Path(__file__).parents[1] / "COMMANDS.md"
_ROW = re.compile(r"\[\s*\"[^\[\]]*\"\s*\](?=,?$)", re.MULTILINE)
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


def render_commands() -> str:
    """COMMANDS.md."""
    classes = {cls.command: cls for cls in StageSettings.__subclasses__() if cls.__module__.startswith("nanosft.")}
    sections = [_section(name, text, classes[name]) for name, text in list_commands()]
    return "\n".join([INTRODUCTION, *sections])


def render_pages() -> str:
    """help.json: one row of a page a line, so that a change shows as one."""
    command = typer.main.get_command(app)
    pages: dict[str, Page] = {}
    _add_pages(command, command.make_context("nanosft", [], resilient_parsing=True), pages)
    return _ROW.sub(lambda match: " ".join(match[0].split()), json.dumps(pages, ensure_ascii=False, indent=1)) + "\n"


def _add_pages(command: Any, ctx: Any, pages: dict[str, Page]) -> None:
    pages[" ".join(ctx.command_path.split()[1:])] = make_page(command, ctx)
    if isinstance(command, HelpGroup):
        for name in command.list_commands(ctx):
            item = command.commands[name]
            _add_pages(item, item.make_context(name, [], parent=ctx, resilient_parsing=True), pages)


def _section(name: str, text: str, cls: type[StageSettings]) -> str:
    paragraphs = text.strip().split("\n\n")
    example = [
        f"```sh\n{paragraph}\n```" if paragraph.startswith("nanosft ") else paragraph for paragraph in paragraphs
    ]
    table = ["| option | variable | default | |", "|---|---|---|---|"]
    heading = OPTIONS
    for field_name, field, group in grouped_fields(cls):
        if group != heading:
            table.append(f"| **{group}** | | | |")
            heading = group
        table.append(_row(field_name, field))
    return "\n\n".join([f"## {name}", *example, "\n".join(table)]) + "\n"


def _row(name: str, field: FieldInfo) -> str:
    extra = extra_of(field)
    kind = kind_of(field.annotation)
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
    """Write the files, or compare them.

    Raises:
        SystemExit: With `--check`, where one is not what the settings say.
    """
    made = {
        COMMANDS_PATH: render_commands(),
        PAGES_PATH: render_pages(),
        TROUBLESHOOTING_PATH: troubleshooting.render(),
    }
    for path, text in made.items():
        if arguments != ["--check"]:
            path.write_text(text, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            raise SystemExit(f"{path.name} is not what the settings say: run `make reference`")


if __name__ == "__main__":
    main(sys.argv[1:])
